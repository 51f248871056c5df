"""Orientations of keypoints from the gradients around them.

Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004, section 5, with the
constants of VLFeat, which COLMAP uses.
"""

from __future__ import annotations

from functools import reduce

import cv2
import numpy as np
from scipy.ndimage import convolve1d

from sfm_match.models.scale_space import ArrayI64, Extrema
from sfm_match.types import ArrayF32, ArrayF64

_BINS = 36
_WINDOW = 1.5  # standard deviation, in scales of the keypoint
_CUT_OFF = 3  # of the window, in standard deviations
# The mean of a bin and the two beside it, taken six times.
_SMOOTHING = reduce(np.convolve, [np.full(3, 1 / 3)] * 6)
_SECOND = 0.8  # least height of further peaks, of the highest one
_SAMPLES_AT_ONCE = 400_000  # so that temporary arrays stay in the cache


def orientations(raster: ArrayF32, points: Extrema, most: int) -> tuple[ArrayI64, ArrayF64]:
    """Return the rows of points, once for each orientation, and these, in radians.

    An orientation is the direction of a peak of the histogram of gradients, from x towards y.

    Args:
        raster: the level (H, W) in which the points were found.
        points: N of them.
        most: orientations of a point; the highest peaks are taken.
    """
    rows, angles = [np.zeros(0, np.int64)], [np.zeros(0)]
    radii = np.maximum(np.floor(_CUT_OFF * _WINDOW * points.sigma), 1).astype(np.int64)
    gradients = _gradients(raster)
    for radius in np.unique(radii):
        alike = np.flatnonzero(radii == radius)
        pieces = len(alike) * (2 * radius + 1) ** 2 // _SAMPLES_AT_ONCE + 1
        for some in np.array_split(alike, pieces):
            histograms = _histograms(*gradients, points.take(some), int(radius))
            row, angle = _peaks(histograms, most)
            rows.append(some[row])
            angles.append(angle)
    return np.concatenate(rows), np.concatenate(angles)


def _gradients(raster: ArrayF32) -> tuple[ArrayF32, ArrayF32]:
    """Return lengths and directions, these in bins."""
    kernel = np.array([[-0.5, 0, 0.5]], np.float32)
    dx = cv2.filter2D(raster, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.filter2D(raster, -1, kernel.T, borderType=cv2.BORDER_REPLICATE)
    lengths, angles = cv2.cartToPolar(dx, dy)
    angles *= _BINS / (2 * np.pi)
    return np.asarray(lengths, np.float32), np.asarray(angles, np.float32)


def _histograms(lengths: ArrayF32, bins: ArrayF32, points: Extrema, radius: int) -> ArrayF64:
    """Return the smoothed histograms (N, 36) of the gradients within a radius."""
    height, width = lengths.shape
    steps = np.arange(-radius, radius + 1)
    columns, weights_x = _window(points.x, points.sigma, steps, width)
    rows, weights_y = _window(points.y, points.sigma, steps, height)
    at = (rows * width)[:, :, None] + columns[:, None, :]
    disk = steps[:, None] ** 2 + steps**2 < radius**2 + 0.6
    weights = lengths.reshape(-1)[at] * (weights_y[:, :, None] * weights_x[:, None, :])
    weights *= disk
    # Each is shared between the two bins whose centres are nearest: i + 0.5 is that of bin i.
    share = bins.reshape(-1)[at] + np.float32(0.5)
    lower = share.astype(np.int64)  # one more than the bin, which is -1 below the first centre
    share -= lower
    lower += ((_BINS + 1) * np.arange(len(points)))[:, None, None]
    upper_weights = weights * share
    weights -= upper_weights
    below, above = (_sums(lower, part, len(points)) for part in (weights, upper_weights))
    histograms = np.roll(below, -1, axis=1) + above
    # A product of matrices would be as short, but threads of BLAS spin for a while after each.
    return np.asarray(convolve1d(histograms, _SMOOTHING, axis=1, mode="wrap"))


def _sums(bins: ArrayI64, weights: ArrayF32, number: int) -> ArrayF64:
    """Return sums (N, 36) of weights; N times 37 bins are given, the last of which is the first."""
    found = np.bincount(bins.ravel(), weights.ravel(), number * (_BINS + 1))
    sums: ArrayF64 = np.asarray(found, np.float64).reshape(number, _BINS + 1)
    sums[:, 0] += sums[:, _BINS]
    return sums[:, :_BINS]


def _window(
    centres: ArrayF64, sigmas: ArrayF64, steps: ArrayI64, size: int
) -> tuple[ArrayI64, ArrayF32]:
    """Return the samples around centres on one axis, (N, 2 R + 1), and their weights."""
    samples = np.rint(centres).astype(np.int64)[:, None] + steps
    distances = (samples - centres[:, None]) / (_WINDOW * sigmas[:, None])
    weights = np.exp(-(distances**2) / 2) * ((samples >= 0) & (samples < size))
    return np.clip(samples, 0, size - 1), weights.astype(np.float32)


def _peaks(histograms: ArrayF64, most: int) -> tuple[ArrayI64, ArrayF64]:
    """Return the histograms' rows, once for each of their highest peaks, and these in radians."""
    before, after = np.roll(histograms, 1, axis=1), np.roll(histograms, -1, axis=1)
    enough = histograms >= _SECOND * histograms.max(axis=1, keepdims=True)
    rows, bins = np.nonzero((histograms > before) & (histograms >= after) & enough)
    order = np.lexsort((-histograms[rows, bins], rows))
    rows, bins = rows[order], bins[order]
    highest = np.arange(len(rows)) - np.searchsorted(rows, rows) < most
    rows, bins = rows[highest], bins[highest]
    left, peak, right = before[rows, bins], histograms[rows, bins], after[rows, bins]
    offsets = (left - right) / (2 * (left + right - 2 * peak))
    return rows, (bins + 0.5 + offsets) * (2 * np.pi / _BINS)
