"""Matches -> two-view geometries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pycolmap

from sfm_match.geometry.cameras import Cameras
from sfm_match.geometry.two_view import estimate_two_view
from sfm_match.io.digests import combine_digests
from sfm_match.io.store import Store
from sfm_match.options import json_options, merge_options
from sfm_match.spec import Spec, library_versions
from sfm_match.stages.executor import num_cores, run_in_threads
from sfm_match.stages.match import match_digest
from sfm_match.stages.order import LruCache, order_pairs
from sfm_match.types import ArrayF32, Features, Matches, Pair, TwoView

VERSION = 1
_KEYPOINT_CACHE_BYTES = 256 << 20


@dataclass
class VerifyReport:
    """What verification did.

    Attributes:
        computed: pairs that were verified now.
        reused: pairs whose geometry was there already.
    """

    computed: int = 0
    reused: int = 0


def verify_spec(options: Mapping[str, Any], matcher: Spec, seed: int) -> Spec:
    """Return the spec of verification from the table `[verify]`.

    Its options are those of ``pycolmap.TwoViewGeometryOptions``, ``ransac`` being a table.

    Raises:
        ConfigError: an option does not exist or is wrong.
    """
    defaults = pycolmap.TwoViewGeometryOptions(compute_relative_pose=True).todict()
    config = json_options(merge_options(defaults, options, "verify"))
    return Spec(
        "stages",
        "two_view",
        VERSION,
        {**config, "seed": seed},
        (matcher,),
        libraries=library_versions(["pycolmap"]),
    )


def verify_digest(pair: Pair, digests: Mapping[str, bytes], cameras: Cameras) -> bytes:
    """Return the digest of a pair's geometry: its images' and its cameras'."""
    of_cameras = cameras.digest(pair.a), cameras.digest(pair.b)
    return combine_digests(match_digest(pair, digests), *of_cameras)


def verify(
    pairs: Sequence[Pair],
    digests: Mapping[str, bytes],
    cameras: Cameras,
    spec: Spec,
    features: Store[Features],
    matches: Store[Matches],
    store: Store[TwoView],
    *,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> VerifyReport:
    """Estimate the geometry of every pair that the store does not hold yet, on all cores.

    The random seed of a pair follows from the spec's and the pair's names, so that the result
    does not depend on the order or on what was done before.
    """
    todo = [p for p in pairs if (p, verify_digest(p, digests, cameras)) not in store]
    report = VerifyReport(computed=len(todo), reused=len(pairs) - len(todo))
    if progress:
        progress(report.reused)
    keypoints = LruCache[ArrayF32](
        lambda name: _read_keypoints(features, name, digests[name]), _KEYPOINT_CACHE_BYTES
    )

    def tasks() -> Iterator[tuple[Pair, Callable[[], TwoView]]]:
        for pair in order_pairs(todo):
            found = matches.read(pair, match_digest(pair, digests))
            points = keypoints[pair.a], keypoints[pair.b]
            yield pair, _task(pair, cameras, points, found, spec)

    with store.writer() as writer:
        for pair, two_view in run_in_threads(tasks(), workers or num_cores()):
            writer.add(pair, verify_digest(pair, digests, cameras), two_view)
            if progress:
                progress(1)
    return report


def _read_keypoints(features: Store[Features], name: str, digest: bytes) -> ArrayF32:
    ((_, arrays),) = features.arrays([(name, digest)], columns=("keypoints",))
    keypoints = arrays["keypoints"]
    assert keypoints is not None
    return keypoints


def _task(
    pair: Pair,
    cameras: Cameras,
    points: tuple[ArrayF32, ArrayF32],
    matches: Matches,
    spec: Spec,
) -> Callable[[], TwoView]:
    config = dict(spec.config)
    named = hashlib.sha256(repr((config.pop("seed"), pair.a, pair.b)).encode()).digest()
    options = pycolmap.TwoViewGeometryOptions(config)
    options.ransac.random_seed = int.from_bytes(named[:4], "little") >> 1

    def run() -> TwoView:
        return estimate_two_view(
            cameras[pair.a], points[0], cameras[pair.b], points[1], matches, options
        )

    return run
