"""Correspondences and images -> refined correspondences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfm_match.io.store import Store
from sfm_match.spec import Spec, load_plugin
from sfm_match.stages.match import match_digest
from sfm_match.stages.order import DEFAULT_CACHE_BYTES
from sfm_match.stages.pairwise import PairsReport, Task, fill_store
from sfm_match.stages.scan import Source
from sfm_match.stages.views import Views, in_file_rasters, in_upright_pictures
from sfm_match.types import Correspondences, Features, Pair, Refiner


@dataclass
class RefineReport(PairsReport):
    """What refining did.

    Attributes:
        correspondences: of the pairs that were refined now, before.
        refined: of the same, after.
    """

    correspondences: int = 0
    refined: int = 0


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

    Images are encoded and cached by `sfm_match.stages.pairwise.fill_store`. Points are stored in
    the rasters of the images' files, and those on a mask's black are dropped.

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
    counts: dict[Pair, tuple[int, int]] = {}  # of each pair, before and after

    def work(refiner: Refiner[Any], tasks: Sequence[Task]) -> list[Correspondences]:
        before = [found.read(task.pair, match_digest(task.pair, digests)) for task in tasks]
        given = [
            (
                task.a.encoded,
                task.b.encoded,
                in_upright_pictures(points, task.a.placement, task.b.placement),
            )
            for task, points in zip(tasks, before, strict=True)
        ]
        after = [
            in_file_rasters(new, task.a.placement, task.b.placement)
            for task, new in zip(tasks, refiner.refine(given), strict=True)
        ]
        for task, old, new in zip(tasks, before, after, strict=True):
            counts[task.pair] = len(old), len(new)
        return after

    report = fill_store(
        store,
        [(pair, match_digest(pair, digests)) for pair in pairs],
        spec,
        Views(load_plugin(spec.kind, spec.name).NEEDS, sources, features, digests),
        work,
        device=device,
        workers=workers,
        cache_bytes=cache_bytes,
        progress=progress,
    )
    return RefineReport(
        **vars(report),
        correspondences=sum(before for before, _ in counts.values()),
        refined=sum(after for _, after in counts.values()),
    )
