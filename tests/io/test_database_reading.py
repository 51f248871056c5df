from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.io.database_access import DatabaseError
from sfm_match.io.database_reading import (
    read_cameras,
    read_images,
    read_pair_matches,
    reading,
    stream_geometries,
    stream_keypoints,
    stream_matches,
)
from tests.colmap_scene import Scene, synthesize
from tests.databases import edit, pair_id


@pytest.fixture(scope="module")
def scene() -> Scene:
    return synthesize(4, num_points=30, noise=0.2)


@pytest.fixture
def database(scene: Scene, tmp_path: Path) -> Path:
    scene.write_database(tmp_path / "database.db")
    return tmp_path / "database.db"


def test_it_reads_what_pycolmap_reads(database: Path) -> None:
    damages: list[str] = []
    with reading(database) as connection:
        cameras = read_cameras(connection, damages)
        images = read_images(connection)
        keypoints = {i: (n, p) for i, n, p in stream_keypoints(connection, damages)}
        matches = dict(stream_matches(connection, damages))
        geometries = {g.pair_id: g for g in stream_geometries(connection, damages)}
        one = read_pair_matches(connection, pair_id(1, 2))
    assert damages == []
    with pycolmap.Database.open(database) as opened:
        assert [c.params.tolist() for c in cameras.values()] == [
            c.params.tolist() for c in opened.read_all_cameras()
        ]
        assert {name: row.image_id for name, row in images.items()} == {
            image.name: image.image_id for image in opened.read_all_images()
        }
        for image_id, (num, points) in keypoints.items():
            np.testing.assert_array_equal(points, opened.read_keypoints(image_id))
            assert num == opened.num_keypoints_for_image(image_id)
        np.testing.assert_array_equal(one, opened.read_matches(1, 2))
        pair_ids, found = opened.read_two_view_geometries()
        assert matches.keys() == geometries.keys() == set(pair_ids)
        for number, expected in zip(pair_ids, found, strict=True):
            geometry = geometries[number]
            assert geometry.config == expected.config
            np.testing.assert_array_equal(geometry.inliers, expected.inlier_matches)
            np.testing.assert_array_equal(geometry.matrices["E"].reshape(3, 3), expected.E)
            pose = expected.cam2_from_cam1
            assert pose is not None
            np.testing.assert_array_equal(geometry.matrices["tvec"], pose.translation)
            np.testing.assert_array_equal(
                np.roll(geometry.matrices["qvec"], -1), pose.rotation.quat
            )


def test_chosen_geometries_come_in_the_order_given(database: Path) -> None:
    chosen = [pair_id(3, 4), pair_id(1, 2), pair_id(5, 6)]
    with reading(database) as connection:
        found = [g.pair_id for g in stream_geometries(connection, [], chosen)]
    assert found == chosen[:2]  # of the third there is no row


def test_damaged_rows_are_told_and_passed_over(database: Path) -> None:
    edit(
        database,
        "UPDATE keypoints SET data = x'00' WHERE image_id = 2",
        f"UPDATE matches SET cols = 3 WHERE pair_id = {pair_id(1, 2)}",
        f"UPDATE two_view_geometries SET E = x'0000000000000000' WHERE pair_id = {pair_id(1, 3)}",
        "UPDATE cameras SET model = 77",
    )
    damages: list[str] = []
    with reading(database) as connection:
        assert read_cameras(connection, damages) == {}
        keypoints = {i: p for i, _, p in stream_keypoints(connection, damages)}
        assert [i for i, points in keypoints.items() if points is None] == [2]
        assert len(list(stream_matches(connection, damages))) == 5
        assert len(list(stream_geometries(connection, damages))) == 5
    assert damages == [
        "camera 1 is of model 77, which pycolmap does not know",
        "the keypoints of image 2 are damaged: 1 bytes are no whole number of float32 values",
        "the matches of images 1 and 2 are damaged: 30 x 3 values, of which 60 are there",
        "E of images 1 and 3 has 1 values, not 9",
    ]


@pytest.mark.parametrize("beside", [(), ("-wal",), ("-wal", "-shm")])
def test_nothing_is_made_or_changed_beside_it(database: Path, beside: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("UPDATE images SET name = 'new' WHERE image_id = 1")
        writer.commit()
        folder = database.parent / "copy"
        folder.mkdir()
        for suffix in ("", *beside):
            shutil.copy(f"{database}{suffix}", folder / f"copy.db{suffix}")
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".db-shm"}
    with reading(folder / "copy.db") as connection:
        # What was written last is in the log alone.
        assert ("new" in read_images(connection)) == bool(beside)
    after = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".db-shm"}
    assert before == after
    assert ("copy.db-shm" in {p.name for p in folder.iterdir()}) == ("-shm" in beside)


def test_it_cannot_be_written_to(database: Path) -> None:
    with pytest.raises(DatabaseError), reading(database) as connection:
        connection.execute("DELETE FROM images")
    with reading(database) as connection:
        assert len(read_images(connection)) == 4


def test_an_older_colmaps_database_is_read(database: Path) -> None:
    """Before poses, rigs and frames."""
    edit(
        database,
        *(f"DROP TABLE {name}" for name in ("frame_data", "frames", "rig_sensors", "rigs")),
        "DROP TABLE pose_priors",
        "ALTER TABLE two_view_geometries DROP COLUMN qvec",
        "ALTER TABLE two_view_geometries DROP COLUMN tvec",
    )
    with reading(database) as connection:
        matrices = [set(g.matrices) for g in stream_geometries(connection, [])]
    assert len(matrices) == 6
    assert all("E" in found and "tvec" not in found for found in matrices)


def test_a_missing_table_is_named(database: Path) -> None:
    edit(database, "DROP TABLE two_view_geometries")
    message = "it has no table two_view_geometries"
    with pytest.raises(DatabaseError, match=message), reading(database):
        pass


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="is not a file"), reading(tmp_path):
        pass


def test_a_change_that_was_broken_off(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = DELETE")
        writer.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
        writer.execute("BEGIN")
        writer.execute("UPDATE keypoints SET data = zeroblob(length(data))")
        writer.execute("UPDATE matches SET data = zeroblob(length(data))")
        copy = tmp_path / "copy.db"
        for suffix in ("", "-journal"):
            shutil.copy(f"{database}{suffix}", f"{copy}{suffix}")
    before = copy.read_bytes()
    with pytest.raises(DatabaseError, match="in the middle of a change"), reading(copy):
        pass
    assert copy.read_bytes() == before
