"""What the methods may use of the images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sfm_match.io.gps import GpsPosition
from sfm_match.io.store import Store
from sfm_match.types import ArrayF32, Features

Described = tuple[npt.NDArray[np.floating[Any]], ArrayF32]
"""The descriptors (N, D) and the scores (N,) of an image."""

Reader = Callable[[Collection[str]], Iterator[tuple[str, Described]]]
"""Called with names of images, yields each with what describes it, in any order."""


@dataclass(frozen=True)
class ImageSet:
    """The images to pair, and what is known of them.

    Attributes:
        names: their names.
        features: reads the features of some of them; None where there are none.
        positions: those that have one -> where they were taken.
        seed: of all random numbers.
    """

    names: Sequence[str]
    features: Reader | None = None
    positions: Mapping[str, GpsPosition] = field(default_factory=dict)
    seed: int = 0


def reader_of(store: Store[Features], digests: Mapping[str, bytes]) -> Reader:
    """Return what reads the features of a store, which has all images of those digests."""

    def read(names: Collection[str]) -> Iterator[tuple[str, Described]]:
        entries = [(name, digests[name]) for name in names]
        for name, arrays in store.arrays(entries, columns=("descriptors", "scores")):
            descriptors, scores = arrays["descriptors"], arrays["scores"]
            assert isinstance(name, str)
            assert descriptors is not None
            assert scores is not None
            yield name, (descriptors, scores)

    return read
