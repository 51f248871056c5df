"""What contradicts a database is refused, all of it at once, and the database left as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.stages.import_into import ConflictError
from sfm_match.types import Matches, Pair
from tests.colmap_scene import Scene, camera
from tests.databases import FACTOR, edit
from tests.import_scene import Made, conflicts, image_of, store_scene


def test_keypoints_of_somebody_else_are_kept(stored: Made, path: Path) -> None:
    names, keypoints = stored.scene.names, stored.scene.keypoints
    with pycolmap.Database.open(path) as database:
        for number, name in enumerate(names):
            image_id = image_of(database, name).image_id
            # The same points with scale and angle are the same; one that moved is not.
            points = np.pad(keypoints[name], ((0, 0), (0, 2)), constant_values=1)
            if number == 2:
                points[7, 1] = np.nextafter(points[7, 1], np.float32(np.inf))
            if number == 3:
                points = points[:-1]
            database.write_keypoints(image_id, points)
    num = [len(keypoints[name]) for name in names]
    assert conflicts(stored, path) == (
        f"{names[2]}: has other keypoints in the database ({num[2]} there, {num[2]} to be added)",
        f"{names[3]}: has other keypoints in the database "
        f"({num[3] - 1} there, {num[3]} to be added)",
    )


def test_all_conflicts_are_listed_at_once(stored: Made, path: Path, tmp_path: Path) -> None:
    names = stored.scene.names
    stored.import_into(path)
    a, b, c, d = (f"(SELECT image_id FROM images WHERE name = '{name}')" for name in names[:4])
    other = camera(6)
    with pycolmap.Database.open(path) as database:
        other.width += 1
        database.write_camera(other, use_camera_id=True)
        database.write_descriptors(
            image_of(database, names[1]).image_id,
            pycolmap.FeatureDescriptors(
                pycolmap.FeatureExtractorType.SIFT, np.zeros((3, 128), np.uint8)
            ),
        )
    last = names[-1]
    edit(
        path,
        f"UPDATE images SET camera_id = 6 WHERE image_id = {a}",
        f"DELETE FROM keypoints WHERE image_id = {b}",
        f"UPDATE keypoints SET rows = 1, data = zeroblob(8) WHERE image_id = {c}",
        f"UPDATE images SET name = '{last.upper()}' WHERE name = '{last}'",
        f"UPDATE matches SET rows = 1, data = zeroblob(8) WHERE pair_id % {FACTOR} = {a}"
        f" AND pair_id / {FACTOR} = {d}",
        f"UPDATE two_view_geometries SET config = 6 WHERE pair_id % {FACTOR} = {c}"
        f" AND pair_id / {FACTOR} = {d}",
    )
    num = {name: len(points) for name, points in stored.scene.keypoints.items()}
    matched = len(stored.scene.matches[Pair(names[0], names[3])])
    inliers = stored.verified(stored.scene.cameras)[Pair(names[2], names[3])].num_inliers
    assert list(conflicts(stored, path)) == [
        f"{last}: seems to be {last.upper()} in the database; names must be the same, relative to "
        "the same folder of images",
        f"{names[0]}: the image has 640 x 480 pixels, its camera in the database (id 6) 641 x 480",
        f"{names[0]}, {names[3]}: have other matches in the database "
        f"(1 there, {matched} to be added)",
        f"{names[1]}: has descriptors in the database, but no keypoints that they belong to",
        f"{names[1]}: has matches in the database, but no keypoints that they belong to",
        f"{names[2]}, {names[3]}: have another two-view geometry in the database "
        f"({inliers} inliers there, {inliers} to be added)",
        f"{names[2]}: has other keypoints in the database (1 there, {num[names[2]]} to be added)",
    ]


def test_a_geometry_that_is_only_known_after_the_work_is_refused_too(
    scene: Scene, path: Path, tmp_path: Path
) -> None:
    made = store_scene(scene, tmp_path / "stores")
    made.import_into(path)
    edit(path, "UPDATE cameras SET prior_focal_length = 0")
    with pytest.raises(ConflictError) as caught:
        made.import_into(path)
    assert len(caught.value.conflicts) == 15
    assert all("another two-view geometry" in line for line in caught.value.conflicts)


def test_matches_of_another_matcher_are_refused(stored: Made, path: Path, tmp_path: Path) -> None:
    pairs = stored.pairs
    nothing = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    turned = stored.with_matches(
        tmp_path / "turned", lambda p, m: Matches(m.indices[::-1].copy(), m.scores)
    )
    fewer = stored.with_matches(tmp_path / "fewer", lambda p, m: nothing if p == pairs[0] else m)
    stored.import_into(path)
    # Their order means nothing, although another geometry may come of it.
    assert not any("other matches" in line for line in conflicts(turned, path))
    a, b = pairs[0].a, pairs[0].b
    num = len(stored.scene.matches[pairs[0]])
    lines = conflicts(fewer, path)
    assert lines[0].startswith(f"{a}, {b}: have another two-view geometry in the database")
    assert lines[1] == f"{a}, {b}: have other matches in the database ({num} there, 0 to be added)"
    assert len(lines) == 2
