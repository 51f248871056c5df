"""Measures of the matches and the estimated relative pose of one pair against the truth."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import numpy as np

from sfm_match.geometry import poses
from sfm_match.geometry.epipolar import essential_from_pose, squared_symmetric_epipolar_distance
from sfm_match.geometry.relative_pose import estimate_relative_pose
from sfm_match.stages.pair_results import FAILED, PairMatches, PairPose
from sfm_match.stages.pair_truth import TruePair
from sfm_match.types import ArrayF64

MAX_EPIPOLAR_ERROR = 5e-4
"""Largest squared symmetric epipolar distance of a correct match, in normalised coordinates."""

Setting = tuple[str, float]
"""An estimator and its threshold in pixels."""


def measure_pair(
    pair: TruePair,
    points: tuple[ArrayF64, ArrayF64],
    num_keypoints: tuple[int, int] | None,
    settings: Sequence[Setting],
    seed: int,
    max_epipolar_error: float = MAX_EPIPOLAR_ERROR,
) -> tuple[PairMatches, list[PairPose]]:
    """Measure the matches of a pair, and the pose that each setting makes of them.

    The seed of a pair follows from `seed` and its names, so that the result does not depend on
    what else there is.

    Args:
        pair: the truth.
        points: float64 (M, 2) matched pixels of each image.
        num_keypoints: of each image; None where the matcher works without.
        settings: estimators with their thresholds.
        seed: of the estimators.
        max_epipolar_error: of a correct match, see `MAX_EPIPOLAR_ERROR`.
    """
    pair_seed = seed_of(seed, *pair.names)
    points0 = np.asarray(pair.cameras[0].cam_from_img(points[0]), np.float64)
    points1 = np.asarray(pair.cameras[1].cam_from_img(points[1]), np.float64)
    # Beyond the field of a lens with distortion there is no direction for a pixel.
    seen = np.isfinite(np.concatenate([points0, points1], axis=1)).all(axis=1)
    points0, points1, num_matches = points0[seen], points1[seen], len(points[0])
    precision, score = None, None
    if pair.cam1_from_cam0[:, 3].any():
        E = essential_from_pose(pair.cam1_from_cam0)
        errors = squared_symmetric_epipolar_distance(points0, points1, E)
        num_correct = int(np.count_nonzero(errors < max_epipolar_error))
        precision = 100 * num_correct / max(num_matches, 1)
        if num_keypoints is not None:
            score = 100 * num_correct / max(num_keypoints[0], 1)
    matches = PairMatches(pair.names, num_keypoints, num_matches, precision, score)
    return matches, [_pose(pair, points0, points1, setting, pair_seed) for setting in settings]


def seed_of(seed: int, *names: str) -> int:
    """Return the seed of a pair, from 0 to 2^31 - 1."""
    named = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(named[:4], "little") >> 1


def _pose(
    pair: TruePair, points0: ArrayF64, points1: ArrayF64, setting: Setting, seed: int
) -> PairPose:
    """Estimate the pose from normalised points and compare it with the truth."""
    focals = pair.cameras[0].mean_focal_length(), pair.cameras[1].mean_focal_length()
    estimator, threshold = setting
    start = time.thread_time()
    found = estimate_relative_pose(
        points0, points1, focals, estimator=estimator, threshold=threshold, seed=seed
    )
    milliseconds = 1000 * (time.thread_time() - start)
    if found is None:
        return PairPose(None, None, FAILED, 0, milliseconds)
    pose, true = found.cam1_from_cam0, pair.cam1_from_cam0
    translation = None
    if true[:, 3].any():
        translation = float(poses.direction_error(pose[:, 3], true[:, 3], sign_ambiguous=True))
    return PairPose(
        rotation_error=float(poses.rotation_error(pose[:, :3], true[:, :3])),
        translation_error=translation,
        error=float(poses.pose_error(pose, true, sign_ambiguous=True)),
        num_inliers=int(np.count_nonzero(found.inliers)),
        milliseconds=milliseconds,
    )
