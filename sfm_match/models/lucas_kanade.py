"""Patches that are aligned in an image by their grey values, many at once.

Lucas and Kanade, "An Iterative Image Registration Technique with an Application to Stereo Vision",
IJCAI 1981; here in the inverse compositional form, with an affine motion and with gain and bias
solved for along with it: Baker and Matthews, "Lucas-Kanade 20 Years On", parts 1 and 3, 2004.

Points are (x, y) in pixels, the centre of the first at (0.5, 0.5). A motion takes an offset u from
the centre of a patch to ``point1 + linear @ u`` in the image.
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
CHUNK = 1024
# A linear part this far from a rotation with scale is a failed fit.
_MAX_STRETCH = 4.0


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


def cut(image: Tensor, points: Tensor, radius: int) -> Tensor:
    """Return patches (M, n, n) of an image (1, 1, H, W) around points (M, 2): templates.

    They have 2 radius + 3 pixels a side, one more than a patch on each, for the derivatives.
    """
    side = 2 * radius + 3
    around = points[:, None] + offsets(radius + 1, points.device)
    return sample(image, around).reshape(-1, side, side)


def align_templates(templates: Tensor, image: Tensor, start: Motion, settings: Settings) -> Aligned:
    """Align patches of an image to templates that were cut out of others; see `cut`.

    Args:
        templates: (M, n, n), of the radius of the settings.
        image: (1, 1, H, W), from 0 to 255, a level of a pyramid.
        start: a first guess, in pixels of that level.
        settings: of the alignment.
    """
    u = offsets(settings.radius, templates.device)
    parts = []
    for rows in (slice(i, i + CHUNK) for i in range(0, max(1, len(templates)), CHUNK)):
        some = templates[rows]
        motion, converged = follow(some, image, start[rows], settings, settings.affine)
        seen = sample(image, warped(motion, u, 1.0))
        alike = correlation(some[:, 1:-1, 1:-1].flatten(1), seen)
        parts.append(Aligned(motion, alike, converged & is_sound(motion)))
    return Aligned(
        motion=joined([part.motion for part in parts]),
        similarity=torch.cat([part.similarity for part in parts]),
        converged=torch.cat([part.converged for part in parts]),
    )


def warped(motion: Motion, u: Tensor, scale: float) -> Tensor:
    """Return where offsets (n, 2) from the centres lie at a scale of the image: (M, n, 2)."""
    return motion.points1[:, None] * scale + u @ motion.linear.mT


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the normalised correlation (M,) of grey values (M, n); -1 where one is flat."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    norms = a.norm(dim=1) * b.norm(dim=1)
    flat = torch.minimum(a.std(dim=1), b.std(dim=1)) < _FLAT
    return torch.where(flat, -1.0, (a * b).sum(dim=1) / norms.clamp(min=1e-6))


def joined(parts: Sequence[Motion]) -> Motion:
    """Return the motions of several chunks as one."""
    return Motion(
        torch.cat([part.points1 for part in parts]), torch.cat([part.linear for part in parts])
    )


def is_sound(motion: Motion) -> Tensor:
    """Return whether linear parts, (M,), are near enough to a rotation with scale."""
    stretch = torch.linalg.svdvals(motion.linear)
    sound: Tensor = (stretch[:, 0] < _MAX_STRETCH) & (stretch[:, -1] > 1 / _MAX_STRETCH)
    return sound


def follow(
    templates: Tensor, image: Tensor, start: Motion, settings: Settings, affine: bool
) -> tuple[Motion, Tensor]:
    """Move patches of an image (1, 1, H, W) until they look like templates (see `cut`).

    Returns:
        The motion, and bool (M,), whether it has converged.
    """
    radius = settings.radius
    u = offsets(radius, templates.device)
    solve = _solver(templates, radius, affine)
    points1, linear = start.points1.clone(), start.linear.clone()
    converged = torch.zeros(len(templates), dtype=torch.bool, device=templates.device)
    rows = torch.arange(len(templates), device=templates.device)
    for _ in range(settings.iterations):
        # 1. The second image's patches, seen as the first image's with a gain, and moved.
        current = Motion(points1[rows], linear[rows])
        seen = sample(image, warped(current, u, 1.0))
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
    points1 = torch.where(finite[:, None], points1, start.points1)
    linear = torch.where(finite[:, None, None], linear, start.linear)
    return Motion(points1, linear), converged & finite


def _solver(templates: Tensor, radius: int, affine: bool) -> Tensor:
    """Return what gives, from a patch's grey values (n,), how a template fits it best.

    Returns:
        (M, K, n): times the grey values, the template's motion times gain, two numbers or six (the
        linear part in units of 1 / radius), and the gain last.
    """
    # 1. Grey values and derivatives: (M, n) each.
    u = offsets(radius, templates.device)
    grey = templates[:, 1:-1, 1:-1].flatten(1)
    gx = ((templates[:, 1:-1, 2:] - templates[:, 1:-1, :-2]) / 2).flatten(1)
    gy = ((templates[:, 2:, 1:-1] - templates[:, :-2, 1:-1]) / 2).flatten(1)
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
