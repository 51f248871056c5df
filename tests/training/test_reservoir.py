from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.training.reservoir import Reservoir


@given(st.integers(1, 20), st.lists(st.integers(0, 15), min_size=1, max_size=8), st.integers(0, 99))
def test_it_holds_different_items_of_the_stream(size: int, blocks: list[int], seed: int) -> None:
    reservoir = Reservoir(size, np.random.default_rng(seed))
    for block in np.split(np.arange(sum(blocks)), np.cumsum(blocks)[:-1]):
        reservoir.add(block)
    held = reservoir.items.tolist()
    assert len(held) == min(size, sum(blocks))
    assert len(set(held)) == len(held)
    assert set(held) <= set(range(sum(blocks)))
    if sum(blocks) <= size:
        assert held == list(range(sum(blocks)))


@pytest.mark.parametrize("block", [1, 7, 60])
def test_each_item_is_held_with_the_same_chance(block: int) -> None:
    num, size, trials = 60, 12, 800
    counts = np.zeros(num)
    for trial in range(trials):
        reservoir = Reservoir(size, np.random.default_rng(trial))
        for start in range(0, num, block):
            reservoir.add(np.arange(start, min(start + block, num)))
        counts[reservoir.items] += 1
    share = size / num
    deviation = np.sqrt(trials * share * (1 - share))
    # Of 60 normal variables one is farther away than 4 deviations in one of 260 such tests.
    assert np.abs(counts - trials * share).max() < 4 * deviation


def test_records_are_kept_whole() -> None:
    reservoir = Reservoir(5, np.random.default_rng(0))
    kind = np.dtype([("number", np.int64), ("values", np.float32, (3,))])
    records = np.zeros(40, kind)
    records["number"] = np.arange(40)
    records["values"] = np.arange(40)[:, None]
    reservoir.add(records)
    assert reservoir.items.dtype == kind
    assert (reservoir.items["values"] == reservoir.items["number"][:, None]).all()
    with pytest.raises(ValueError, match="nothing was added"):
        _ = Reservoir(5, np.random.default_rng(0)).items
