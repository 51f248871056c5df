"""Features and pairs -> matches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfm_match.io.store import Store, combine_digests
from sfm_match.spec import Spec
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
    step = _PAIRS_PER_BATCH_ON_GPU if device.startswith("cuda") else 1
    ordered = order_pairs(todo)
    with store.writer() as writer:
        for start in range(0, len(ordered), step):
            batch = ordered[start : start + step]
            found = matcher.match([(encoded[pair.a], encoded[pair.b]) for pair in batch])
            for pair, matches in zip(batch, found, strict=True):
                writer.add(pair, match_digest(pair, digests), matches)
            if progress:
                progress(len(batch))
    report.num_encoded, report.num_cache_hits = encoded.num_computed, encoded.num_hits
    return report
