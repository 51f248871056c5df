from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.geometry.homographies import corner_error, warp
from sfm_match.geometry.homography_estimation import (
    HOMOGRAPHY_ESTIMATORS,
    estimate_homography,
    homography_estimator_version,
    uses_threshold,
    weighted_dlt,
)
from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64

SIZE = 640, 480
TRUE = np.array([[1.1, 0.05, 12], [-0.04, 0.95, 7], [1e-4, -5e-5, 1]])


def pairs(num: int = 200, outliers: int = 0, noise: float = 0.0) -> tuple[ArrayF64, ArrayF64]:
    rng = np.random.default_rng(1)
    points0 = rng.uniform(0, 480, (num, 2))
    points1 = warp(points0, TRUE) + rng.normal(0, noise, (num, 2))
    points1[:outliers] = rng.uniform(0, 480, (outliers, 2))
    return points0, points1


@pytest.mark.parametrize("estimator", HOMOGRAPHY_ESTIMATORS)
def test_exact_points_give_the_exact_homography(estimator: str) -> None:
    H = estimate_homography(*pairs(), np.ones(200), estimator=estimator)
    assert H is not None
    assert corner_error(H, TRUE, SIZE) < 1e-5


@pytest.mark.parametrize("estimator", ["opencv", "poselib"])
def test_robust_estimators_withstand_outliers(estimator: str) -> None:
    found = [
        estimate_homography(
            *pairs(200, 80, 0.5), np.ones(200), estimator=estimator, threshold=2.0, seed=seed
        )
        for seed in (3, 3, 4)
    ]
    assert found[0] is not None
    assert corner_error(found[0], TRUE, SIZE) < 1.5
    np.testing.assert_array_equal(found[0], found[1])


def test_dlt_does_not_but_weights_help_it() -> None:
    points0, points1 = pairs(200, 20)
    scores = np.where(np.arange(200) < 20, -1.0, 0.7)
    plain = estimate_homography(points0, points1, scores, estimator="dlt")
    weighted = estimate_homography(points0, points1, scores, estimator="weighted-dlt")
    assert plain is not None
    assert weighted is not None
    assert corner_error(plain, TRUE, SIZE) > 10
    assert corner_error(weighted, TRUE, SIZE) < 1e-6


@given(st.integers(0, 10_000))
def test_dlt_is_the_least_singular_vector_of_all_equations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points0 = rng.uniform(0, 480, (30, 2))
    points1 = warp(points0, TRUE) + rng.normal(0, 1, (30, 2))
    weights = rng.uniform(0.1, 1, 30)
    H = weighted_dlt(points0, points1, weights)
    assert H is not None

    def normalising(points: ArrayF64) -> ArrayF64:
        mean = points.mean(axis=0)
        s = np.sqrt(2) / np.mean(np.hypot(*(points - mean).T))
        return np.array([[s, 0, -s * mean[0]], [0, s, -s * mean[1]], [0, 0, 1]])

    T0, T1 = normalising(points0), normalising(points1)
    A = []
    for p, q, w in zip(warp(points0, T0), warp(points1, T1), weights, strict=True):
        (x, y), (u, v) = p, q
        A.append(np.sqrt(w) * np.array([x, y, 1, 0, 0, 0, -u * x, -u * y, -u]))
        A.append(np.sqrt(w) * np.array([0, 0, 0, x, y, 1, -v * x, -v * y, -v]))
    _, vectors = np.linalg.eigh(np.array(A).T @ np.array(A))
    expected = np.linalg.inv(T1) @ vectors[:, 0].reshape(3, 3) @ T0
    assert corner_error(H, expected, SIZE) < 1e-6


@pytest.mark.parametrize("estimator", HOMOGRAPHY_ESTIMATORS)
def test_too_few_points_and_points_on_a_line_give_nothing_or_no_error(estimator: str) -> None:
    points0, points1 = pairs(3)
    assert estimate_homography(points0, points1, np.ones(3), estimator=estimator) is None
    line = np.column_stack([np.arange(10.0), np.arange(10.0)])
    if estimator.endswith("dlt"):
        assert estimate_homography(line, line, np.ones(10), estimator=estimator) is None


def test_scores_without_a_positive_one_give_nothing() -> None:
    assert estimate_homography(*pairs(), np.zeros(200), estimator="weighted-dlt") is None


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="no homography estimator named 'magsac'"):
        estimate_homography(*pairs(), np.ones(200), estimator="magsac")
    with pytest.raises(ConfigError, match="positive number of pixels, got 0"):
        estimate_homography(*pairs(), np.ones(200), threshold=0)


def test_what_a_result_names() -> None:
    assert [uses_threshold(name) for name in HOMOGRAPHY_ESTIMATORS] == [False, False, True, True]
    assert all(homography_estimator_version(name) for name in HOMOGRAPHY_ESTIMATORS)
