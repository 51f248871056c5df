"""Extrema of differences of Gaussians in scale space: where SIFT has its keypoints.

Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, sections 3 and 4, with
the constants of VLFeat, which COLMAP uses. Coordinates here are those of a raster's samples, whose
first is at 0, so that every other sample of an octave is one of the next.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sfm_match.types import ArrayBool, ArrayF32, ArrayF64

SCALES = 3  # of an octave that are searched; each also needs the next smaller and larger one
SIGMA = 1.6  # of an octave's first level, in its samples
_STEP = 2 ** (1 / SCALES)
_SIGMA_OF_IMAGE = 0.5
_MAX_MOVES = 4
_SMALLEST_MOVE = 0.6
_MIN_SIDE = 3
# An interpolated contrast is at most so much larger than that of the sample.
_CONTRAST_OF_SAMPLE = 0.8
_ROWS_AT_ONCE = 64  # so that temporary arrays stay in the cache

ArrayI64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Octave:
    """A picture at one resolution, blurred ever more.

    Attributes:
        levels: float32 (SCALES + 3, H, W), of 0 to 255; the one at i is blurred by
            SIGMA 2^(i / SCALES) samples.
        spacing: pixels of the image from one sample to the next.
    """

    levels: ArrayF32
    spacing: float


@dataclass(frozen=True)
class Extrema:
    """Points of an octave, each with N entries.

    Attributes:
        x: samples from the left one.
        y: samples from the top one.
        level: where between the octave's levels, as a fraction.
        found_at: the level, from 1 to SCALES, in which the extremum is.
    """

    x: ArrayF64
    y: ArrayF64
    level: ArrayF64
    found_at: ArrayI64

    @property
    def sigma(self) -> ArrayF64:
        """The scale in samples."""
        return SIGMA * 2 ** (self.level / SCALES)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: ArrayI64 | ArrayBool) -> Extrema:
        """Return some of the points."""
        return Extrema(self.x[rows], self.y[rows], self.level[rows], self.found_at[rows])


def scale_space(grey: npt.NDArray[np.uint8], first_octave: int, octaves: int = 4) -> list[Octave]:
    """Return the octaves of a picture (H, W); -1 as the first one doubles it, 0 does not."""
    spacing = 2.0**first_octave
    picture = grey.astype(np.float32) if first_octave == 0 else _doubled(grey)
    found: list[Octave] = []
    while len(found) < octaves and min(picture.shape) >= _MIN_SIDE:
        levels = np.empty((SCALES + 3, *picture.shape), np.float32)
        if found:
            levels[0] = picture
        else:
            _blur(picture, _SIGMA_OF_IMAGE / spacing, SIGMA, levels[0])
        for i in range(SCALES + 2):
            _blur(levels[i], SIGMA * _STEP**i, SIGMA * _STEP ** (i + 1), levels[i + 1])
        found.append(Octave(levels, spacing))
        picture = levels[SCALES, ::2, ::2]
        spacing *= 2
    return found


def _doubled(grey: npt.NDArray[np.uint8]) -> ArrayF32:
    """Put a sample between any two and after the last, which is repeated."""
    height, width = grey.shape
    wide = np.empty((height, 2 * width), np.float32)
    wide[:, ::2] = grey
    wide[:, 1:-1:2] = (wide[:, :-2:2] + wide[:, 2::2]) / 2
    wide[:, -1] = wide[:, -2]
    doubled = np.empty((2 * height, 2 * width), np.float32)
    doubled[::2] = wide
    np.add(wide[:-1], wide[1:], out=doubled[1:-1:2])
    doubled[1:-1:2] /= 2
    doubled[-1] = wide[-1]
    return doubled


def _blur(raster: ArrayF32, before: float, after: float, out: ArrayF32) -> None:
    sigma = (after**2 - before**2) ** 0.5
    cv2.GaussianBlur(raster, (0, 0), sigma, dst=out, borderType=cv2.BORDER_REPLICATE)


def extrema(octave: Octave, peak_threshold: float, edge_threshold: float) -> Extrema:
    """Return the extrema of an octave's differences of Gaussians, interpolated between samples.

    Args:
        octave: of a picture.
        peak_threshold: smallest contrast, of 1.
        edge_threshold: largest ratio of the principal curvatures.
    """
    contrast = 255 * peak_threshold
    samples = _extreme_samples(octave.levels, _CONTRAST_OF_SAMPLE * contrast)
    return _interpolated(octave.levels, samples, contrast, edge_threshold)


def _extreme_samples(levels: ArrayF32, contrast: float) -> ArrayI64:
    """Return the samples, as (N, 3) indices, whose differences exceed all of their 26 neighbours.

    The first of the levels that are subtracted counts as theirs.
    """
    height = levels.shape[1]
    square, high = np.ones((3, 3), np.uint8), np.float32(contrast)
    found = [np.zeros((0, 3), np.int64)]
    for top in range(0, height - 2, _ROWS_AT_ONCE):
        rows = levels[:, top : top + _ROWS_AT_ONCE + 2]
        differences = rows[1:] - rows[:-1]
        for i in range(1, SCALES + 1):
            below, here, above = differences[i - 1 : i + 2]
            largest = cv2.dilate(cv2.max(cv2.max(below, above), here), square)
            smallest = cv2.erode(cv2.min(cv2.min(below, above), here), square)
            maximum = cv2.compare(here, np.maximum(largest, high, out=largest), cv2.CMP_GE)
            minimum = cv2.compare(here, np.minimum(smallest, -high, out=smallest), cv2.CMP_LE)
            points = cv2.findNonZero(cv2.bitwise_or(maximum, minimum)[1:-1, 1:-1])
            if points is not None:
                x, y = points.reshape(-1, 2).astype(np.int64).T + 1
                found.append(np.column_stack([np.full(len(x), i), y + top, x]))
    samples = np.concatenate(found)
    cubes = _cubes(levels, samples).reshape(-1, 27)
    alone = np.count_nonzero(cubes == cubes[:, 13:14], axis=1) == 1
    return np.asarray(samples[alone])


def _cubes(levels: ArrayF32, samples: ArrayI64) -> ArrayF32:
    """Return the differences around samples, (N, 3, 3, 3) by level, row and column."""
    _, height, width = levels.shape
    steps = np.arange(-1, 2)
    offsets = (np.arange(-1, 3)[:, None, None] * height + steps[:, None]) * width + steps
    at = (samples[:, 0] * height + samples[:, 1]) * width + samples[:, 2]
    return np.diff(levels.reshape(-1)[at[:, None, None, None] + offsets], axis=1)


def _interpolated(
    levels: ArrayF32, samples: ArrayI64, contrast: float, edge_threshold: float
) -> Extrema:
    """Fit a quadratic to each neighbourhood, where its extremum is nearer to another one to that.

    As in VLFeat a sample moves within its level only, and what ends up to 1.5 samples away is kept:
    keypoints between two octaves would be lost otherwise.
    """
    _, height, width = levels.shape
    samples = samples.copy()
    moving = np.arange(len(samples))
    offsets, values = np.empty((len(samples), 3)), np.empty(len(samples))
    edges = np.empty(len(samples), np.bool_)
    limits = np.array([height, width]) - 2
    for move in range(_MAX_MOVES + 1):
        offset, value, edge = _fitted(_cubes(levels, samples[moving]), edge_threshold)
        offsets[moving], values[moving], edges[moving] = offset, value, edge
        if move == _MAX_MOVES:
            break
        steps = np.where(np.abs(offset[:, 1:]) > _SMALLEST_MOVE, np.sign(offset[:, 1:]), 0)
        target = np.clip(samples[moving, 1:] + steps.astype(np.int64), 1, limits)
        moved = (target != samples[moving, 1:]).any(axis=1)
        samples[moving, 1:] = target
        moving = moving[moved]
    level, y, x = (samples + offsets).T
    kept = (np.abs(values) > contrast) & ~edges & (np.abs(offsets) < 1.5).all(axis=1)
    kept &= (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    kept &= (level >= 0) & (level <= SCALES + 1)
    return Extrema(x, y, level, samples[:, 0]).take(kept)


def _fitted(cubes: ArrayF32, edge_threshold: float) -> tuple[ArrayF64, ArrayF64, ArrayBool]:
    """Return the offsets (N, 3) of quadratics' extrema, their values, and which are on edges."""
    c = cubes.astype(np.float64)
    centre = c[:, 1, 1, 1]
    lower = np.stack([c[:, 0, 1, 1], c[:, 1, 0, 1], c[:, 1, 1, 0]], axis=1)
    upper = np.stack([c[:, 2, 1, 1], c[:, 1, 2, 1], c[:, 1, 1, 2]], axis=1)
    gradient = (upper - lower) / 2
    hessian = np.empty((len(c), 3, 3))
    hessian[:, range(3), range(3)] = upper + lower - 2 * centre[:, None]
    for (i, j), plane in (((0, 1), c[:, :, :, 1]), ((0, 2), c[:, :, 1]), ((1, 2), c[:, 1])):
        mixed = plane[:, 2, 2] + plane[:, 0, 0] - plane[:, 0, 2] - plane[:, 2, 0]
        hessian[:, i, j] = hessian[:, j, i] = mixed / 4
    singular = np.abs(np.linalg.det(hessian)) < np.finfo(np.float32).tiny
    hessian[singular] = np.eye(3)
    offsets = -np.asarray(np.linalg.solve(hessian, gradient[..., None]), np.float64)[..., 0]
    offsets[singular] = 0
    values: ArrayF64 = centre + (gradient * offsets).sum(axis=1) / 2
    trace = hessian[:, 1, 1] + hessian[:, 2, 2]
    determinant = hessian[:, 1, 1] * hessian[:, 2, 2] - hessian[:, 1, 2] ** 2
    limit = (edge_threshold + 1) ** 2 / edge_threshold
    return offsets, values, trace**2 >= limit * determinant
