"""Alignment of two images around points, from coarse to fine.

The method is that of `sfm_match.models.lucas_kanade`, on pyramids: Bouguet, "Pyramidal
Implementation of the Lucas Kanade Feature Tracker", 2000.

Points are (x, y) in pixels, the centre of the first at (0.5, 0.5). A motion takes an offset u from
a point in the first image to ``point1 + linear @ u`` in the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sfm_match.models.lucas_kanade import (
    CHUNK,
    Aligned,
    Motion,
    Settings,
    correlation,
    cut,
    follow,
    is_sound,
    joined,
    offsets,
    sample,
    warped,
)

__all__ = [
    "Aligned",
    "Motion",
    "Pyramid",
    "Settings",
    "align",
    "pyramid",
    "sample",
    "similarity",
    "smoothed",
]


@dataclass(frozen=True)
class Pyramid:
    """An image at sizes of which each is half the one before.

    Attributes:
        levels: float32 (1, 1, H, W) each, from 0 to 255, full size first.
    """

    levels: tuple[Tensor, ...]


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


def similarity(
    first: Pyramid, second: Pyramid, points0: Tensor, motion: Motion, radius: int, level: int = 0
) -> Tensor:
    """Return the normalised cross-correlation (M,) of patches; -1 where one of them is flat."""
    u = offsets(radius, points0.device)
    level = min(level, len(first.levels) - 1, len(second.levels) - 1)
    scale = 0.5**level
    found = []
    for start in range(0, len(points0), CHUNK):
        rows = slice(start, start + CHUNK)
        a = sample(first.levels[level], points0[rows, None] * scale + u)
        b = sample(second.levels[level], warped(motion[rows], u, scale))
        found.append(correlation(a, b))
    return torch.cat(found) if found else points0.new_zeros(0)


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
        for rows in (slice(i, i + CHUNK) for i in range(0, max(1, len(points0)), CHUNK))
    ]
    motion = joined([part.motion for part in parts])
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
    return Aligned(motion, points0.new_zeros(0), converged & is_sound(motion))


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
    patches = cut(template, points0 * scale, settings.radius)
    start = Motion(motion.points1 * scale, motion.linear)
    found, converged = follow(patches, image, start, settings, affine)
    return Motion(found.points1 / scale, found.linear), converged
