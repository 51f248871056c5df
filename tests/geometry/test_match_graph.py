from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfm_match.geometry.match_graph import bridges, components, cycle_errors, triangles


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, np.ndarray]:
    num = draw(st.integers(1, 9))
    possible = list(combinations(range(num), 2))
    edges = draw(st.lists(st.sampled_from(possible), unique=True)) if possible else []
    return num, np.array(edges, np.int64).reshape(-1, 2)


def num_parts(num: int, edges: np.ndarray) -> int:
    return int(components(num, edges).max()) + 1


def reachable(num: int, edges: np.ndarray, start: int) -> set[int]:
    found, new = {start}, {start}
    while new:
        new = {b for e in edges.tolist() for a, b in (e, e[::-1]) if a in new} - found
        found |= new
    return found


@given(graphs())
def test_parts_are_what_can_be_reached(graph: tuple[int, np.ndarray]) -> None:
    num, edges = graph
    part = components(num, edges)
    for node in range(num):
        assert set(np.flatnonzero(part == part[node]).tolist()) == reachable(num, edges, node)
    sizes = np.bincount(part)
    assert (np.diff(sizes) <= 0).all()


@given(graphs())
def test_bridges_are_the_edges_without_which_a_part_falls_in_two(
    graph: tuple[int, np.ndarray],
) -> None:
    num, edges = graph
    rows, sizes = bridges(num, edges)
    before = num_parts(num, edges)
    expected = {}
    for row, (a, b) in enumerate(edges.tolist()):
        rest = np.delete(edges, row, axis=0)
        if num_parts(num, rest) > before:
            expected[row] = min(len(reachable(num, rest, a)), len(reachable(num, rest, b)))
    assert dict(zip(rows.tolist(), sizes.tolist(), strict=True)) == expected


def test_a_long_chain_is_all_bridges() -> None:
    num = 5000  # deeper than Python recurses
    rows, sizes = bridges(num, np.stack([np.arange(num - 1), np.arange(1, num)], axis=1))
    assert rows.tolist() == list(range(num - 1))
    assert sizes.max() == num // 2


@given(graphs())
def test_all_triangles_are_found_once(graph: tuple[int, np.ndarray]) -> None:
    num, edges = graph
    row_of = {tuple(edge): row for row, edge in enumerate(edges.tolist())}
    expected = {
        (row_of[a, b], row_of[b, c], row_of[a, c])
        for a, b, c in combinations(range(num), 3)
        if {(a, b), (b, c), (a, c)} <= row_of.keys()
    }
    found = triangles(num, edges, 1000).tolist()
    assert len(found) == len(expected)
    assert set(map(tuple, found)) == expected


def test_a_sample_of_the_triangles_is_the_same_each_time() -> None:
    edges = np.array(list(combinations(range(40), 2)))
    found = triangles(40, edges, 500)
    assert 500 <= len(found) < 540
    np.testing.assert_array_equal(found, triangles(40, edges, 500))


@given(st.integers(0, 1000), st.floats(0.1, 179))
def test_cycles_close_but_for_the_error_of_an_edge(seed: int, angle: float) -> None:
    rng = np.random.default_rng(seed)
    a, b, c = Rotation.random(3, rng=rng)
    axis = rng.normal(size=3)
    error = Rotation.from_rotvec(np.radians(angle) * axis / np.linalg.norm(axis))
    edges = [b * a.inv(), c * b.inv(), c * a.inv()]
    cycle = np.array([[0, 1, 2]])
    exact = np.array([edge.as_matrix() for edge in edges])
    assert cycle_errors(exact, cycle)[0] < 1e-5
    for wrong in range(3):
        changed = exact.copy()
        changed[wrong] = (edges[wrong] * error).as_matrix()
        np.testing.assert_allclose(cycle_errors(changed, cycle), angle, atol=1e-5)
