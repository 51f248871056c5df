"""Descriptors of keypoints that somebody has set by hand."""

from __future__ import annotations

import cv2
import numpy as np

from sfm_match.types import ArrayF32, Image

_SPACINGS = 0.5


def describe_points(image: Image, points: ArrayF32) -> ArrayF32:
    """Return RootSIFT descriptors of an upright image at given points.

    Their size follows from the points: half the median distance to the nearest other one, so that
    it grows with the object.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        points: float32 (N, 2), in pixels with the origin at the corner.

    Returns:
        float32 (N, 128), of norm 1, or zero where the image is flat.
    """
    grey = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    size = _SPACINGS * _spacing(points)
    keypoints = [cv2.KeyPoint(float(x), float(y), size, 0.0) for x, y in points - 0.5]
    _, found = cv2.SIFT.create().compute(grey, keypoints)
    sums = np.maximum(found.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.sqrt(found / sums), np.float32)


def _spacing(points: ArrayF32) -> float:
    """Return the median distance of points (N, 2) to the nearest other one; 2 where there is none.

    Points at the same place have no distance.
    """
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    distances[distances == 0] = np.inf
    nearest = distances.min(axis=1)
    nearest = nearest[np.isfinite(nearest)]
    return float(np.median(nearest)) if len(nearest) else 2.0
