"""Stores -> a new COLMAP database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfm_match.geometry.cameras import Cameras
from sfm_match.io.database import (
    DatabaseCounts,
    content_digest,
    read_counts,
    read_info,
    write_database,
)
from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.match import match_digest
from sfm_match.stages.verify import verify_digest
from sfm_match.types import ArrayF32, Features, Matches, Pair, TwoView

VERSION = 1
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True)
class DatabaseReport:
    """What the import did.

    Attributes:
        counts: what the database holds.
        reused: whether it was there already.
    """

    counts: DatabaseCounts
    reused: bool


def database_fingerprint(
    digests: Mapping[str, bytes], pairs: Sequence[Pair], cameras: Cameras, spec: Spec
) -> str:
    """Return the fingerprint of the database of some images and pairs, verified as in `spec`."""
    parts = [f"database {VERSION} {spec.fingerprint}".encode()]
    for name in sorted(digests):
        camera_id = str(cameras.of_image[name]).encode()
        parts += [name.encode(), digests[name], camera_id, cameras.digest(name)]
    for pair in sorted(pairs):
        parts += [pair.a.encode(), pair.b.encode(), verify_digest(pair, digests, cameras)]
    return content_digest(parts)


def build_database(
    path: Path,
    digests: Mapping[str, bytes],
    pairs: Sequence[Pair],
    cameras: Cameras,
    spec: Spec,
    features: Store[Features],
    matches: Store[Matches],
    two_views: Store[TwoView],
    *,
    progress: Callable[[int], object] | None = None,
) -> DatabaseReport:
    """Write the database of a run, unless the one that is there was made from the same.

    Args:
        path: the database; an older one is replaced when the new one is complete.
        digests: the images, and what their features were made from.
        pairs: the pairs, all of them verified.
        cameras: the camera of each image.
        spec: how the pairs were verified.
        features: where the features are.
        matches: where the matches are.
        two_views: where the geometries are.
        progress: called with the number of pairs done since the last call.
    """
    fingerprint = database_fingerprint(digests, pairs, cameras, spec)
    if read_info(path).get("fingerprint") == fingerprint:
        return DatabaseReport(read_counts(path), reused=True)
    counts = write_database(
        path,
        cameras.cameras,
        {name: cameras.of_image[name] for name in digests},
        read_keypoints(digests, features),
        _verified(read_pairs(digests, pairs, cameras, matches, two_views), progress),
        {"fingerprint": fingerprint},
    )
    return DatabaseReport(counts, reused=False)


def read_keypoints(
    digests: Mapping[str, bytes], features: Store[Features]
) -> Iterator[tuple[str, ArrayF32]]:
    """Read keypoints as COLMAP has them, (N, 2), or (N, 4) with scale and orientation."""
    columns = ("keypoints", "scales", "orientations")
    for name, arrays in features.arrays(list(digests.items()), columns):
        assert isinstance(name, str)
        points, scales, angles = (arrays[column] for column in columns)
        assert points is not None
        if scales is None or angles is None:
            yield name, points
        else:
            yield name, np.column_stack([points, scales, angles])


def _verified(
    rows: Iterator[tuple[Pair, Matches, TwoView | None]], progress: Callable[[int], object] | None
) -> Iterator[tuple[Pair, Matches, TwoView]]:
    for pair, found, two_view in rows:
        assert two_view is not None
        yield pair, found, two_view
        if progress:
            progress(1)


def read_pairs(
    digests: Mapping[str, bytes],
    pairs: Sequence[Pair],
    cameras: Cameras,
    matches: Store[Matches],
    two_views: Store[TwoView],
) -> Iterator[tuple[Pair, Matches, TwoView | None]]:
    """Join the two stores, some thousand pairs at a time, each read in the order of its disk.

    A pair that was not verified with these cameras has no geometry.
    """
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = pairs[start : start + _PAIRS_AT_ONCE]
        entries = [(pair, verify_digest(pair, digests, cameras)) for pair in some]
        verified = dict(two_views.items([entry for entry in entries if entry in two_views]))
        for pair, found in matches.items([(p, match_digest(p, digests)) for p in some]):
            assert isinstance(pair, Pair)
            yield pair, found, verified.get(pair)
