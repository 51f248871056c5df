"""Relative pose of two calibrated cameras from correspondences with outliers, by three estimators.

- `poselib`: LO-RANSAC with the 5-point solver and a final robust refinement (Larsson and
  contributors, PoseLib), with its defaults: at least 1,000 samples, confidence 0.9999.
- `pycolmap`: COLMAP's LO-RANSAC of the essential matrix, with its defaults: the same numbers.
- `opencv`: plain RANSAC of the essential matrix and the pose that puts most points in front of both
  cameras, in normalised coordinates, as in the evaluation of SuperGlue (Sarlin et al., CVPR 2020)
  and LoFTR: confidence 0.99999, at most 1,000 samples.

They differ by more than most matchers do: a result names its estimator, threshold and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import cv2
import numpy as np
import numpy.typing as npt
import poselib
import pycolmap

from sfm_match.spec import ConfigError, nearest
from sfm_match.types import ArrayBool, ArrayF64

_MIN_POINTS = 5
# Points this far away, in baselines, still count as in front of the cameras.
_MAX_DISTANCE = 1e9


@dataclass(frozen=True, eq=False, slots=True)
class RelativePose:
    """A relative pose and the correspondences that agree with it.

    Attributes:
        cam1_from_cam0: float64 (3, 4); the translation has length 1.
        inliers: bool (M,).
    """

    cam1_from_cam0: ArrayF64
    inliers: ArrayBool


_Estimate = tuple[ArrayF64, ArrayBool] | None
_Estimator = Callable[[ArrayF64, ArrayF64, tuple[float, float], float, int], _Estimate]


def estimate_relative_pose(
    points0: ArrayF64,
    points1: ArrayF64,
    focals: tuple[float, float],
    *,
    estimator: str = "poselib",
    threshold: float = 1.5,
    seed: int = 0,
) -> RelativePose | None:
    """Estimate ``cam1_from_cam0``; None where there are too few points or nothing fits.

    Equal arguments give equal results. Releases the interpreter's lock.

    Args:
        points0: float64 (M, 2), normalised camera coordinates in the first image: undistorted,
            with the principal point at the origin and focal length 1.
        points1: float64 (M, 2), the same in the second image.
        focals: focal lengths in pixels, by which the threshold is taken to normalised coordinates.
        estimator: one of `ESTIMATORS`.
        threshold: largest distance of an inlier from the epipolar geometry (the square root of
            its squared Sampson distance), in pixels.
        seed: of the random samples. OpenCV always draws the same; for it the seed sets the order
            of the correspondences.

    Raises:
        ConfigError: there is no such estimator, or the threshold or the seed is none.
    """
    check_estimator(estimator, threshold, seed)
    if len(points0) < _MIN_POINTS:
        return None
    found = ESTIMATORS[estimator](points0, points1, focals, threshold, seed)
    if found is None:
        return None
    pose, inliers = found
    length = float(np.linalg.norm(pose[:, 3]))
    if not np.isfinite(pose).all() or length == 0 or np.count_nonzero(inliers) < _MIN_POINTS:
        return None
    return RelativePose(np.column_stack([pose[:, :3], pose[:, 3] / length]), inliers)


def check_estimator(estimator: str, threshold: float, seed: int = 0) -> None:
    """Raise ConfigError for settings that `estimate_relative_pose` cannot use."""
    if estimator not in ESTIMATORS:
        raise ConfigError(f"no estimator named {estimator!r}; {nearest(estimator, ESTIMATORS)}")
    if not (np.isfinite(threshold) and threshold > 0):
        raise ConfigError(f"the threshold must be a positive number of pixels, got {threshold!r}")
    if not 0 <= seed < 1 << 31:
        raise ConfigError(f"the seed must be from 0 to 2^31 - 1, got {seed!r}")


def estimator_version(estimator: str) -> str:
    """Return the version of the library that an estimator is from."""
    versions = {
        "poselib": version("poselib"),
        "pycolmap": pycolmap.__version__,
        "opencv": cv2.__version__,
    }
    return versions[estimator]


def _poselib(
    points0: ArrayF64, points1: ArrayF64, focals: tuple[float, float], threshold: float, seed: int
) -> _Estimate:
    camera0, camera1 = (
        {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [f, 0, 0]} for f in focals
    )
    ransac = {"max_epipolar_error": threshold, "seed": seed}
    pose, info = poselib.estimate_relative_pose(
        points0 * focals[0], points1 * focals[1], camera0, camera1, ransac, {}
    )
    return np.asarray(pose.Rt, np.float64), np.asarray(info["inliers"], np.bool_)


def _pycolmap(
    points0: ArrayF64, points1: ArrayF64, focals: tuple[float, float], threshold: float, seed: int
) -> _Estimate:
    camera0, camera1 = (
        pycolmap.Camera(model="SIMPLE_PINHOLE", width=1, height=1, params=[f, 0, 0]) for f in focals
    )
    options = pycolmap.RANSACOptions(max_error=threshold, random_seed=seed)
    found = pycolmap.estimate_essential_matrix(
        points0 * focals[0], points1 * focals[1], camera0, camera1, options
    )
    if found is None:
        return None
    return found["cam2_from_cam1"].matrix(), np.asarray(found["inlier_mask"], np.bool_)


def _opencv(
    points0: ArrayF64, points1: ArrayF64, focals: tuple[float, float], threshold: float, seed: int
) -> _Estimate:
    order = np.random.default_rng(seed).permutation(len(points0))
    shuffled0, shuffled1 = points0[order], points1[order]
    stacked, mask = cv2.findEssentialMat(
        shuffled0,
        shuffled1,
        np.eye(3),
        method=cv2.RANSAC,
        prob=0.99999,
        threshold=threshold / (sum(focals) / 2),
    )
    if stacked is None or len(stacked) < 3:
        return None
    # From five points alone come up to ten matrices, one below the other.
    best, best_num = None, 0
    for E in np.split(np.asarray(stacked, np.float64), len(stacked) // 3):
        num, rotation, translation, *_ = cv2.recoverPose(
            E, shuffled0, shuffled1, np.eye(3), distanceThresh=_MAX_DISTANCE, mask=mask.copy()
        )
        if num > best_num:
            best, best_num = np.column_stack([rotation, translation]).astype(np.float64), num
    if best is None:
        return None
    inliers: npt.NDArray[np.bool_] = np.zeros(len(order), np.bool_)
    inliers[order] = mask.ravel() > 0
    return best, inliers


ESTIMATORS: Mapping[str, _Estimator] = {
    "poselib": _poselib,
    "pycolmap": _pycolmap,
    "opencv": _opencv,
}
"""The estimators by name."""
