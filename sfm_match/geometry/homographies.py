"""Homographies, and the measures of points and matches against a true one.

A homography takes homogeneous points of the first image to the second, ``x1 ~ H x0``; pixels have
their origin at the image's corner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from sfm_match.types import ArrayBool, ArrayF64

_CORNER_FROM_CENTRE = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])


def warp(points: ArrayF64, H: ArrayF64) -> ArrayF64:
    """Return the points (N, 2) in the other image, float64 (N, 2); at infinity infinite."""
    lifted = points @ H[:, :2].T + H[:, 2]
    w = lifted[:, 2:]
    return np.divide(lifted[:, :2], w, out=np.full_like(lifted[:, :2], np.inf), where=w != 0)


def corner_from_centre(H: ArrayF64) -> ArrayF64:
    """Return a homography between pixels whose first centre is (0, 0) for corner-origin pixels."""
    return np.asarray(_CORNER_FROM_CENTRE @ H @ np.linalg.inv(_CORNER_FROM_CENTRE))


def rescale(H: ArrayF64, scale0: ArrayF64, scale1: ArrayF64) -> ArrayF64:
    """Return the homography between the images once resized.

    Args:
        H: float64 (3, 3).
        scale0: float64 (2,), new over old width and height of the first image.
        scale1: float64 (2,), the same of the second image.
    """
    return np.asarray(np.diag([*scale1, 1.0]) @ H @ np.diag([*(1 / scale0), 1.0]))


def corner_error(estimated: ArrayF64, true: ArrayF64, size: Sequence[float]) -> float:
    """Return the mean distance between the first image's four corners under both homographies.

    DeTone et al., "SuperPoint", CVPRW 2018, section 6. The corners are those of the raster,
    (0, 0), (w, 0), (w, h) and (0, h). Infinite where one of them is not mapped to a finite point.

    Args:
        estimated: float64 (3, 3).
        true: float64 (3, 3).
        size: width and height of the first image.
    """
    width, height = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    found, wanted = warp(corners, estimated), warp(corners, true)
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.linalg.norm(found - wanted, axis=1).mean())


def transfer_errors(points0: ArrayF64, points1: ArrayF64, H: ArrayF64) -> ArrayF64:
    """Return the distances (M,) of points1 from where H takes points0, in pixels of image 1."""
    return np.asarray(np.linalg.norm(warp(points0, H) - points1, axis=1))


def matching_accuracies(errors: ArrayF64, thresholds: Sequence[float]) -> ArrayF64:
    """Return the part of errors that are at most each threshold, in percent; 0 without errors.

    The mean over pairs is the mean matching accuracy (Mikolajczyk and Schmid, PAMI 2005; Dusmanu
    et al., "D2-Net", CVPR 2019).

    Args:
        errors: float64 (M,), of all matches of a pair.
        thresholds: (T,) in the errors' unit.

    Returns:
        float64 (T,).
    """
    if len(errors) == 0:
        return np.zeros(len(thresholds))
    return np.asarray(100 * np.mean(errors[:, None] <= np.asarray(thresholds), axis=0))


class Repeatability(NamedTuple):
    """How many keypoints both images have, see `repeatability`."""

    percent: float | None
    """Repeated keypoints of both images in percent of those in the part that both show; None where
    there is none there."""
    localization_error: float | None
    """Mean distance of repeated keypoints from the nearest of the other image, in pixels."""


def repeatability(
    keypoints0: ArrayF64,
    keypoints1: ArrayF64,
    H: ArrayF64,
    sizes: tuple[Sequence[float], Sequence[float]],
    threshold: float,
    max_keypoints: int = 0,
) -> Repeatability:
    """Return which part of the keypoints is found in both images, and how well they agree.

    DeTone et al., "SuperPoint", CVPRW 2018, section 6: keypoints of an image count that the other
    image shows. One is repeated where the nearest of the other image is at most `threshold` pixels
    away, with both in the second image.

    Args:
        keypoints0: float64 (N, 2), the best first.
        keypoints1: float64 (K, 2), the best first.
        H: float64 (3, 3), takes pixels of the first image to the second.
        sizes: width and height of each image.
        threshold: in pixels of the second image.
        max_keypoints: of those that count, take so many of each image; 0 for all.
    """
    moved0 = warp(keypoints0, H)
    seen0 = _inside(moved0, sizes[1])
    seen1 = _inside(warp(keypoints1, np.asarray(np.linalg.inv(H), np.float64)), sizes[0])
    last = max_keypoints or None
    points0, points1 = moved0[seen0][:last], keypoints1[seen1][:last]
    num = len(points0) + len(points1)
    if num == 0:
        return Repeatability(None, None)
    if len(points0) == 0 or len(points1) == 0:
        return Repeatability(0.0, None)
    distances = np.concatenate(
        [cKDTree(points1).query(points0)[0], cKDTree(points0).query(points1)[0]]
    )
    repeated = distances[distances <= threshold]
    error = float(repeated.mean()) if len(repeated) else None
    return Repeatability(100 * len(repeated) / num, error)


def _inside(points: ArrayF64, size: Sequence[float]) -> ArrayBool:
    return np.asarray(((points >= 0) & (points < np.asarray(size))).all(axis=1), np.bool_)
