"""Essential and fundamental matrices and the distances of correspondences from them.

With homogeneous points ``x1^T E x0 = 0``: ``E x0`` is the epipolar line of x0 in the second image,
``E^T x1`` that of x1 in the first (Hartley and Zisserman, "Multiple View Geometry", chapters 9 and
11). The distance functions take an essential matrix with points in normalised camera coordinates,
or a fundamental matrix with points in pixels, and answer in the points' units.

A point at its epipole has no epipolar line, and no distance says anything about its
correspondence: where a formula then divides by zero, the distance is infinite.
"""

from __future__ import annotations

import numpy as np

from sfm_match.types import ArrayF64


def essential_from_pose(b_from_a: ArrayF64) -> ArrayF64:
    """Return ``E = [t]x R``, float64 (..., 3, 3), of relative poses (..., 3, 4).

    E has the scale of the translation; it is zero for a pure rotation.
    """
    x, y, z = np.moveaxis(b_from_a[..., 3], -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1)
    return np.asarray(cross.reshape(*x.shape, 3, 3) @ b_from_a[..., :3])


def fundamental_from_essential(E: ArrayF64, K0: ArrayF64, K1: ArrayF64) -> ArrayF64:
    """Return ``F = K1^-T E K0^-1``, float64 (..., 3, 3), for undistorted pixels.

    Args:
        E: float64 (..., 3, 3), with ``x1^T E x0 = 0``.
        K0: float64 (..., 3, 3), calibration matrix of the first image.
        K1: float64 (..., 3, 3), of the second image; invertible, like K0.
    """
    return np.asarray(np.swapaxes(np.linalg.inv(K1), -1, -2) @ E @ np.linalg.inv(K0))


def squared_symmetric_epipolar_distance(
    points0: ArrayF64, points1: ArrayF64, E: ArrayF64
) -> ArrayF64:
    """Return the sum of the squared distances from the epipolar lines in both images.

    ``(x1^T E x0)^2 (1 / |(E x0)_xy|^2 + 1 / |(E^T x1)_xy|^2)``. SuperGlue (Sarlin et al.,
    CVPR 2020) counts a match as correct where this value, in normalised camera coordinates, is
    below 5e-4 (1e-4 in LoFTR's MegaDepth evaluation).

    Args:
        points0: float64 (M, 2).
        points1: float64 (M, 2).
        E: float64 (3, 3), essential or fundamental matrix.

    Returns:
        float64 (M,).
    """
    residual, square0, square1 = _residual_and_line_norms(points0, points1, E)
    return _ratio(residual**2, square0) + _ratio(residual**2, square1)


def squared_sampson_distance(points0: ArrayF64, points1: ArrayF64, E: ArrayF64) -> ArrayF64:
    """Return the squared Sampson distance, the first-order squared reprojection error.

    ``(x1^T E x0)^2 / (|(E x0)_xy|^2 + |(E^T x1)_xy|^2)`` (Hartley and Zisserman, equation 11.9).

    Args:
        points0: float64 (M, 2).
        points1: float64 (M, 2).
        E: float64 (3, 3), essential or fundamental matrix.

    Returns:
        float64 (M,).
    """
    residual, square0, square1 = _residual_and_line_norms(points0, points1, E)
    return _ratio(residual**2, square0 + square1)


def epipolar_line_distances(
    points0: ArrayF64, points1: ArrayF64, F: ArrayF64
) -> tuple[ArrayF64, ArrayF64]:
    """Return how far the points lie from their partners' epipolar lines.

    Args:
        points0: float64 (M, 2), in pixels where F is a fundamental matrix.
        points1: float64 (M, 2), likewise.
        F: float64 (3, 3), fundamental matrix (or essential matrix, for normalised points).

    Returns:
        float64 (M,), the distance in the first image, and float64 (M,), in the second.
    """
    residual, square0, square1 = _residual_and_line_norms(points0, points1, F)
    return _ratio(np.abs(residual), np.sqrt(square0)), _ratio(np.abs(residual), np.sqrt(square1))


def _residual_and_line_norms(
    points0: ArrayF64, points1: ArrayF64, E: ArrayF64
) -> tuple[ArrayF64, ArrayF64, ArrayF64]:
    """Return ``x1^T E x0`` and the squared norms of the lines' normals in images 0 and 1."""
    lines1 = points0 @ E[:, :2].T + E[:, 2]
    lines0 = points1 @ E[:2] + E[2]
    residual = np.sum(points1 * lines1[:, :2], axis=1) + lines1[:, 2]
    return residual, np.sum(lines0[:, :2] ** 2, axis=1), np.sum(lines1[:, :2] ** 2, axis=1)


def _ratio(numerator: ArrayF64, denominator: ArrayF64) -> ArrayF64:
    """Divide; where the denominator is zero, even 0 / 0, the answer is infinite."""
    infinite = np.full_like(numerator, np.inf)
    return np.divide(numerator, denominator, out=infinite, where=denominator > 0)
