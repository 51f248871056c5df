"""Alignment of small patches by their grey values, many at once.

Lucas and Kanade, "An Iterative Image Registration Technique with an Application to Stereo Vision",
IJCAI 1981; here in the inverse compositional form, with an affine motion and with gain and bias
solved for along with it: Baker and Matthews, "Lucas-Kanade 20 Years On", parts 1 and 3, 2004. From
coarse to fine: Bouguet, "Pyramidal Implementation of the Lucas Kanade Feature Tracker", 2000.

Points are (x, y) in pixels, the centre of the first at (0.5, 0.5). A motion takes an offset u from
a point in the first image to ``point1 + linear @ u`` in the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Below this standard deviation, in grey levels, a patch is flat: nothing to align.
_FLAT = 1.0
# The unit of the bias in grey levels: makes its equation as heavy as the others.
_BIAS = 32.0
# Damping of the normal equations, as a share of those of the translation: keeps edges solvable.
_DAMPING = 1e-4
# A patch whose contrast is a smaller share of the other's is not the same.
_LEAST_GAIN = 0.1
# Patches at once, so that they stay in the processor's cache.
_CHUNK = 1024
# A linear part this far from a rotation with scale is a failed fit.
_MAX_STRETCH = 4.0


@dataclass(frozen=True)
class Pyramid:
    """An image at sizes of which each is half the one before.

    Attributes:
        levels: float32 (1, 1, H, W) each, from 0 to 255, full size first.
    """

    levels: tuple[Tensor, ...]


@dataclass(frozen=True)
class Motion:
    """Where patches of one image lie in another.

    Attributes:
        points1: (M, 2), where their centres are.
        linear: (M, 2, 2), how offsets from the centre change.
    """

    points1: Tensor
    linear: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Motion:
        return Motion(self.points1[rows], self.linear[rows])


@dataclass(frozen=True)
class Settings:
    """Settings of the alignment.

    Attributes:
        radius: a patch has 2 radius + 1 pixels a side, on every level.
        affine: whether the linear part is estimated too, on the finest level.
        iterations: at most so many on each level.
        tolerance: an update below so many pixels has converged.
    """

    radius: int
    affine: bool
    iterations: int
    tolerance: float = 0.01


@dataclass(frozen=True)
class Aligned:
    """Result of an alignment.

    Attributes:
        motion: after it.
        similarity: (M,), zero-mean normalised cross-correlation of the patches, from -1 to 1.
        converged: bool (M,), whether the last update was small and the motion is sound.
    """

    motion: Motion
    similarity: Tensor
    converged: Tensor


def pyramid(image: Tensor, num_levels: int) -> Pyramid:
    """Return the pyramid of a grey image (H, W); sides of a level are at least 2 pixels."""
    levels = [smoothed(image.float()[None, None])]
    while len(levels) < num_levels and min(levels[-1].shape[2:]) >= 4:
        # Means of 2 x 2 pixels: a point's coordinates are exactly halved.
        levels.append(smoothed(functional.avg_pool2d(levels[-1], 2)))
    return Pyramid(tuple(levels))


def smoothed(maps: Tensor) -> Tensor:
    """Return maps (N, C, H, W) smoothed by (1, 2, 1) / 4 along both axes, edges repeated."""
    x = functional.pad(maps, (1, 1, 1, 1), mode="replicate")
    x = x[..., :-1] + x[..., 1:]
    x = x[..., :-1] + x[..., 1:]
    x = x[:, :, :-1] + x[:, :, 1:]
    return (x[:, :, :-1] + x[:, :, 1:]) / 16


def sample(image: Tensor, points: Tensor) -> Tensor:
    """Return bilinear samples (...) of an image (1, 1, H, W) at points (..., 2)."""
    size = points.new_tensor(image.shape[:1:-1])
    grid = (2 * points / size - 1).reshape(1, 1, -1, 2)
    found = functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return found.reshape(points.shape[:-1])


def offsets(radius: int, device: torch.device) -> Tensor:
    """Return the offsets of a patch's pixels from its centre, (n, 2), row by row."""
    axis = torch.arange(-radius, radius + 1, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def similarity(
    first: Pyramid, second: Pyramid, points0: Tensor, motion: Motion, radius: int, level: int = 0
) -> Tensor:
    """Return the normalised cross-correlation (M,) of patches; -1 where one of them is flat."""
    u = offsets(radius, points0.device)
    level = min(level, len(first.levels) - 1, len(second.levels) - 1)
    scale = 0.5**level
    found = []
    for start in range(0, len(points0), _CHUNK):
        rows = slice(start, start + _CHUNK)
        a = sample(first.levels[level], points0[rows, None] * scale + u)
        b = sample(second.levels[level], _warped(motion[rows], u, scale))
        found.append(_correlation(a, b))
    return torch.cat(found) if found else points0.new_zeros(0)


def _warped(motion: Motion, u: Tensor, scale: float) -> Tensor:
    return motion.points1[:, None] * scale + u @ motion.linear.mT


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    norms = a.norm(dim=1) * b.norm(dim=1)
    flat = torch.minimum(a.std(dim=1), b.std(dim=1)) < _FLAT
    return torch.where(flat, -1.0, (a * b).sum(dim=1) / norms.clamp(min=1e-6))


def align(
    first: Pyramid,
    second: Pyramid,
    points0: Tensor,
    start: Motion,
    settings: Settings,
    levels: Sequence[int],
) -> Aligned:
    """Align patches of the second image to those around points of the first.

    Args:
        first: the image whose patches are the templates.
        second: the image whose patches move.
        points0: (M, 2), in the first image.
        start: a first guess.
        settings: of the alignment.
        levels: which levels of the pyramids, coarse ones first; 0 is full size. On all but the
            last, only the translation is estimated.
    """
    parts = [
        _align_chunk(first, second, points0[rows], start[rows], settings, levels)
        for rows in (slice(i, i + _CHUNK) for i in range(0, max(1, len(points0)), _CHUNK))
    ]
    motion = Motion(
        torch.cat([part.motion.points1 for part in parts]),
        torch.cat([part.motion.linear for part in parts]),
    )
    return Aligned(
        motion=motion,
        similarity=similarity(first, second, points0, motion, settings.radius),
        converged=torch.cat([part.converged for part in parts]),
    )


def _align_chunk(
    first: Pyramid,
    second: Pyramid,
    points0: Tensor,
    start: Motion,
    settings: Settings,
    levels: Sequence[int],
) -> Aligned:
    motion = start
    converged = torch.zeros(len(points0), dtype=torch.bool, device=points0.device)
    deepest = min(len(first.levels), len(second.levels)) - 1
    steps = [(level, False) for level in levels if level <= deepest]
    if settings.affine and steps:
        steps[-1] = (steps[-1][0], True)
    for level, affine in steps:
        motion, converged = _align_level(
            first.levels[level], second.levels[level], 0.5**level, points0, motion, settings, affine
        )
    stretch = torch.linalg.svdvals(motion.linear)
    sound = (stretch[:, 0] < _MAX_STRETCH) & (stretch[:, -1] > 1 / _MAX_STRETCH)
    return Aligned(motion, points0.new_zeros(0), converged & sound)


def _align_level(
    template: Tensor,
    image: Tensor,
    scale: float,
    points0: Tensor,
    motion: Motion,
    settings: Settings,
    affine: bool,
) -> tuple[Motion, Tensor]:
    """Iterate on one level of both pyramids; return the motion and whether it has converged."""
    radius = settings.radius
    u = offsets(radius, points0.device)
    solve = _solver(template, points0 * scale, radius, affine)
    points1, linear = motion.points1 * scale, motion.linear.clone()
    converged = torch.zeros(len(points0), dtype=torch.bool, device=points0.device)
    rows = torch.arange(len(points0), device=points0.device)
    for _ in range(settings.iterations):
        # 1. The second image's patches, seen as the first image's with a gain, and moved.
        current = Motion(points1[rows], linear[rows])
        seen = sample(image, _warped(current, u, 1.0))
        update = (solve @ seen[..., None])[..., 0]
        update = update[:, :-1] / update[:, -1:].clamp(min=_LEAST_GAIN)
        # 2. The template would have to move so: the image's patch moves by the inverse.
        shape = torch.eye(2, device=u.device).expand(len(rows), 2, 2)
        if affine:
            shape = shape + update[:, 2:].reshape(-1, 2, 2) / radius
        shape = current.linear @ torch.linalg.inv_ex(shape).inverse
        shift = (shape @ update[:, :2, None])[..., 0]
        size = shift.norm(dim=1, keepdim=True)
        shift = shift * (radius / size.clamp(min=radius))
        points1[rows], linear[rows] = current.points1 - shift, shape
        # 3. Go on with those that still move. What is left out costs a copy of the others.
        done = size[:, 0] < settings.tolerance
        converged[rows] = done
        if done.all():
            break
        if 4 * int(done.sum()) > len(rows):
            rows, solve = rows[~done], solve[~done]
    finite = points1.isfinite().all(dim=1) & linear.flatten(1).isfinite().all(dim=1)
    points1 = torch.where(finite[:, None], points1 / scale, motion.points1)
    linear = torch.where(finite[:, None, None], linear, motion.linear)
    return Motion(points1, linear), converged & finite


def _solver(template: Tensor, points: Tensor, radius: int, affine: bool) -> Tensor:
    """Return what gives, from a patch's grey values (n,), how a template fits it best.

    Returns:
        (M, K, n): times the grey values, the template's motion times gain, two numbers or six (the
        linear part in units of 1 / radius), and the gain last.
    """
    # 1. Templates with a margin of one pixel, for their derivatives: (M, n + 2, n + 2).
    u, side = offsets(radius, points.device), 2 * radius + 3
    wide = sample(template, points[:, None] + offsets(radius + 1, points.device))
    wide = wide.reshape(-1, side, side)
    grey = wide[:, 1:-1, 1:-1].flatten(1)
    gx = ((wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) / 2).flatten(1)
    gy = ((wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) / 2).flatten(1)
    # 2. How grey values change with each parameter, gain and bias last: (M, K + 1, n).
    rows = [gx, gy]
    if affine:
        rows += [g * u[:, i] / radius for g in (gx, gy) for i in (0, 1)]
    rows += [grey - grey.mean(dim=1, keepdim=True), torch.full_like(grey, _BIAS)]
    jacobian = torch.stack(rows, dim=1)
    # 3. The normal equations, with a weight that falls off from the centre.
    weights = (-(u**2).sum(dim=1) / (2 * (0.7 * radius) ** 2)).exp()
    weighted = jacobian * weights
    system = weighted @ jacobian.mT
    damping = torch.zeros_like(system[:, 0])
    # Gain and bias stay free: what is taken from them would be made up for by a motion.
    damping[:, :-2] = _DAMPING * (system[:, :1, 0] + system[:, 1:2, 1]) / 2
    damping += 1e-3
    inverse = torch.linalg.inv_ex(system + torch.diag_embed(damping)).inverse
    found: Tensor = inverse[:, :-1] @ weighted
    return found
