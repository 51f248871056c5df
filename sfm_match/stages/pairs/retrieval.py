"""Pairs of images that look alike, by the features already extracted; nothing is downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sfm_match.geometry.neighbours import k_smallest
from sfm_match.geometry.retrieval import (
    Aggregate,
    Index,
    aggregate,
    build_index,
    learn_basis,
    learn_words,
    similarities,
    unit_rows,
    votes,
)
from sfm_match.io.pairs import PairList
from sfm_match.spec import ConfigError
from sfm_match.stages.order import LruCache, order_pairs
from sfm_match.stages.pairs.config import Config
from sfm_match.stages.pairs.images import Described, ImageSet
from sfm_match.stages.pairs.places import pairs_of_rows
from sfm_match.types import ArrayF32, Pair

_BLOCK_ROWS = 256
_SAMPLE = 100_000
_SAMPLED_IMAGES = 1000
# The strongest features of an image are found again in others; the rest costs time and memory.
_MAX_FEATURES = 1000
_VOTERS = 256
# Votes beside the likeness, not in its place: of views far apart they are few, by chance too.
_VOTES_THAT_DOUBLE = np.float32(10)
_CACHE_BYTES = 512 << 20

Selection = Callable[[int, ArrayF32], ArrayF32]
"""Called with an image's row and its similarities to all (N,); gives those that may count, others
0."""


def retrieval(images: ImageSet, config: Config) -> PairList:
    """Pair each image with those that look most like it."""
    names = sorted(set(images.names))
    found = look_alikes(names, images, config, range(len(names)), config.neighbours, _all_others)
    return PairList(pairs_of_rows(names, found))


def _all_others(row: int, similarity: ArrayF32) -> ArrayF32:
    return similarity


def look_alikes(
    names: Sequence[str],
    images: ImageSet,
    config: Config,
    rows: Sequence[int],
    num: int,
    select: Selection,
) -> npt.NDArray[np.int64]:
    """Return the images that look most like some of them.

    Args:
        names: all images.
        images: what is known of them.
        config: the vocabulary, and how many candidates are looked at closely.
        rows: those for which others are sought.
        num: how many of each, at most.
        select: which may be found.

    Returns:
        int64 (M, 2), rows of `names`: the one and the other, best first.

    Raises:
        ConfigError: there are no features.
    """
    index = _index(names, images, config)
    if index is None:
        return np.zeros((0, 2), np.int64)
    num_candidates = max(num, config.candidates)
    found = [np.zeros((0, 2), np.int64)]
    scores = [np.zeros(0, np.float32)]
    for block in _blocks(rows):
        similarity = similarities(index, np.array(block))
        for i, row in enumerate(block):
            similarity[i] = select(row, similarity[i])
            similarity[i, row] = 0
        costs = np.where(similarity > 0, -similarity, np.inf)
        best = k_smallest(costs, num_candidates)
        scores.append(similarity[best[:, 0], best[:, 1]])
        found.append(np.stack([np.array(block)[best[:, 0]], best[:, 1]], axis=1))
    candidates, likeness = np.concatenate(found), np.concatenate(scores)
    if config.candidates:
        likeness *= 1 + _votes(names, images, candidates) / _VOTES_THAT_DOUBLE
    order = np.lexsort((candidates[:, 1], -likeness, candidates[:, 0]))
    candidates = candidates[order]
    rank = np.arange(len(candidates)) - np.searchsorted(candidates[:, 0], candidates[:, 0])
    return candidates[rank < num]


def _blocks(rows: Sequence[int]) -> list[Sequence[int]]:
    return [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]


def _index(names: Sequence[str], images: ImageSet, config: Config) -> Index | None:
    """Read the features of all images, one at a time, into an index; None if there are none."""
    if images.features is None:
        raise ConfigError(
            "pairs.method: retrieval needs features, and the recipe extracts none: choose another "
            "method"
        )
    sample = _sample(names, images)
    if not len(sample):
        return None
    basis = learn_basis(sample)
    words = learn_words(sample @ basis, config.words, np.random.default_rng([images.seed, 1]))
    row = {name: i for i, name in enumerate(names)}
    aggregates: dict[int, Aggregate] = {}
    for name, features in images.features(names):
        aggregates[row[name]] = aggregate(_strongest(features, _MAX_FEATURES) @ basis, words)
    return build_index([aggregates[i] for i in range(len(names))], len(words))


def _sample(names: Sequence[str], images: ImageSet) -> ArrayF32:
    """Return some unit descriptors of some images, whatever the order in which they are read."""
    assert images.features is not None
    rng = np.random.default_rng([images.seed, 0])
    chosen = rng.permutation(len(names))[:_SAMPLED_IMAGES]
    num = max(1, _SAMPLE // len(chosen))
    parts = {}
    for name, features in images.features([names[i] for i in chosen]):
        descriptors = _strongest(features, _MAX_FEATURES)
        own = np.random.default_rng(
            [images.seed, *hashlib.sha256(name.encode(errors="surrogateescape")).digest()]
        )
        rows = own.permutation(len(descriptors))[:num]
        parts[name] = descriptors[rows]
    return np.concatenate([parts[name] for name in sorted(parts)])


def _strongest(features: Described, num: int) -> ArrayF32:
    """Return the unit descriptors of the features with the highest scores, best first."""
    descriptors, scores = features
    return unit_rows(descriptors[np.argsort(-scores, kind="stable")[:num]])


def _votes(names: Sequence[str], images: ImageSet, candidates: npt.NDArray[np.int64]) -> ArrayF32:
    """Return for each candidate how many of the best descriptors find each other."""
    assert images.features is not None
    read = images.features

    def best(name: str) -> ArrayF32:
        ((_, features),) = read([name])
        return _strongest(features, _VOTERS)

    cache = LruCache[ArrayF32](best, _CACHE_BYTES)
    pairs = [Pair.of(names[i], names[j]) for i, j in candidates]
    found = {
        pair: votes(cache[pair.a], cache[pair.b])
        for pair in order_pairs(list(dict.fromkeys(pairs)))
    }
    return np.array([found[pair] for pair in pairs], np.float32)
