"""Stores -> a COLMAP database that the user already has.

What is there is used by its name and never overwritten. Everything is checked before the first row
is added, and all of it is added in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfm_match.geometry.cameras import Cameras
from sfm_match.io.database_access import Connection, DatabaseError, transaction
from sfm_match.io.database_images import (
    Contents,
    add_camera,
    add_frame,
    add_image,
    add_keypoints,
    add_rig,
    read_contents,
)
from sfm_match.io.database_pairs import add_matches, add_two_view, matrix_columns, pair_rows
from sfm_match.io.store import Store
from sfm_match.logs import log
from sfm_match.spec import Spec
from sfm_match.stages.database import read_keypoints, read_pairs
from sfm_match.stages.import_plan import Made, Plan, compare
from sfm_match.stages.import_target import Target, find_target
from sfm_match.stages.verify import verify
from sfm_match.types import Features, Matches, Pair, TwoView


class ConflictError(DatabaseError):
    """A database holds something else than what would be added to it.

    Attributes:
        conflicts: all of them, a line each.
    """

    def __init__(self, path: Path, conflicts: Sequence[str]) -> None:
        count = f"{len(conflicts)} conflict{'s' if len(conflicts) > 1 else ''}"
        lines = "".join(f"\n  {line}" for line in conflicts)
        super().__init__(
            f"{path}: nothing was changed, what is there is never overwritten; {count}:{lines}"
        )
        self.conflicts = tuple(conflicts)


@dataclass
class ImportReport:
    """What an import into a database did. All but the first three count what was added.

    Attributes:
        found: images that were there.
        missing: names of the images that are not there and were not added.
        verified_again: pairs verified now, with the database's cameras.
        images: images.
        cameras: cameras.
        keypoints: images with keypoints.
        matched_pairs: pairs with matches.
        verified_pairs: pairs with a two-view geometry.
    """

    found: int
    missing: list[str]
    verified_again: int = 0
    images: int = 0
    cameras: int = 0
    keypoints: int = 0
    matched_pairs: int = 0
    verified_pairs: int = 0


def import_into(
    path: Path,
    digests: Mapping[str, bytes],
    pairs: Sequence[Pair],
    cameras: Cameras,
    spec: Spec,
    features: Store[Features],
    matches: Store[Matches],
    two_views: Store[TwoView],
    *,
    add_images: bool = False,
    workers: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> ImportReport:
    """Add keypoints, matches and two-view geometries to a database that the user has.

    Images are found by their names, with their cameras, rigs and frames. Pairs are verified with
    the cameras that the database has, so that its geometries are as if COLMAP had made them; only
    pairs whose cameras differ from the run's are verified again, and the store keeps the result.
    Content that is there already is left as it is: an import repeated adds nothing.

    An image that is added gets the database's camera of those it shares one with in the run, or
    else the run's camera as a new one, and is a frame of its own.

    Args:
        path: the database.
        digests: the images that have features, and what these were made from.
        pairs: the pairs, all of them matched.
        cameras: the run's camera of each image.
        spec: how pairs are verified.
        features: where the features are.
        matches: where the matches are.
        two_views: where the geometries are.
        add_images: whether to add the images that are not there; otherwise they are left out.
        workers: how many pairs are verified at once.
        progress: called with the number of pairs verified since the last call.

    Raises:
        DatabaseError: it is not a COLMAP database, cannot be written to, is being used by another
            program, has none of the images, or was changed meanwhile.
        ConflictError: it has other content than what would be added; all of that is listed.
    """
    own = Cameras(
        cameras.cameras, {name: cameras.of_image[name] for name in digests}, cameras.fixed
    )
    with transaction(path) as connection:  # what can be known before the work
        contents = read_contents(connection)
        target = find_target(contents, own, add_images)
        if not target.cameras.of_image and not target.conflicts:
            raise DatabaseError(_none_found(path, contents, own))
        some = [p for p in pairs if {p.a, p.b} <= target.cameras.of_image.keys()]
        made = Made(digests, some, features, matches, two_views)
        _refuse(path, target, compare(connection, contents, target, made))
    if not contents.has_rig_tables:
        log.warning(
            "%s: is of a COLMAP before 3.12, without rigs and frames; it stays so until a newer "
            "COLMAP opens it",
            path,
        )
    verified = verify(
        some,
        digests,
        target.cameras,
        spec,
        features,
        matches,
        two_views,
        workers=workers,
        progress=progress,
    )
    with transaction(path) as connection:
        contents = read_contents(connection)
        now = find_target(contents, own, add_images)
        if now.content != target.content:
            raise DatabaseError(f"{path}: was changed by another program meanwhile; import again")
        plan = compare(connection, contents, now, made)
        _refuse(path, now, plan)
        _add(connection, contents, now, made, plan)
    return ImportReport(
        found=len(target.found),
        missing=target.missing,
        verified_again=verified.computed,
        images=len(target.added),
        cameras=len(target.new_cameras),
        keypoints=len(plan.keypoints),
        matched_pairs=len(plan.matches),
        verified_pairs=len(plan.two_views),
    )


def _none_found(path: Path, contents: Contents, own: Cameras) -> str:
    has = f"such as {min(contents.images)!r}" if contents.images else "it has no image at all"
    return (
        f"{path}: has none of the {len(own.of_image)} images, such as {min(own.of_image)!r} "
        f"({has}); ask for images to be added if that is meant"
    )


def _refuse(path: Path, target: Target, plan: Plan) -> None:
    conflicts = [*target.conflicts, *plan.conflicts]
    if conflicts:
        raise ConflictError(path, conflicts)


def _add(
    connection: Connection, contents: Contents, target: Target, made: Made, plan: Plan
) -> None:
    _add_images(connection, contents, target)
    ids = target.image_ids
    wanted = {name: digest for name, digest in made.digests.items() if name in plan.keypoints}
    for name, points in read_keypoints(wanted, made.features):
        add_keypoints(connection, ids[name], points)
    names = matrix_columns(connection)
    wanted_pairs = plan.matches | plan.two_views
    pairs = [pair for pair in made.pairs if pair in wanted_pairs]
    in_stores = read_pairs(made.digests, pairs, target.cameras, made.matches, made.two_views)
    for pair, found, two_view in in_stores:
        rows = pair_rows((ids[pair.a], ids[pair.b]), found, two_view, names)
        if pair in plan.matches:
            add_matches(connection, rows)
        if pair in plan.two_views:
            add_two_view(connection, rows)


def _add_images(connection: Connection, contents: Contents, target: Target) -> None:
    """Add images with their cameras.

    Where the images that are there have no frames, these get none either: COLMAP makes the frames
    of a database either all by itself or not at all.
    """
    with_frames = contents.has_rig_tables and (contents.has_frames or not contents.images)
    for camera_id in target.new_cameras:
        add_camera(connection, target.cameras.cameras[camera_id])
    rigs = {camera_id: rig.rig_id for camera_id, rig in contents.rigs.items()}
    for name in target.added:
        camera_id = target.cameras.of_image[name]
        add_image(connection, name, target.image_ids[name], camera_id)
        if with_frames and camera_id not in rigs:
            rigs[camera_id] = add_rig(connection, camera_id)
        if with_frames:
            add_frame(connection, rigs[camera_id], target.image_ids[name], camera_id)
