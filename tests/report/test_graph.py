from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.report.graph import draw_graph, match_matrix


def chain(num: int) -> np.ndarray:
    return np.stack([np.arange(num - 1), np.arange(1, num)], axis=1)


def test_images_of_a_chain_lie_in_its_order() -> None:
    drawn = draw_graph(40, chain(40), np.full(39, 100), 100)
    x = drawn.places[:, 0]
    assert (np.diff(x) > 0).all()
    assert x[0] == 0
    assert x[-1] == 1


def test_what_links_two_groups_is_drawn_however_weak_it_is() -> None:
    whole = [(a, b) for a in range(5) for b in range(a + 1, 5)]
    pairs = np.array(whole + [(a + 5, b + 5) for a, b in whole] + [(0, 9)])
    inliers = np.array([500] * 20 + [15])
    drawn = draw_graph(10, pairs, inliers, 4)
    assert [0, 9] in drawn.edges.tolist()
    assert drawn.num_edges == 21
    assert len(drawn.edges) < 15


def test_groups_are_numbered_by_their_size() -> None:
    pairs = np.array([[0, 1], [2, 3], [3, 4]])
    drawn = draw_graph(6, pairs, np.array([50, 50, 50]), 10)
    assert drawn.groups[2:5].tolist() == [0, 0, 0]
    assert drawn.groups[0] == drawn.groups[1] == 1
    assert drawn.groups[5] == 2
    assert np.isfinite(drawn.places).all()


@given(st.integers(1, 12), st.integers(1, 6))
def test_a_cell_of_the_matrix_is_the_best_of_its_pairs(num: int, side: int) -> None:
    rows = np.array([(a, b) for a in range(num) for b in range(a + 1, num)], np.int64)
    rows = rows.reshape(-1, 2)
    counts = np.arange(len(rows)) + 1
    matrix, step = match_matrix(num, rows, counts, side)
    assert len(matrix) <= side
    assert (matrix == matrix.T).all()
    for (a, b), count in zip(rows // step, counts, strict=True):
        assert matrix[a, b] >= count
    assert matrix.max(initial=0) == len(rows)


def test_few_images_lie_on_a_circle() -> None:
    places = draw_graph(8, chain(8), np.full(7, 100), 100).places
    np.testing.assert_allclose(np.linalg.norm(places - 0.5, axis=1), 0.5)
    np.testing.assert_allclose(places[0], [0.5, 0])
