"""Correspondences and images -> refined correspondences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sfm_match.io.store import Store
from sfm_match.spec import Spec, load_plugin
from sfm_match.stages.match import match_digest
from sfm_match.stages.order import DEFAULT_CACHE_BYTES, LruCache
from sfm_match.stages.pairwise import Task, run_on_pairs
from sfm_match.stages.scan import Source
from sfm_match.stages.views import Placed, Views, in_file_rasters, in_upright_pictures
from sfm_match.types import Correspondences, Features, Pair, Refiner


@dataclass
class RefineReport:
    """What refining did.

    Attributes:
        computed: pairs that were refined now.
        reused: pairs whose refined correspondences were there already.
        correspondences: of the pairs that were refined now, before.
        refined: of the same, after.
        num_encoded: how often an image was encoded.
        num_cache_hits: how often its encoding was there already.
        failures: image name -> why it is left out.
    """

    computed: int = 0
    reused: int = 0
    correspondences: int = 0
    refined: int = 0
    num_encoded: int = 0
    num_cache_hits: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def refine(
    pairs: Sequence[Pair],
    digests: Mapping[str, bytes],
    spec: Spec,
    features: Store[Features] | None,
    found: Store[Correspondences],
    store: Store[Correspondences],
    *,
    sources: Mapping[str, Source],
    device: str = "cpu",
    workers: int | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    progress: Callable[[int], object] | None = None,
) -> RefineReport:
    """Refine the correspondences of every pair that the store does not hold yet.

    Images are encoded and cached as in `sfm_match.stages.match.match`; points are stored in the
    rasters of the images' files, and those on a mask's black are dropped.

    Args:
        pairs: what to refine, all of them in `found`.
        digests: the digest of each image.
        spec: the refiner.
        features: where the features are, if the refiner needs them.
        found: where the correspondences are.
        store: where the refined ones go.
        sources: the images.
        device: the torch device that the refiner runs on.
        workers: how many pairs are refined at once on a CPU, where the plugin allows several; one
            for each core if None.
        cache_bytes: the bound of the cache of encoded images.
        progress: called with the number of pairs done since the last call.
    """
    todo = [pair for pair in pairs if (pair, match_digest(pair, digests)) not in store]
    report = RefineReport(reused=len(pairs) - len(todo))
    if progress:
        progress(report.reused)
    if not todo:
        return report
    refiner: Refiner[Any] = spec.build(device)
    views = Views(load_plugin(spec.kind, spec.name).NEEDS, sources, features, digests)

    def encode(name: str) -> Placed[Any]:
        view, placement = views(name)
        return Placed(refiner.encode(view), placement)

    def work(tasks: Sequence[Task]) -> list[tuple[int, Correspondences]]:
        before = [found.read(task.pair, match_digest(task.pair, digests)) for task in tasks]
        given = [
            (
                task.a.encoded,
                task.b.encoded,
                in_upright_pictures(points, task.a.placement, task.b.placement),
            )
            for task, points in zip(tasks, before, strict=True)
        ]
        return [
            (len(old), in_file_rasters(new, task.a.placement, task.b.placement))
            for task, old, new in zip(tasks, before, refiner.refine(given), strict=True)
        ]

    encoded = LruCache[Placed[Any]](encode, cache_bytes)
    done = run_on_pairs(
        todo, encoded, work, spec, device=device, workers=workers, failures=report.failures
    )
    with store.writer() as writer:
        for pair, (num_before, refined) in done:
            writer.add(pair, match_digest(pair, digests), refined)
            report.computed += 1
            report.correspondences += num_before
            report.refined += len(refined)
            if progress:
                progress(1)
    report.num_encoded, report.num_cache_hits = encoded.num_computed, encoded.num_hits
    return report
