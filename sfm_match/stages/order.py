"""The order in which pairs are worked off, and the cache that makes use of it."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from sfm_match.types import Pair

Value = TypeVar("Value")

DEFAULT_CACHE_BYTES = 2 << 30


def order_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Order pairs so that those near each other share images, whatever the size of the cache.

    Images are numbered by reverse Cuthill-McKee (Cuthill and McKee 1969), which puts neighbours
    in the match graph near each other; then pairs follow a Z curve (Morton 1966) over the matrix
    of numbers. Each aligned block of the matrix, of 2^k by 2^k images, is finished before the
    next one begins. So with a cache of C images, n images in all pairs are loaded at most
    4 n^2 / C + n times in place of n^2, and n times when they all fit.
    """
    names = sorted({name for pair in pairs for name in (pair.a, pair.b)})
    number = {name: i for i, name in enumerate(names)}
    ends = np.array([(number[pair.a], number[pair.b]) for pair in pairs], np.int64).reshape(-1, 2)
    shape = (len(names), len(names))
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=shape)
    position = np.empty(len(names), np.uint64)
    if names:
        position[reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True)] = np.arange(
            len(names)
        )
    low, high = np.sort(position[ends], axis=1).T
    keys = _spread_bits(low) << np.uint64(1) | _spread_bits(high)
    return [pairs[i] for i in np.argsort(keys, kind="stable")]


def _spread_bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Put a zero between the bits of numbers below 2^32."""
    masks = (
        0x0000FFFF0000FFFF,
        0x00FF00FF00FF00FF,
        0x0F0F0F0F0F0F0F0F,
        0x3333333333333333,
        0x5555555555555555,
    )
    for shift, mask in zip((16, 8, 4, 2, 1), masks, strict=True):
        values = (values | values << np.uint64(shift)) & np.uint64(mask)
    return values


def num_bytes(value: Any) -> int:
    """Return the bytes of all arrays and tensors in a value: nested dataclasses, tuples, dicts."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(num_bytes(getattr(value, f.name)) for f in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return sum(num_bytes(part) for part in value.values())
    if isinstance(value, tuple | list):
        return sum(num_bytes(part) for part in value)
    return 0


class LruCache(Generic[Value]):
    """The values used last, computed when they are missing, bounded in bytes.

    A value that is larger than the bound alone is kept until the next one comes.

    Attributes:
        num_computed: how often a value was computed.
        num_hits: how often one was there.
    """

    def __init__(self, compute: Callable[[str], Value], max_bytes: int) -> None:
        self.num_computed = 0
        self.num_hits = 0
        self._compute = compute
        self._max_bytes = max_bytes
        self._values: OrderedDict[str, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, key: str) -> Value:
        if key in self._values:
            self.num_hits += 1
            self._values.move_to_end(key)
            return self._values[key][0]
        value = self._compute(key)
        size = num_bytes(value)
        self.num_computed += 1
        self._values[key] = (value, size)
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._values) > 1:
            self._bytes -= self._values.popitem(last=False)[1][1]
        return value
