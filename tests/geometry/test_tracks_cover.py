from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.geometry.tracks_cover import turns


@given(st.integers(0, 2**32 - 1), st.integers(1, 120))
def test_a_crowd_waits_while_the_best_of_each_part_is_chosen(seed: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 100, (100, 2)).astype(np.float32)
    points[-2:] = [0, 0], [100, 100]
    size = np.sqrt(101 * 101 * 8 / limit)  # of a cell; the crowd is in the middle of one
    points[:60] = (50 // size + 0.5) * size + points[:60] / 10000
    rank = rng.permutation(100)
    turn = turns(points, rank, limit)
    assert turn.min() == 0
    crowd = turn[:60]
    assert len(set(crowd.tolist())) == 60
    best_first = np.argsort(-rank[:60])
    assert (np.diff(crowd[best_first]) > 0).all()
    # As many cells as points in eight, at most doubled along each border.
    assert np.count_nonzero(turn == 0) <= (100 / size + 2) ** 2
    if limit >= 30:
        assert np.median(turn[60:]) < np.median(crowd)


def test_nothing_has_no_turn() -> None:
    assert len(turns(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), 10)) == 0
