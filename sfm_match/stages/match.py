"""Features and pairs -> matches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sfm_match.io.store import Store, combine_digests
from sfm_match.spec import Spec, load_plugin
from sfm_match.stages.executor import num_cores, run_in_threads
from sfm_match.stages.order import DEFAULT_CACHE_BYTES, LruCache, order_pairs
from sfm_match.types import Features, Matcher, Matches, Pair, View

_PAIRS_PER_BATCH_ON_GPU = 16


@dataclass
class MatchReport:
    """What matching did.

    Attributes:
        computed: pairs that were matched now.
        reused: pairs whose matches were there already.
        num_encoded: how often an image was encoded.
        num_cache_hits: how often its encoding was there already.
    """

    computed: int = 0
    reused: int = 0
    num_encoded: int = 0
    num_cache_hits: int = 0


def match_digest(pair: Pair, digests: Mapping[str, bytes]) -> bytes:
    """Return the digest of a pair's matches: that of both images."""
    return combine_digests(digests[pair.a], digests[pair.b])


def match(
    pairs: Sequence[Pair],
    digests: Mapping[str, bytes],
    spec: Spec,
    features: Store[Features],
    store: Store[Matches],
    *,
    device: str = "cpu",
    workers: int | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    progress: Callable[[int], object] | None = None,
) -> MatchReport:
    """Match every pair that the store does not hold yet.

    Each image is encoded once while the encoded images fit in the cache; the order of the pairs
    keeps it few times when they do not (see `order_pairs`).

    Args:
        pairs: what to match; both images must be in `features`.
        digests: the digest of each image.
        spec: the matcher.
        features: where the features are.
        store: where the matches go.
        device: the torch device that the matcher runs on.
        workers: how many pairs are matched at once on a CPU, where the plugin allows several; one
            for each core if None.
        cache_bytes: the bound of the cache of encoded images.
        progress: called with the number of pairs done since the last call.
    """
    todo = [pair for pair in pairs if (pair, match_digest(pair, digests)) not in store]
    report = MatchReport(computed=len(todo), reused=len(pairs) - len(todo))
    if progress:
        progress(report.reused)
    if not todo:
        return report
    matcher: Matcher[Any, Matches] = spec.build(device)
    encoded = LruCache[Any](
        lambda name: matcher.encode(View(None, features.read(name, digests[name]))), cache_bytes
    )
    on_gpu = device.startswith("cuda")
    concurrent = load_plugin(spec.kind, spec.name).CONCURRENT
    found = (
        _in_threads(matcher, encoded, order_pairs(todo), workers or num_cores())
        if concurrent and not on_gpu
        else _in_batches(
            matcher, encoded, order_pairs(todo), _PAIRS_PER_BATCH_ON_GPU if on_gpu else 1
        )
    )
    with store.writer() as writer:
        for pair, matches in found:
            writer.add(pair, match_digest(pair, digests), matches)
            if progress:
                progress(1)
    report.num_encoded, report.num_cache_hits = encoded.num_computed, encoded.num_hits
    return report


def _in_batches(
    matcher: Matcher[Any, Matches], encoded: LruCache[Any], pairs: Sequence[Pair], step: int
) -> Iterator[tuple[Pair, Matches]]:
    for start in range(0, len(pairs), step):
        batch = pairs[start : start + step]
        found = matcher.match([(encoded[pair.a], encoded[pair.b]) for pair in batch])
        yield from zip(batch, found, strict=True)


def _in_threads(
    matcher: Matcher[Any, Matches], encoded: LruCache[Any], pairs: Sequence[Pair], threads: int
) -> Iterator[tuple[Pair, Matches]]:
    """Match several pairs at once, each on one core.

    That is faster than all cores on one pair, by far so where other programs are running: no core
    waits for another after each small operation.
    """
    tasks = (
        (pair, partial(_match_one, matcher, encoded[pair.a], encoded[pair.b])) for pair in pairs
    )
    return run_in_threads(tasks, threads, initializer=partial(torch.set_num_threads, 1))


def _match_one(matcher: Matcher[Any, Matches], a: Any, b: Any) -> Matches:
    return matcher.match([(a, b)])[0]
