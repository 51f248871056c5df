from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.stages.order import LruCache, _spread_bits, num_bytes, order_pairs
from sfm_match.types import Pair

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)
PAIRS = st.lists(
    st.tuples(NAMES, NAMES).filter(lambda p: p[0] != p[1]).map(lambda p: Pair.of(*p)), max_size=40
)


def loads(pairs: Iterable[Pair], capacity: int) -> int:
    """Count the images that a cache of so many images loads."""
    cache = LruCache[np.ndarray](lambda name: np.zeros(1, np.uint8), capacity)
    for pair in pairs:
        _ = cache[pair.a], cache[pair.b]
    return cache.num_computed


def all_pairs(num: int) -> list[Pair]:
    """Return all pairs of images whose names are in no particular order."""
    names = [f"{i:04d}" for i in np.random.default_rng(num).permutation(num)]
    return [Pair.of(a, b) for a, b in combinations(names, 2)]


def neighbours(num: int, overlap: int) -> list[Pair]:
    """Return the pairs of a video, in no particular order."""
    pairs = [
        Pair(f"{i:04d}", f"{i + step:04d}")
        for i in range(num)
        for step in range(1, overlap + 1)
        if i + step < num
    ]
    return [pairs[i] for i in np.random.default_rng(num).permutation(len(pairs))]


# --- the order ------------------------------------------------------------------------------------


@given(PAIRS)
def test_the_order_is_a_permutation_that_does_not_depend_on_the_one_given(
    pairs: list[Pair],
) -> None:
    ordered = order_pairs(pairs)
    assert sorted(ordered) == sorted(pairs)
    assert order_pairs(pairs[::-1]) == ordered


@pytest.mark.parametrize("num", [2, 5, 16, 33, 64, 100, 150])
@pytest.mark.parametrize("capacity", [4, 8, 20, 32, 64])
def test_all_pairs_are_loaded_as_seldom_as_stated(num: int, capacity: int) -> None:
    found = loads(order_pairs(all_pairs(num)), capacity)
    assert found <= 4 * num**2 / capacity + num
    if capacity >= num:
        assert found == num


def test_the_order_of_names_loads_many_times_as_often() -> None:
    pairs = all_pairs(100)
    assert loads(sorted(pairs), 20) > 3 * loads(order_pairs(pairs), 20)


@pytest.mark.parametrize(("num", "overlap"), [(50, 1), (200, 3), (300, 10)])
def test_neighbours_in_a_video_are_loaded_once_with_a_small_cache(num: int, overlap: int) -> None:
    assert loads(order_pairs(neighbours(num, overlap)), 4 * overlap + 4) == num


def test_separate_groups_are_loaded_once() -> None:
    groups = [
        [Pair(f"{g}/{a}", f"{g}/{b}") for a, b in combinations("abcdef", 2)] for g in range(30)
    ]
    mixed = [groups[g][i] for i in range(15) for g in range(30)]
    assert loads(order_pairs(mixed), 12) == 180


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
@settings(max_examples=50)
def test_spread_bits_against_a_slow_loop(values: list[int]) -> None:
    expected = [sum((value >> i & 1) << 2 * i for i in range(32)) for value in values]
    found = _spread_bits(np.array(values, np.uint64))
    assert found.tolist() == expected


# --- the cache ------------------------------------------------------------------------------------


def make_cache(max_bytes: int) -> tuple[LruCache[np.ndarray], list[str]]:
    """Return a cache whose values take as many bytes as their key says, and what it computed."""
    computed: list[str] = []

    def compute(key: str) -> np.ndarray:
        computed.append(key)
        return np.full(int(key.rpartition(" ")[2]), ord(key[0]), np.uint8)

    return LruCache(compute, max_bytes), computed


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    cache, computed = make_cache(30)
    for key in ("a 10", "b 10", "c 10", "a 10", "d 10", "a 10", "b 10"):
        assert cache[key].tolist() == [ord(key[0])] * 10
    assert computed == ["a 10", "b 10", "c 10", "d 10", "b 10"]
    assert (cache.num_computed, cache.num_hits) == (5, 2)


def test_a_value_above_the_bound_is_kept_until_the_next() -> None:
    cache, computed = make_cache(30)
    for key in ("a 10", "b 99", "b 99", "a 10", "b 99"):
        _ = cache[key]
    assert computed == ["a 10", "b 99", "a 10", "b 99"]


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 40))
@settings(max_examples=50)
def test_the_cache_never_holds_more_than_its_bound(keys: list[int], max_bytes: int) -> None:
    cache, _ = make_cache(max_bytes)
    for key in keys:
        _ = cache[f"x {5 * key}"]
        held = [v.nbytes for v, _ in cache._values.values()]
        assert sum(held) <= max_bytes or len(held) == 1
        assert cache._bytes == sum(held)
    assert cache.num_computed + cache.num_hits == len(keys)


def test_num_bytes_counts_all_arrays_and_tensors() -> None:
    @dataclass
    class Encoded:
        array: np.ndarray
        tensors: tuple[torch.Tensor, ...]
        named: dict[str, list[np.ndarray]]
        size: int

    encoded = Encoded(
        np.zeros((3, 4), np.float32),
        (torch.zeros(5, dtype=torch.int8), torch.zeros(2, dtype=torch.float64)),
        {"x": [np.zeros(7, np.float16)]},
        1000,
    )
    assert num_bytes(encoded) == 48 + 5 + 16 + 14
    assert num_bytes(None) == num_bytes("text") == 0
