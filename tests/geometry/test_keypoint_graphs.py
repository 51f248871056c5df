"""Graphs on keypoints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sfm_match.geometry.keypoint_graphs import (
    Edges,
    adjacency,
    delaunay_edges,
    full_edges,
    knn_edges,
)
from sfm_match.types import ArrayF64


def as_set(edges: Edges) -> set[tuple[int, int]]:
    assert edges.dtype == np.int64
    assert (edges[:, 0] < edges[:, 1]).all()
    found = {(a, b) for a, b in edges.tolist()}
    assert len(found) == len(edges)
    return found


def num_parts(edges: Edges, num: int) -> int:
    part = list(range(num))
    for a, b in edges.tolist():
        part = [part[a] if p == part[b] else p for p in part]
    return len(set(part))


def test_a_square_with_its_centre() -> None:
    points = np.array([[0, 0], [10, 0], [10, 10], [0, 10], [5, 5]], np.float32)
    sides = {(0, 1), (1, 2), (2, 3), (0, 3)}
    assert as_set(delaunay_edges(points)) == sides | {(i, 4) for i in range(4)}
    assert as_set(knn_edges(points, 1)) == {(i, 4) for i in range(4)}
    assert len(as_set(full_edges(5))) == 10


def test_no_other_point_lies_in_a_triangle_s_circle() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (60, 2))
    near = adjacency(delaunay_edges(points), 60)
    for a in range(60):
        # A point's nearest other one is always its neighbour in the triangulation.
        distances = np.linalg.norm(points - points[a], axis=1)
        distances[a] = np.inf
        assert near[a, distances.argmin()]
    assert near.sum() // 2 <= 3 * 60 - 6


@pytest.mark.parametrize("num", [0, 1, 2, 3])
def test_few_points(num: int) -> None:
    points = np.array([[0, 0], [1, 0], [0, 1]], np.float32)[:num]
    assert as_set(delaunay_edges(points)) == as_set(full_edges(num))
    assert as_set(knn_edges(points, 8)) == as_set(full_edges(num))


def test_points_on_a_line_are_a_chain() -> None:
    order = np.random.default_rng(1).permutation(7)
    points = (np.arange(7.0)[:, None] * [3, 1] + 100)[order]
    place = np.argsort(order)
    expected = {tuple(sorted((place[i], place[i + 1]))) for i in range(6)}
    assert as_set(delaunay_edges(points)) == expected


def test_points_at_one_place_share_their_neighbours() -> None:
    points = np.array([[0, 0], [10, 0], [0, 10], [0, 0], [10, 0]], np.float32)
    among, first = {(0, 3), (1, 4)}, {(0, 1), (0, 4), (1, 3), (3, 4)}
    assert as_set(delaunay_edges(points)) == among | first | {(i, 2) for i in (0, 1)} | {
        (2, 3),
        (2, 4),
    }
    assert as_set(delaunay_edges(np.zeros((4, 2)))) == as_set(full_edges(4))
    # More at one place than neighbours: no point is its own neighbour.
    crowd = np.zeros((9, 2))
    near = adjacency(knn_edges(crowd, 3), 9)
    assert not near.diagonal().any()
    assert (near.sum(axis=1) >= 3).all()


coordinates = arrays(
    np.float64,
    st.tuples(st.integers(0, 25), st.just(2)),
    elements=st.integers(-6, 6).map(float) | st.floats(-1e4, 1e4, width=32),
)


@given(coordinates)
def test_a_triangulation_hangs_together(points: ArrayF64) -> None:
    edges = delaunay_edges(points)
    as_set(edges)
    assert num_parts(edges, len(points)) == min(len(points), 1)


@given(coordinates, st.integers(1, 6))
def test_each_point_has_its_neighbours(points: ArrayF64, k: int) -> None:
    edges = knn_edges(points, k)
    as_set(edges)
    degrees = np.bincount(edges.reshape(-1), minlength=len(points))
    assert (degrees >= min(k, len(points) - 1)).all()


@given(st.integers(3, 30), st.integers(0, 2**32 - 1))
def test_the_graph_is_permuted_with_its_points(num: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    points, order = generator.uniform(0, 100, (num, 2)), generator.permutation(num)
    for graph in (delaunay_edges, lambda p: knn_edges(p, 3)):
        expected = adjacency(graph(points), num)[np.ix_(order, order)]
        np.testing.assert_array_equal(adjacency(graph(points[order]), num), expected)


@pytest.mark.parametrize("points", [np.zeros((3, 3)), np.array([[0, np.nan], [1, 1], [2, 0]])])
def test_what_are_no_points_is_refused(points: ArrayF64) -> None:
    with pytest.raises(ValueError, match=r"points must be finite \(N, 2\), got float64 \(3, "):
        delaunay_edges(points)
    with pytest.raises(ValueError, match="points must be finite"):
        knn_edges(points, 2)


def test_no_neighbour_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        knn_edges(np.zeros((3, 2)), 0)
