from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.geometry.tracks_clusters import cluster_points
from sfm_match.types import ArrayF32


@st.composite
def observations(draw: st.DrawFn) -> tuple[ArrayF32, ArrayF32]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num = draw(st.integers(1, 200))
    side = draw(st.sampled_from([3.0, 30.0, 3000.0]))
    points = rng.uniform(-side, side, (num, 2)).astype(np.float32)
    return points, rng.uniform(0.1, 1, num).astype(np.float32)


@given(observations(), st.sampled_from([0.3, 1.0, 4.0]))
def test_a_keypoint_is_the_weighted_mean_of_what_is_near(
    made: tuple[ArrayF32, ArrayF32], radius: float
) -> None:
    points, weights = made
    found = cluster_points(points, weights, radius)
    num = len(found.centres)
    assert sorted(set(found.labels.tolist())) == list(range(num))
    away = np.linalg.norm(points - found.centres[found.labels], axis=1)
    assert away.max() <= 2 * 1.71 * radius
    for label in range(num):
        of_it = found.labels == label
        mean = np.average(points[of_it].astype(np.float64), axis=0, weights=weights[of_it])
        # Weights and places are rounded to 1/4096 of the largest and 1/1024 pixel.
        np.testing.assert_allclose(found.centres[label], mean, atol=2e-3 * max(1.0, radius))


@given(observations())
def test_what_is_one_place_is_one_keypoint_and_what_is_far_apart_is_not(
    made: tuple[ArrayF32, ArrayF32],
) -> None:
    points, weights = made
    places = np.unique(np.round(points / 8) * 8, axis=0)
    rows = np.random.default_rng(0).integers(0, len(places), 100)
    some = places[rows].astype(np.float32)
    found = cluster_points(some, weights[rows % len(weights)], 2.0)
    np.testing.assert_array_equal(found.centres[found.labels], some)


def test_the_densest_part_decides_and_the_best_score_weighs_most() -> None:
    row = np.array([0.0, 1.4, 3.0, 3.2, 3.4], np.float32)
    points = np.stack([row, np.zeros_like(row)], axis=1)
    found = cluster_points(points, np.ones(5, np.float32), 2.0)
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    weights = np.array([1, 1, 1, 3, 1], np.float32)
    found = cluster_points(points[2:], weights[2:], 2.0)
    np.testing.assert_allclose(found.centres, [[(3.0 + 3 * 3.2 + 3.4) / 5, 0]], atol=1e-3)


def test_noisy_observations_of_points_that_lie_apart_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(15)), axis=-1).reshape(-1, 2) * 8.0
    of_point = np.repeat(np.arange(len(grid)), 30)
    points = (grid[of_point] + rng.normal(size=(len(of_point), 2)) * 0.5).astype(np.float32)
    order = rng.permutation(len(points))
    found = cluster_points(points[order], np.ones(len(points), np.float32), 2.0)
    sizes = np.bincount(found.labels)
    large = np.flatnonzero(sizes >= 20)
    assert len(large) == len(grid)
    assert sizes[large].sum() > 0.99 * len(points)
    away = np.linalg.norm(found.centres[large, None] - grid, axis=2).min(axis=1)
    assert away.max() < 4 * 0.5 / np.sqrt(20)


def test_no_points_and_no_radius() -> None:
    nothing = np.zeros((0, 2), np.float32)
    found = cluster_points(nothing, np.zeros(0, np.float32), 1.0)
    assert (found.labels.shape, found.centres.shape) == ((0,), (0, 2))
    anchors = np.ones((3, 2), np.float32)
    found = cluster_points(nothing, np.zeros(0, np.float32), 1.0, anchors, 1.0)
    np.testing.assert_array_equal(found.centres, anchors)
    with pytest.raises(ValueError, match="the radius must be above 0 pixels, got 0"):
        cluster_points(nothing, np.zeros(0, np.float32), 0)
