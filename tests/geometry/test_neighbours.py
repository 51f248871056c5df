"""Nearest images by costs, cameras, shared points and links, against the definitions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sfm_match.geometry.neighbours import (
    camera_distances,
    k_smallest,
    nearest_others,
    neighbours_of_neighbours,
    shared_points,
)

# Few values, so that many costs are equal.
COSTS = arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 9)),
    elements=st.sampled_from([0, 1, 2, np.inf]),
)


@given(COSTS, st.integers(1, 12))
def test_the_smallest_costs_of_each_row(costs: npt.NDArray[np.float64], num: int) -> None:
    expected = [
        (row, column)
        for row in range(len(costs))
        for _, column in sorted((cost, c) for c, cost in enumerate(costs[row]) if cost < np.inf)[
            :num
        ]
    ]
    assert [tuple(found) for found in k_smallest(costs, num)] == expected


@pytest.mark.parametrize("num_images", [0, 1, 5, 600])
def test_blocks_make_no_difference_and_none_is_its_own_neighbour(num_images: int) -> None:
    points = np.random.default_rng(0).normal(size=num_images)
    all_costs = np.abs(points[:, None] - points)
    found = nearest_others(lambda rows: all_costs[rows].copy(), num_images, 3)
    np.fill_diagonal(all_costs, np.inf)
    if num_images:
        np.testing.assert_array_equal(found, k_smallest(all_costs, 3))
    assert found.shape == (num_images * min(3, max(num_images - 1, 0)), 2)


def test_cameras_that_look_elsewhere_are_infinitely_far() -> None:
    centres = np.array([[0.0, 0, 0], [3, 4, 0], [0, 0, 2]])
    axes = np.array([[0.0, 0, 1], [0, 1, 0], [0, np.sin(np.radians(30)), np.cos(np.radians(30))]])
    at_30 = camera_distances(centres, axes, centres, axes, 30.0)
    np.testing.assert_allclose(at_30, [[0, np.inf, 2], [np.inf, 0, np.inf], [2, np.inf, 0]])
    at_60 = camera_distances(centres, axes, centres, axes, 60.0)
    assert at_60[1, 2] == pytest.approx(np.sqrt(29))
    assert at_60[0, 1] == np.inf
    assert camera_distances(centres, axes, centres, axes, 90.0)[0, 1] == pytest.approx(5)


OBSERVATIONS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=40)


@given(OBSERVATIONS)
def test_shared_points_are_those_in_both_sets(observations: list[tuple[int, int]]) -> None:
    seen = [{point for image, point in observations if image == i} for i in range(6)]
    images, points = np.array(observations, np.int64).reshape(-1, 2).T
    found = shared_points(images, points, 6).toarray()
    expected = [[len(a & b) if a is not b else 0 for b in seen] for a in seen]
    np.testing.assert_array_equal(found, expected)


LINKS = st.dictionaries(
    st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda link: link[0] < link[1]),
    st.integers(1, 100),
)


@given(LINKS)
def test_neighbours_of_neighbours_are_those_at_distance_two(
    links: dict[tuple[int, int], int],
) -> None:
    weights = np.zeros((7, 7))
    for (i, j), weight in links.items():
        weights[i, j] = weights[j, i] = weight
    found = neighbours_of_neighbours(
        np.array(list(links), np.int64).reshape(-1, 2), np.array(list(links.values()), float), 7
    ).toarray()
    for i in range(7):
        for k in range(7):
            over = sum(np.sqrt(weights[i, j] * weights[j, k]) for j in range(7))
            expected = 0 if i == k or weights[i, k] else over
            assert found[i, k] == pytest.approx(expected)
