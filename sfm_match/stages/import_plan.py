"""What an import would add to a database that somebody else made, and what speaks against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sfm_match.io.database_access import Connection
from sfm_match.io.database_images import Contents, read_image_keypoints
from sfm_match.io.database_pairs import (
    PairRows,
    matrix_columns,
    pair_rows,
    read_pair,
    same_matches,
    same_two_view,
)
from sfm_match.io.store import Store
from sfm_match.stages.database import read_pairs
from sfm_match.stages.import_target import Target
from sfm_match.types import ArrayF32, Features, Matches, Pair, TwoView


@dataclass(frozen=True)
class Made:
    """What a run made: digests of its images, matched pairs, stores."""

    digests: Mapping[str, bytes]
    pairs: Sequence[Pair]
    features: Store[Features]
    matches: Store[Matches]
    two_views: Store[TwoView]


@dataclass
class Plan:
    """What an import would add, and what speaks against it.

    Attributes:
        keypoints: images whose keypoints are not there.
        matches: pairs whose matches are not there.
        two_views: pairs whose geometry is not there.
        conflicts: content that is there and differs, a line each.
    """

    keypoints: set[str] = field(default_factory=set)
    matches: set[Pair] = field(default_factory=set)
    two_views: set[Pair] = field(default_factory=set)
    conflicts: list[str] = field(default_factory=list)


def compare(connection: Connection, contents: Contents, target: Target, made: Made) -> Plan:
    """Compare what a run made with what a database holds.

    Pairs that are not verified with the cameras of the target are compared by their matches only.
    """
    plan = Plan(keypoints=set(target.added))
    entries = [(name, made.digests[name]) for name in target.found]
    for name, arrays in made.features.arrays(entries, columns=("keypoints",)):
        points = arrays["keypoints"]
        assert isinstance(name, str)
        assert points is not None
        there = read_image_keypoints(connection, target.image_ids[name])
        if there is None:
            plan.keypoints.add(name)
            plan.conflicts += _left_overs(name, target.image_ids[name], contents)
        elif not _same_points(there, points):
            num = f"{len(there)} there, {len(points)} to be added"
            plan.conflicts.append(f"{name}: has other keypoints in the database ({num})")
    names = matrix_columns(connection)
    in_stores = read_pairs(made.digests, made.pairs, target.cameras, made.matches, made.two_views)
    for pair, matches, two_view in in_stores:
        ids = target.image_ids[pair.a], target.image_ids[pair.b]
        ours = pair_rows(ids, matches, two_view, names)
        rows = read_pair(connection, ours.pair_id, names)
        _compare_pair(pair, rows, ours, plan, is_verified=two_view is not None)
    plan.conflicts.sort()
    return plan


def _same_points(there: ArrayF32, points: ArrayF32) -> bool:
    """Return whether the rows are the same points; scales and orientations are not compared."""
    return len(there) == len(points) and (not len(points) or np.array_equal(there[:, :2], points))


def _left_overs(name: str, image_id: int, contents: Contents) -> list[str]:
    """Say what an image has that belongs to keypoints which are not there any more."""
    kinds = (("matches", contents.matched), ("descriptors", contents.described))
    return [
        f"{name}: has {kind} in the database, but no keypoints that they belong to"
        for kind, ids in kinds
        if image_id in ids
    ]


def _compare_pair(
    pair: Pair, there: PairRows, ours: PairRows, plan: Plan, is_verified: bool
) -> None:
    where = f"{pair.a}, {pair.b}: have"
    if not there.has_matches and ours.has_matches:
        plan.matches.add(pair)
    elif there.has_matches and not same_matches(there.matches, ours.matches):
        num = f"{len(there.matches)} there, {len(ours.matches)} to be added"
        plan.conflicts.append(f"{where} other matches in the database ({num})")
    if not there.has_geometry and ours.has_geometry:
        plan.two_views.add(pair)
    elif there.has_geometry and is_verified and not same_two_view(there, ours):
        num = f"{len(there.inliers)} inliers there, {len(ours.inliers)} to be added"
        plan.conflicts.append(f"{where} another two-view geometry in the database ({num})")
