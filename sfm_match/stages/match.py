"""Images or features, and pairs -> matches or correspondences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sfm_match.io.digests import combine_digests
from sfm_match.io.store import Store
from sfm_match.spec import Spec, load_plugin
from sfm_match.stages.order import DEFAULT_CACHE_BYTES
from sfm_match.stages.pairwise import PairsReport, Task, fill_store
from sfm_match.stages.scan import Source
from sfm_match.stages.views import Views, in_file_rasters
from sfm_match.types import Correspondences, Features, Matcher, Matches, Pair


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
) -> PairsReport:
    """Match every pair that the store does not hold yet.

    Images are encoded and cached by `sfm_match.stages.pairwise.fill_store`. Correspondences are
    stored in the rasters of the images' files, as keypoints are, and those on a mask's black are
    dropped.

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

    def work(matcher: Matcher[Any, Any], tasks: Sequence[Task]) -> list[Any]:
        found = matcher.match([(task.a.encoded, task.b.encoded) for task in tasks])
        return [_in_files(*both) for both in zip(found, tasks, strict=True)]

    return fill_store(
        store,
        [(pair, match_digest(pair, digests)) for pair in pairs],
        spec,
        Views(load_plugin(spec.kind, spec.name).NEEDS, sources or {}, features, digests),
        work,
        device=device,
        workers=workers,
        cache_bytes=cache_bytes,
        progress=progress,
    )


def _in_files(found: Matches | Correspondences, task: Task) -> Matches | Correspondences:
    if isinstance(found, Matches):
        return found
    return in_file_rasters(found, task.a.placement, task.b.placement)
