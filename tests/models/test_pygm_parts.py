"""Parts of large images, and the vote that merges what is found in them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.models.pygm_parts import Indices, cut_parts, merge_votes
from sfm_match.types import ArrayF32


def no_similarity(rows0: Indices, rows1: Indices) -> ArrayF32:
    return np.zeros(len(rows0), np.float32)


def test_parts_cover_the_seeds_and_overlap() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (400, 2))
    seeds = np.repeat(np.arange(400)[:, None], 2, axis=1)
    for overlap in (1, 3):
        rows0, rows1 = cut_parts(points, points[:, ::-1].copy(), seeds, 12, overlap)
        assert rows0.shape == rows1.shape == (len(rows0), 12)
        np.testing.assert_array_equal(np.sort(rows0, axis=1), np.sort(rows1, axis=1))
        times = np.bincount(rows0.reshape(-1), minlength=400)
        assert times.min() >= 1
        assert times.mean() > overlap
        assert len(rows0) < 400 * overlap / 3
        # The seed, and the eleven nearest to it.
        away = np.linalg.norm(points[rows0] - points[rows0[:, :1]], axis=2)
        assert (away[:, 0] == 0).all()
        assert (np.diff(away, axis=1) >= 0).all()


def test_an_image_smaller_than_a_part_is_in_it_whole() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (20, 2))
    rows0, rows1 = cut_parts(points, points[:3], np.array([[4, 1]]), 12, 1)
    assert rows0.shape == (1, 12)
    assert rows0[0, 0] == 4
    assert sorted(rows1[0]) == [0, 1, 2]


def test_votes_add_up_and_the_more_similar_of_equals_wins() -> None:
    parts = np.array([[0, 1], [1, 2]]), np.array([[5, 6], [6, 7]])
    votes = np.array([[[0.6, 0.1], [0.0, 0.5]], [[0.4, 0.2], [0.0, 0.6]]], np.float32)
    for step in (1, 2):
        rows, scores = merge_votes(parts, lambda block: votes[block], step, no_similarity)
        found = dict(zip(map(tuple, rows.tolist()), scores.tolist(), strict=True))
        assert found.keys() == {(0, 5), (1, 6), (2, 7)}
        np.testing.assert_allclose(found[1, 6], 0.9, atol=1e-6)

    def prefers_seven(rows0: Indices, rows1: Indices) -> ArrayF32:
        return np.asarray(rows1 == 7, np.float32)

    tied = np.array([[0]]), np.array([[6, 7]])
    rows, _ = merge_votes(tied, lambda _: np.ones((1, 1, 2), np.float32), 1, prefers_seven)
    assert rows.tolist() == [[0, 7]]


def test_no_parts_no_matches() -> None:
    rows, scores = merge_votes(
        (np.zeros((0, 4), np.int64), np.zeros((0, 4), np.int64)),
        lambda _: np.zeros((0, 4, 4), np.float32),
        3,
        no_similarity,
    )
    assert (rows.shape, scores.shape) == ((0, 2), (0,))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 5))
def test_what_is_merged_is_one_to_one_and_the_best_of_both(seed: int, num: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    parts = tuple(
        np.stack([generator.choice(9, size, replace=False) for _ in range(num)]) for _ in range(2)
    )
    votes = generator.uniform(0.01, 1, (num, size, size)).astype(np.float32)
    rows, scores = merge_votes((parts[0], parts[1]), lambda b: votes[b], 2, no_similarity)
    table = np.zeros((9, 9))
    np.add.at(table, (parts[0][:, :, None], parts[1][:, None, :]), votes)
    assert len(set(rows[:, 0].tolist())) == len(set(rows[:, 1].tolist())) == len(rows)
    np.testing.assert_allclose(scores, table[rows[:, 0], rows[:, 1]], rtol=1e-5)
    for (a, b), score in zip(rows, scores, strict=True):
        assert score >= max(table[a].max(), table[:, b].max()) - 1e-5
