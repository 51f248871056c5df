from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.io.database import (
    DatabaseCounts,
    content_digest,
    read_counts,
    read_info,
    write_database,
)
from sfm_match.types import ArrayF32, ArrayF64, Matches, Pair, TwoView, TwoViewConfig
from tests.colmap_scene import Scene

NAMES = ["a/b.jpg", "a b.jpg", "ä/Fuß 1.jpg", "写真 'x'.png"]


def cameras() -> dict[int, pycolmap.Camera]:
    made = {
        1: pycolmap.Camera.create_from_model_name(0, "SIMPLE_RADIAL", 500.0, 640, 480),
        7: pycolmap.Camera.create_from_model_name(0, "OPENCV", 900.0, 1024, 768),
    }
    made[7].params = [900, 905, 510, 380, 0.1, -0.02, 0.003, 0.004]
    made[7].has_prior_focal_length = True
    return made


CAMERA_OF = dict(zip(NAMES, (1, 7, 7, 1), strict=True))


def keypoints(columns: int = 2) -> dict[str, ArrayF32]:
    rng = np.random.default_rng(0)
    return {
        name: rng.uniform(0, 1000, (10 * i, columns)).astype(np.float32)
        for i, name in enumerate(NAMES)
    }


def rotation(angle: float) -> ArrayF64:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def full_two_view() -> TwoView:
    rng = np.random.default_rng(1)
    return TwoView(
        config=TwoViewConfig.PLANAR,
        inliers=np.array([True, False, True, True, False]),
        cam1_from_cam0=np.column_stack([rotation(0.3), [0.6, 0, -0.8]]),
        E=rng.normal(size=(3, 3)),
        F=rng.normal(size=(3, 3)),
        H=rng.normal(size=(3, 3)),
    )


def matches(num: int) -> Matches:
    rng = np.random.default_rng(num)
    return Matches(rng.integers(0, 10, (num, 2)).astype(np.int32), np.ones(num, np.float32))


def pair_rows() -> list[tuple[Pair, Matches, TwoView]]:
    ordered = sorted(NAMES)
    nothing = TwoView(TwoViewConfig.DEGENERATE, np.zeros(3, bool))
    empty = TwoView(TwoViewConfig.DEGENERATE, np.zeros(0, bool))
    bare = TwoView(TwoViewConfig.UNCALIBRATED, np.ones(4, bool), F=np.eye(3))
    return [
        (Pair(ordered[0], ordered[1]), matches(5), full_two_view()),
        (Pair(ordered[0], ordered[2]), matches(3), nothing),
        (Pair(ordered[1], ordered[3]), matches(0), empty),
        (Pair(ordered[2], ordered[3]), matches(4), bare),
    ]


def write(path: Path, *, columns: int = 2, info: Mapping[str, str] | None = None) -> DatabaseCounts:
    found = keypoints(columns)
    return write_database(
        path, cameras(), CAMERA_OF, found.items(), pair_rows(), info or {"fingerprint": "f"}
    )


def ids(database: pycolmap.Database) -> dict[str, int]:
    return {image.name: image.image_id for image in database.read_all_images()}


# --- the way there and back -----------------------------------------------------------------------


def test_cameras_rigs_frames_and_images(tmp_path: Path) -> None:
    write(tmp_path / "database.db")
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        assert {c.camera_id for c in database.read_all_cameras()} == {1, 7}
        for camera_id, expected in cameras().items():
            camera = database.read_camera(camera_id)
            assert camera.model == expected.model
            assert (camera.width, camera.height) == (expected.width, expected.height)
            assert list(camera.params) == list(expected.params)
            assert camera.has_prior_focal_length == expected.has_prior_focal_length
        # Ids count from 1 in order of the names; ordinary sorting, of code points.
        assert ids(database) == {name: i for i, name in enumerate(sorted(NAMES), start=1)}
        assert database.num_rigs() == 2
        assert database.num_frames() == 4
        for image in database.read_all_images():
            assert image.camera_id == CAMERA_OF[image.name]
            frame = database.read_frame(image.image_id)
            assert frame.rig_id == image.camera_id
            assert list(frame.image_ids) == [image.data_id]
            rig = database.read_rig(frame.rig_id)
            assert rig.ref_sensor_id.id == image.camera_id


@pytest.mark.parametrize("columns", [2, 4])
def test_keypoints_come_back_exactly(tmp_path: Path, columns: int) -> None:
    write(tmp_path / "database.db", columns=columns)
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        image_ids = ids(database)
        for name, expected in keypoints(columns).items():
            found = database.read_keypoints(image_ids[name])
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found.reshape(-1, columns), expected)


def test_matches_and_geometries_come_back_exactly(tmp_path: Path) -> None:
    write(tmp_path / "database.db")
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        image_ids = ids(database)
        for pair, expected, two_view in pair_rows():
            between = image_ids[pair.a], image_ids[pair.b]
            np.testing.assert_array_equal(
                database.read_matches(*between).reshape(-1, 2), expected.indices
            )
            found = database.read_two_view_geometry(*between)
            if not two_view.inliers.any():
                assert found.config == 0
                continue
            assert found.config == two_view.config
            np.testing.assert_array_equal(found.inlier_matches, expected.indices[two_view.inliers])
            for name in ("E", "F", "H"):
                matrix = getattr(two_view, name)
                if matrix is not None:
                    np.testing.assert_array_equal(getattr(found, name), matrix)
            if two_view.cam1_from_cam0 is not None:
                assert found.cam2_from_cam1 is not None
                pose = found.cam2_from_cam1.matrix()
                np.testing.assert_allclose(pose, two_view.cam1_from_cam0, atol=1e-15)


def test_counts(tmp_path: Path) -> None:
    written = write(tmp_path / "database.db")
    assert asdict(written) == {
        "images": 4,
        "keypoints": 60,
        "matched_pairs": 3,
        "matches": 12,
        "verified_pairs": 2,
        "inliers": 7,
    }
    assert read_counts(tmp_path / "database.db") == written


def test_a_database_without_pairs_or_images(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    assert write_database(path, {}, {}, [], [], {}) == DatabaseCounts()
    assert read_counts(path) == DatabaseCounts()


def test_the_mapper_accepts_it(scene: Scene, tmp_path: Path) -> None:
    scene.write_database(tmp_path / "database.db")
    options = pycolmap.IncrementalPipelineOptions(random_seed=0, extract_colors=False)
    found = pycolmap.incremental_mapping(
        tmp_path / "database.db", tmp_path, tmp_path / "models", options
    )
    assert [model.num_reg_images() for model in found.values()] == [6]
    assert found[0].num_points3D() == 200
    assert found[0].compute_mean_reprojection_error() < 0.01


# --- what it was made from ------------------------------------------------------------------------


def test_info_is_read_back(tmp_path: Path) -> None:
    info = {"fingerprint": "0123", "made by": "Fuß'); DROP TABLE images; --"}
    write(tmp_path / "database #1?.db", info=info)
    assert read_info(tmp_path / "database #1?.db") == info
    with pycolmap.Database.open(tmp_path / "database #1?.db") as database:
        assert database.num_images() == 4


def test_info_of_other_files(tmp_path: Path) -> None:
    assert read_info(tmp_path / "nothing.db") == {}
    assert not (tmp_path / "nothing.db").exists()
    for name, content in (("empty", b""), ("garbage", b"not a database" * 100)):
        (tmp_path / name).write_bytes(content)
        assert read_info(tmp_path / name) == {}
        assert (tmp_path / name).read_bytes() == content
    foreign = tmp_path / "foreign.db"
    pycolmap.Database.open(foreign).close()
    assert read_info(foreign) == {}


def test_the_file_is_complete_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "database.db")
    assert [path.name for path in tmp_path.iterdir()] == ["database.db"]
    connection = sqlite3.connect(tmp_path / "database.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


# --- breaking off ---------------------------------------------------------------------------------


def test_an_error_in_the_middle_leaves_the_old_database(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    write(path, info={"fingerprint": "old"})
    old = path.read_bytes()

    def broken() -> Iterator[tuple[Pair, Matches, TwoView]]:
        yield pair_rows()[0]
        raise LookupError("the shard is damaged")

    with pytest.raises(LookupError, match="the shard is damaged"):
        write_database(path, cameras(), CAMERA_OF, keypoints().items(), broken(), {})
    assert [p.name for p in tmp_path.iterdir()] == ["database.db"]
    assert path.read_bytes() == old
    assert read_info(path) == {"fingerprint": "old"}


def test_a_new_database_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    write(path)
    write_database(path, cameras(), {"z.jpg": 7}, [], [], {"fingerprint": "new"})
    assert read_counts(path) == DatabaseCounts(images=1)
    assert read_info(path) == {"fingerprint": "new"}


KILLED_READER = """
import sys, sfm_match, pycolmap
database = pycolmap.Database.open(sys.argv[1])
database.clear_keypoints()
print("written", flush=True)
sys.stdin.read()
"""


def test_the_log_of_a_killed_program_is_not_applied_to_the_new_database(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    write(path)
    command = [sys.executable, "-c", KILLED_READER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        child.kill()
    assert path.with_name("database.db-wal").stat().st_size > 0
    counts = write(path)
    assert counts.keypoints == 60
    assert read_counts(path) == counts


# --- digests --------------------------------------------------------------------------------------


def test_content_digest_knows_where_parts_end() -> None:
    digests = [content_digest(p) for p in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"c", b"ab"])]
    assert len(set(digests)) == 4
    assert all(len(digest) == 16 for digest in digests)
    assert content_digest(iter([b"ab", b"c"])) == digests[0]
