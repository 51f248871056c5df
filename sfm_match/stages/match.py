"""Images or features, and pairs -> matches or correspondences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sfm_match.io.store import Store, combine_digests
from sfm_match.spec import Spec, load_plugin
from sfm_match.stages.order import DEFAULT_CACHE_BYTES, LruCache
from sfm_match.stages.pairwise import Task, run_on_pairs
from sfm_match.stages.scan import Source
from sfm_match.stages.views import Placed, Views, in_file_rasters
from sfm_match.types import Correspondences, Features, Matcher, Matches, Pair


@dataclass
class MatchReport:
    """What matching did.

    Attributes:
        computed: pairs that were matched now.
        reused: pairs whose matches were there already.
        num_encoded: how often an image was encoded.
        num_cache_hits: how often its encoding was there already.
        failures: image name -> why it is left out.
    """

    computed: int = 0
    reused: int = 0
    num_encoded: int = 0
    num_cache_hits: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def match_digest(pair: Pair, digests: Mapping[str, bytes]) -> bytes:
    """Return the digest of a pair's matches: that of both images."""
    return combine_digests(digests[pair.a], digests[pair.b])


def match(
    pairs: Sequence[Pair],
    digests: Mapping[str, bytes],
    spec: Spec,
    features: Store[Features] | None,
    store: Store[Any],
    *,
    sources: Mapping[str, Source] | None = None,
    device: str = "cpu",
    workers: int | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    progress: Callable[[int], object] | None = None,
) -> MatchReport:
    """Match every pair that the store does not hold yet.

    Each image is encoded once while the encoded images fit in the cache; the order of the pairs
    keeps it few times when they do not (see `order_pairs`). An image that cannot be decoded is
    reported, and its pairs are left out. Correspondences are stored in the rasters of the images'
    files, as keypoints are, and those on a mask's black are dropped.

    Args:
        pairs: what to match; both images must be in `features` or in `sources`.
        digests: the digest of each image.
        spec: the matcher.
        features: where the features are, if the matcher needs them.
        store: where what the matcher gives goes: a store of `Matches` or of `Correspondences`.
        sources: the images, if the matcher needs them.
        device: the torch device that the matcher runs on.
        workers: how many pairs are matched at once on a CPU, where the plugin allows several; one
            for each core if None.
        cache_bytes: the bound of the cache of encoded images.
        progress: called with the number of pairs done since the last call.
    """
    todo = [pair for pair in pairs if (pair, match_digest(pair, digests)) not in store]
    report = MatchReport(reused=len(pairs) - len(todo))
    if progress:
        progress(report.reused)
    if not todo:
        return report
    matcher: Matcher[Any, Any] = spec.build(device)
    views = Views(load_plugin(spec.kind, spec.name).NEEDS, sources or {}, features, digests)

    def encode(name: str) -> Placed[Any]:
        view, placement = views(name)
        return Placed(matcher.encode(view), placement)

    def work(tasks: Sequence[Task]) -> list[Any]:
        found = matcher.match([(task.a.encoded, task.b.encoded) for task in tasks])
        return [_in_files(*both) for both in zip(found, tasks, strict=True)]

    encoded = LruCache[Placed[Any]](encode, cache_bytes)
    done = run_on_pairs(
        todo, encoded, work, spec, device=device, workers=workers, failures=report.failures
    )
    with store.writer() as writer:
        for pair, matches in done:
            writer.add(pair, match_digest(pair, digests), matches)
            report.computed += 1
            if progress:
                progress(1)
    report.num_encoded, report.num_cache_hits = encoded.num_computed, encoded.num_hits
    return report


def _in_files(found: Matches | Correspondences, task: Task) -> Matches | Correspondences:
    if isinstance(found, Matches):
        return found
    return in_file_rasters(found, task.a.placement, task.b.placement)
