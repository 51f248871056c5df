"""Matches, keypoints and homographies of pairs, scored from what was matched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from sfm_match.benchmarks.datasets import HomographyPair, HomographySet
from sfm_match.benchmarks.matched import Machine, Matched, best_matches, scale_to
from sfm_match.benchmarks.measures import Row, Run, area_under_curve, mean_of
from sfm_match.benchmarks.resizing import Size
from sfm_match.benchmarks.settings import HomographyConfig
from sfm_match.geometry.homographies import (
    Repeatability,
    corner_error,
    matching_accuracies,
    repeatability,
    rescale,
    transfer_errors,
)
from sfm_match.geometry.homography_estimation import (
    check_homography_estimator,
    estimate_homography,
    homography_estimator_version,
    uses_threshold,
)
from sfm_match.spec import ConfigError
from sfm_match.stages.executor import run_in_threads
from sfm_match.stages.pair_measures import seed_of
from sfm_match.types import ArrayF64, Correspondences

Setting = tuple[str, float | None]
"""An estimator and its threshold in pixels; None for one that has none."""

GROUPS = ("illumination", "viewpoint")

_ANY_THRESHOLD = 1.0


def homography_settings(config: HomographyConfig) -> list[Setting]:
    """Return each estimator with each threshold that it has use for.

    Raises:
        ConfigError: there is none, or one is wrong.
    """
    settings: list[Setting] = []
    for estimator in config.estimators:
        for threshold in config.thresholds:
            check_homography_estimator(estimator, threshold)
        limits: Sequence[float | None] = config.thresholds if uses_threshold(estimator) else [None]
        settings += [(estimator, threshold) for threshold in limits]
    if not settings:
        raise ConfigError("a benchmark of homographies needs an estimator and a threshold")
    return settings


def score_homographies(
    data: HomographySet, matched: Matched, config: HomographyConfig, seed: int, machine: Machine
) -> list[Run]:
    """Estimate every pair's homography with each setting and compare it with the truth."""
    settings = homography_settings(config)
    found: list[list[Row]] = []
    with machine.progress("estimate", len(data.pairs)) as steps:
        tasks = _tasks(data, matched, settings, config, seed)
        for _, rows in run_in_threads(tasks, machine.threads):
            found.append(rows)
            steps(1)
    return [
        _run([rows[number] for rows in found], setting, config)
        for number, setting in enumerate(settings)
    ]


def _tasks(
    data: HomographySet,
    matched: Matched,
    settings: Sequence[Setting],
    config: HomographyConfig,
    seed: int,
) -> Iterator[tuple[HomographyPair, Callable[[], list[Row]]]]:
    shown = matched.shown
    for pair in data.pairs:
        if any(name in matched.stores.failures for name in pair.names):
            yield pair, partial(_failed, pair, len(settings), config)
            continue
        sizes = shown.size(pair.names[0]), shown.size(pair.names[1])
        scales = [
            scale_to(shown.file_size(name), size)
            for name, size in zip(pair.names, sizes, strict=True)
        ]
        H = rescale(pair.H, scales[0], scales[1])
        found = best_matches(matched.reader.correspondences(pair.names), config.max_matches)
        keypoints = tuple(matched.reader.best_keypoints(name) for name in pair.names)
        yield (
            pair,
            partial(_measure, pair, H, sizes, found, keypoints, settings, config, seed),
        )


def _failed(pair: HomographyPair, num: int, config: HomographyConfig) -> list[Row]:
    nothing = {f"{t:g}": 0.0 for t in config.accuracies}
    return [_row(pair, None, 0, nothing, Repeatability(None, None))] * num


def _measure(
    pair: HomographyPair,
    H: ArrayF64,
    sizes: tuple[Size, Size],
    found: Correspondences,
    keypoints: Sequence[ArrayF64 | None],
    settings: Sequence[Setting],
    config: HomographyConfig,
    seed: int,
) -> list[Row]:
    points0, points1 = found.points0.astype(np.float64), found.points1.astype(np.float64)
    accuracies = matching_accuracies(transfer_errors(points0, points1, H), config.accuracies)
    named = {f"{t:g}": float(a) for t, a in zip(config.accuracies, accuracies, strict=True)}
    repeated = Repeatability(None, None)
    if keypoints[0] is not None and keypoints[1] is not None:
        limits = config.repeatability_threshold, config.repeatability_keypoints
        repeated = repeatability(keypoints[0], keypoints[1], H, sizes, *limits)
    rows: list[Row] = []
    for estimator, threshold in settings:
        estimated = estimate_homography(
            points0,
            points1,
            found.scores.astype(np.float64),
            estimator=estimator,
            threshold=threshold or _ANY_THRESHOLD,
            seed=seed_of(seed, *pair.names),
        )
        error = np.inf if estimated is None else corner_error(estimated, H, sizes[0])
        finite = float(error) if np.isfinite(error) else None
        rows.append(_row(pair, finite, len(found), named, repeated))
    return rows


def _row(
    pair: HomographyPair,
    error: float | None,
    num_matches: int,
    accuracies: dict[str, float],
    repeated: Repeatability,
) -> dict[str, Any]:
    return {
        "group": pair.group,
        "name0": pair.names[0],
        "name1": pair.names[1],
        "error": error,
        "num_matches": num_matches,
        "accuracy": accuracies,
        "repeatability": repeated.percent,
        "localization_error": repeated.localization_error,
    }


def _run(rows: list[Row], setting: Setting, config: HomographyConfig) -> Run:
    estimator, threshold = setting
    groups = {name: [row for row in rows if row["group"] == name] for name in GROUPS}
    return {
        "task": "homographies",
        "estimator": estimator,
        "estimator_version": homography_estimator_version(estimator),
        "threshold": threshold,
        **_summary(rows, config),
        "groups": {name: _summary(part, config) for name, part in groups.items() if part},
        "pairs": rows,
    }


def _summary(rows: Sequence[Row], config: HomographyConfig) -> dict[str, Any]:
    return {
        "num_pairs": len(rows),
        "num_failed": sum(row["error"] is None for row in rows),
        "auc": area_under_curve(rows, config.auc),
        "accuracy": {
            key: float(np.mean([row["accuracy"][key] for row in rows]))
            for key in rows[0]["accuracy"]
        },
        "repeatability": mean_of(rows, "repeatability"),
        "localization_error": mean_of(rows, "localization_error"),
        "num_matches": mean_of(rows, "num_matches"),
    }
