"""Which images look alike, from their local features alone: VLAD over a large vocabulary.

Descriptors are assigned to words, the words being learned from the images themselves, and of each
word an image keeps the sum of the differences to it (VLAD: Jegou et al., CVPR 2010). What is done
beyond that, each by measurement:

- every difference counts the same whatever its length (Delhumeau et al., "Revisiting the VLAD image
  representation", ACM MM 2013), and so does every word (Arandjelovic and Zisserman, "All about
  VLAD", CVPR 2013), so that repeated structure does not outvote the rest;
- a word adds to the similarity of two images only where their sums agree, and never takes off from
  it (the selective match kernel: Tolias, Avrithis and Jegou, ICCV 2013), so that many words help;
- the vectors are not whitened: what is learned from the few images that there are fits them, not
  their relations;
- among the best candidates exact nearest neighbours of some descriptors count too (`votes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sfm_match.types import ArrayF32

Descriptors = npt.NDArray[np.floating[Any]]
_Ints = npt.NDArray[np.int64]

_MAX_DIMENSIONS = 64
_BLOCK_ROWS = 4096
_ROUNDS = 8
_RATIO = 0.8
_ROUNDING = 1e-6


def unit_rows(values: Descriptors) -> ArrayF32:
    """Return rows (N, D) of length one as float32; rows of length zero stay zero."""
    rows = values.astype(np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), np.float32)


def learn_basis(sample: ArrayF32) -> ArrayF32:
    """Return the directions in which descriptors vary most, orthonormal float32 (D, d).

    Descriptors of more than 64 numbers are reduced to 64: differences are then no less telling, and
    take less memory.

    Args:
        sample: float32 (N, D), unit descriptors, at least one.
    """
    centred = sample.astype(np.float64) - sample.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(directions[:, ::-1][:, :_MAX_DIMENSIONS], np.float32)


def learn_words(sample: ArrayF32, num: int, rng: np.random.Generator) -> ArrayF32:
    """Return the centres of k-means (Lloyd), float32 (K, D), at most `num` of them.

    Args:
        sample: float32 (N, D), descriptors, at least one.
        num: how many words are wanted; there are no more than different samples.
        rng: of the first centres, and of those that take the place of empty ones.
    """
    sample = np.unique(sample, axis=0)
    words = sample[rng.choice(len(sample), min(num, len(sample)), replace=False)]
    for _ in range(_ROUNDS):
        assigned = _nearest_word(sample, words)
        counts = np.bincount(assigned, minlength=len(words))
        sums = _sum_by(assigned, sample, len(words))
        words = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
        empty = np.flatnonzero(counts == 0)
        words[empty] = sample[rng.choice(len(sample), len(empty), replace=False)]
    return words


def _nearest_word(rows: ArrayF32, words: ArrayF32) -> _Ints:
    """Return the nearest word of each row (N, D), int64 (N,)."""
    half_squares = 0.5 * np.sum(words**2, axis=1)
    nearest = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        nearest[start : start + _BLOCK_ROWS] = np.argmax(block @ words.T - half_squares, axis=1)
    return nearest


def _sum_by(groups: _Ints, rows: ArrayF32, num: int) -> ArrayF32:
    """Return the sum of the rows (N, D) of each group, (num, D)."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(num + 1))
    pick = csr_array((np.ones(len(rows), np.float32), order, starts), shape=(num, len(rows)))
    return np.asarray(pick @ rows, np.float32)


@dataclass(frozen=True, eq=False, slots=True)
class Aggregate:
    """One image, by words.

    Attributes:
        words: int32 (M,), those that it has, ascending.
        sums: float16 (M, D), unit sums of unit differences.
    """

    words: npt.NDArray[np.int32]
    sums: npt.NDArray[np.float16]


def aggregate(descriptors: ArrayF32, words: ArrayF32) -> Aggregate:
    """Return the aggregate of an image's descriptors, float32 (N, D); N may be 0."""
    assigned = _nearest_word(descriptors, words)
    present, group = np.unique(assigned, return_inverse=True)
    sums = _sum_by(group, unit_rows(descriptors - words[assigned]), len(present))
    return Aggregate(present.astype(np.int32), unit_rows(sums).astype(np.float16))


@dataclass(frozen=True, eq=False, slots=True)
class Index:
    """Many images, by words.

    Attributes:
        num_images: how many.
        starts: int64 (K + 1,), where each word's entries begin.
        images: int32 (T,), the image of each entry, ascending within a word.
        sums: float16 (T, D), its sum.
        sizes: float32 (N,), the square root of each image's number of words.
    """

    num_images: int
    starts: _Ints
    images: npt.NDArray[np.int32]
    sums: npt.NDArray[np.float16]
    sizes: ArrayF32


def build_index(aggregates: Sequence[Aggregate], num_words: int) -> Index:
    """Return the index of images, at least one; an image's number is its place."""
    counts = np.array([len(image.words) for image in aggregates], np.int64)
    words = np.concatenate([image.words for image in aggregates])
    order = np.argsort(words, kind="stable")
    return Index(
        num_images=len(aggregates),
        starts=np.searchsorted(words[order], np.arange(num_words + 1)),
        images=np.repeat(np.arange(len(aggregates), dtype=np.int32), counts)[order],
        sums=np.concatenate([image.sums for image in aggregates])[order],
        sizes=np.sqrt(np.maximum(counts, 1)).astype(np.float32),
    )


def similarities(index: Index, rows: _Ints) -> ArrayF32:
    """Return how alike some images are to all, float32 (R, N).

    It is from 0 to 1; an image is like itself by 1, one without features like none.

    Args:
        index: all images.
        rows: int64 (R,), which images, ascending.
    """
    place = np.full(index.num_images, -1, np.int64)
    place[rows] = np.arange(len(rows))
    found = np.zeros((len(rows), index.num_images), np.float32)
    for start, end in zip(index.starts[:-1], index.starts[1:], strict=True):
        images = index.images[start:end]
        asked = np.flatnonzero(place[images] >= 0)
        if len(asked):
            sums = index.sums[start:end].astype(np.float32)
            agreement = np.maximum(sums[asked] @ sums.T, 0)
            found[np.ix_(place[images[asked]], images)] += agreement
    return np.asarray(found / (index.sizes[rows, None] * index.sizes), np.float32)


def votes(a: ArrayF32, b: ArrayF32) -> int:
    """Return how many descriptors of two images are clearly each other's nearest neighbours.

    They are mutual, and nearer than 0.8 of the distance to the second nearest in b.

    Args:
        a: float32 (N, D), unit descriptors.
        b: float32 (M, D).
    """
    if len(a) == 0 or len(b) < 2:
        return 0
    cosines = a @ b.T
    rows = np.arange(len(a))
    nearest = cosines.argmax(axis=1)
    mutual = cosines.argmax(axis=0)[nearest] == rows
    first = cosines[rows, nearest]
    cosines[rows, nearest] = -2
    second = cosines.max(axis=1)
    # Squared distances of unit vectors are 2 - 2 cos; those of equal ones are rounding.
    distinct = 1 - first + _ROUNDING < _RATIO**2 * (1 - second)
    return int(np.count_nonzero(mutual & distinct))
