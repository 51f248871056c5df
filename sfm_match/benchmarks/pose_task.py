"""Relative poses of pairs, scored from what was matched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np

from sfm_match.benchmarks.datasets import PosePairs
from sfm_match.benchmarks.matched import Machine, Matched, Shown, scale_to
from sfm_match.benchmarks.measures import Run, area_under_curve, mean_of
from sfm_match.benchmarks.settings import PairConfig, SceneConfig
from sfm_match.geometry.relative_pose import check_estimator, estimator_version
from sfm_match.spec import ConfigError
from sfm_match.stages.executor import run_in_threads
from sfm_match.stages.pair_measures import Setting, measure_pair
from sfm_match.stages.pair_results import PairMatches, PairPose, pair_dict
from sfm_match.stages.pair_truth import TruePair


def pose_settings(config: PairConfig | SceneConfig, seed: int) -> list[Setting]:
    """Return each estimator with each threshold.

    Raises:
        ConfigError: there is none, or one is wrong.
    """
    settings = list(product(config.estimators, config.thresholds))
    if not settings:
        raise ConfigError("a benchmark of poses needs an estimator and a threshold")
    for estimator, threshold in settings:
        check_estimator(estimator, threshold, seed)
    return settings


def fit_cameras(pairs: PosePairs, shown: Shown) -> PosePairs:
    """Return the pairs with cameras for the files' raster, unless they have a frame of their own.

    Raises:
        ConfigError: a camera does not fit its image.
    """
    return pairs if pairs.frame else replace(pairs, truth=pairs.truth.fitted(shown.headers))


def score_poses(
    pairs: PosePairs,
    matched: Matched,
    config: PairConfig | SceneConfig,
    seed: int,
    machine: Machine,
) -> list[Run]:
    """Estimate every pair's pose with each setting and compare it with the truth.

    Args:
        pairs: with cameras that fit (`fit_cameras`).
        matched: what was matched.
        config: estimators and thresholds.
        seed: of the estimators.
        machine: what does the work.
    """
    settings = pose_settings(config, seed)
    found: list[tuple[PairMatches, list[PairPose]]] = []
    with machine.progress("estimate", len(pairs.truth.pairs)) as steps:
        tasks = _tasks(pairs, matched, settings, config.max_epipolar_error, seed)
        for _, measures in run_in_threads(tasks, machine.threads):
            found.append(measures)
            steps(1)
    return [
        _run(pairs, found, number, setting, config.auc) for number, setting in enumerate(settings)
    ]


def _tasks(
    pairs: PosePairs,
    matched: Matched,
    settings: Sequence[Setting],
    max_epipolar_error: float,
    seed: int,
) -> Iterator[tuple[TruePair, Callable[[], tuple[PairMatches, list[PairPose]]]]]:
    reader, shown = matched.reader, matched.shown
    for pair in pairs.truth.pairs:
        found, numbers = reader.correspondences(pair.names), None
        points = found.points0.astype(np.float64), found.points1.astype(np.float64)
        if len(found):  # in the raster of the cameras: resizing is a multiplication
            frames = [pairs.frame or shown.file_size(name) for name in pair.names]
            scales = [
                scale_to(shown.size(name), frame)
                for name, frame in zip(pair.names, frames, strict=True)
            ]
            points = points[0] * scales[0], points[1] * scales[1]
        keypoints = reader.keypoints(pair.names[0]), reader.keypoints(pair.names[1])
        if keypoints[0] is not None and keypoints[1] is not None:
            numbers = len(keypoints[0]), len(keypoints[1])
        yield (
            pair,
            partial(measure_pair, pair, points, numbers, settings, seed, max_epipolar_error),
        )


def _run(
    pairs: PosePairs,
    found: Sequence[tuple[PairMatches, list[PairPose]]],
    number: int,
    setting: Setting,
    limits: Sequence[float],
) -> Run:
    rows = [
        {"group": group, **pair_dict(matches, poses[number])}
        for (matches, poses), group in zip(found, pairs.groups, strict=True)
    ]
    estimator, threshold = setting
    return {
        "task": "pairs",
        "estimator": estimator,
        "estimator_version": estimator_version(estimator),
        "threshold": threshold,
        "auc": area_under_curve(rows, limits),
        "precision": mean_of(rows, "precision"),
        "matching_score": mean_of(rows, "matching_score"),
        "num_pairs": len(rows),
        "num_failed": sum(row["rotation_error"] is None for row in rows),
        "num_matches": mean_of(rows, "num_matches"),
        "num_inliers": mean_of(rows, "num_inliers"),
        "ms": {"estimate": mean_of(rows, "ms")},
        "pairs": rows,
    }
