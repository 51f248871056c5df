"""A homography from correspondences, by estimators with and without regard for outliers.

- `dlt`: the normalised direct linear transform of all correspondences (Hartley and Zisserman,
  "Multiple View Geometry", algorithm 4.2). Nothing is done about outliers, so that it shows how
  good all matches together are.
- `weighted-dlt`: the same with the matches' scores as weights (Lindenberger et al., "LightGlue",
  ICCV 2023, section 5.1).
- `opencv`: RANSAC of `findHomography` with its defaults, at most 2,000 samples and a confidence of
  0.995, and its refinement on the inliers.
- `poselib`: LO-RANSAC with its defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version

import cv2
import numpy as np
import poselib

from sfm_match.spec import ConfigError, nearest
from sfm_match.types import ArrayF64

_MIN_POINTS = 4
# Below this ratio the second smallest singular value is zero too: H is not determined.
_MIN_SINGULAR = 1e-12

_Estimator = Callable[[ArrayF64, ArrayF64, ArrayF64, float, int], ArrayF64 | None]


def estimate_homography(
    points0: ArrayF64,
    points1: ArrayF64,
    scores: ArrayF64,
    *,
    estimator: str = "poselib",
    threshold: float = 3.0,
    seed: int = 0,
) -> ArrayF64 | None:
    """Return H, float64 (3, 3), with ``x1 ~ H x0``; None where nothing can be estimated.

    Equal arguments give equal results.

    Args:
        points0: float64 (M, 2), pixels of the first image.
        points1: float64 (M, 2), pixels of the second image.
        scores: float64 (M,), of the correspondences; those that are not positive have no weight.
        estimator: one of `HOMOGRAPHY_ESTIMATORS`.
        threshold: largest distance of an inlier, in pixels of the second image; `dlt` and
            `weighted-dlt` have no use for it.
        seed: of the random samples. OpenCV always draws the same; for it the seed sets the order
            of the correspondences.

    Raises:
        ConfigError: there is no such estimator, or the threshold is none.
    """
    check_homography_estimator(estimator, threshold)
    if len(points0) < _MIN_POINTS:
        return None
    H = HOMOGRAPHY_ESTIMATORS[estimator](points0, points1, scores, threshold, seed)
    return None if H is None or not np.isfinite(H).all() else H


def check_homography_estimator(estimator: str, threshold: float) -> None:
    """Raise ConfigError for settings that `estimate_homography` cannot use."""
    if estimator not in HOMOGRAPHY_ESTIMATORS:
        known = nearest(estimator, HOMOGRAPHY_ESTIMATORS)
        raise ConfigError(f"no homography estimator named {estimator!r}; {known}")
    if not (np.isfinite(threshold) and threshold > 0):
        raise ConfigError(f"the threshold must be a positive number of pixels, got {threshold!r}")


def homography_estimator_version(estimator: str) -> str:
    """Return the version of the library that does the work."""
    if estimator == "opencv":
        return str(cv2.__version__)
    return version("poselib" if estimator == "poselib" else "numpy")


def uses_threshold(estimator: str) -> bool:
    """Return whether an estimator depends on the threshold."""
    return not estimator.endswith("dlt")


def weighted_dlt(points0: ArrayF64, points1: ArrayF64, weights: ArrayF64) -> ArrayF64 | None:
    """Return the homography with the least weighted algebraic error, of norm 1.

    None where the points do not determine one.

    Args:
        points0: float64 (M, 2).
        points1: float64 (M, 2).
        weights: float64 (M,), not negative; of an equation's squared error.
    """
    kept = weights > 0
    points0, points1, weights = points0[kept], points1[kept], weights[kept]
    if len(points0) < _MIN_POINTS:
        return None
    T0, T1 = _normalisation(points0), _normalisation(points1)
    x0 = np.column_stack([points0, np.ones(len(points0))]) @ T0.T
    x1 = np.column_stack([points1, np.ones(len(points1))]) @ T1.T
    zero = np.zeros_like(x0)
    rows = np.concatenate(
        [
            np.column_stack([zero, -x0, x1[:, 1:2] * x0]),
            np.column_stack([x0, zero, -x1[:, :1] * x0]),
        ]
    )
    scaled = rows * np.sqrt(np.tile(weights / weights.max(), 2))[:, None]
    # Of the 9 x 9 triangle, which has the same singular values: M may be large.
    _, singular, vt = np.linalg.svd(np.linalg.qr(scaled, mode="r"))
    if len(singular) > 7 and singular[7] <= _MIN_SINGULAR * singular[0]:
        return None
    H = np.linalg.inv(T1) @ vt[-1].reshape(3, 3) @ T0
    return np.asarray(H / np.linalg.norm(H))


def _normalisation(points: ArrayF64) -> ArrayF64:
    """Return the similarity that moves the mean to 0 and the mean distance from it to sqrt(2)."""
    mean = points.mean(axis=0)
    spread = np.linalg.norm(points - mean, axis=1).mean()
    scale = np.sqrt(2) / spread if spread > 0 else 1.0
    return np.array([[scale, 0, -scale * mean[0]], [0, scale, -scale * mean[1]], [0, 0, 1]])


def _dlt(
    points0: ArrayF64, points1: ArrayF64, scores: ArrayF64, threshold: float, seed: int
) -> ArrayF64 | None:
    return weighted_dlt(points0, points1, np.ones(len(points0)))


def _weighted_dlt(
    points0: ArrayF64, points1: ArrayF64, scores: ArrayF64, threshold: float, seed: int
) -> ArrayF64 | None:
    return weighted_dlt(points0, points1, np.maximum(scores, 0))


def _opencv(
    points0: ArrayF64, points1: ArrayF64, scores: ArrayF64, threshold: float, seed: int
) -> ArrayF64 | None:
    order = np.random.default_rng(seed).permutation(len(points0))
    H, _ = cv2.findHomography(points0[order], points1[order], cv2.RANSAC, threshold)
    return None if H is None else np.asarray(H, np.float64)


def _poselib(
    points0: ArrayF64, points1: ArrayF64, scores: ArrayF64, threshold: float, seed: int
) -> ArrayF64 | None:
    ransac = {"max_reproj_error": threshold, "seed": seed}
    H, found = poselib.estimate_homography(points0, points1, ransac, {})
    return np.asarray(H, np.float64) if found["num_inliers"] >= _MIN_POINTS else None


HOMOGRAPHY_ESTIMATORS: Mapping[str, _Estimator] = {
    "dlt": _dlt,
    "weighted-dlt": _weighted_dlt,
    "opencv": _opencv,
    "poselib": _poselib,
}
"""The estimators by name."""
