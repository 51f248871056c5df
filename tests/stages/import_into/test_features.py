"""Features, matches and geometries go into a database of somebody else; what it holds stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.geometry.cameras import Cameras
from sfm_match.stages.import_into import ImportReport
from sfm_match.types import ArrayF64, Matches, Pair, TwoViewConfig
from tests.colmap_scene import Scene, camera
from tests.databases import edit
from tests.import_scene import (
    ALL,
    NOTHING,
    TABLES_OF_IMAGES,
    Made,
    image_of,
    make_database,
    reconstruct,
    rows_of_images,
    store_scene,
)
from tests.scenes import database_rows


def test_features_go_in_and_colmap_goes_on(stored: Made, path: Path, tmp_path: Path) -> None:
    before, scene = rows_of_images(path), stored.scene
    assert stored.import_into(path) == ALL
    assert rows_of_images(path) == before
    with pycolmap.Database.open(path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        assert ids == {name: 40 - i for i, name in enumerate(scene.names)}
        for name, expected in scene.keypoints.items():
            np.testing.assert_array_equal(database.read_keypoints(ids[name]), expected)
        for pair, two_view in stored.verified(scene.cameras).items():
            between, found = (ids[pair.a], ids[pair.b]), scene.matches[pair]
            np.testing.assert_array_equal(database.read_matches(*between), found.indices)
            geometry = database.read_two_view_geometry(*between)
            assert geometry.config == two_view.config == TwoViewConfig.CALIBRATED
            np.testing.assert_array_equal(geometry.inlier_matches, found.indices[two_view.inliers])
            assert geometry.cam2_from_cam1 is not None
            assert_close(geometry.E, two_view.E)
            assert_close(geometry.cam2_from_cam1.matrix(), two_view.cam1_from_cam0)
    model = reconstruct(path, tmp_path / "models")
    assert model.num_reg_images() == 6
    assert model.num_points3D() == 200
    assert list(model.rigs) == [105]


def assert_close(found: ArrayF64 | None, expected: ArrayF64 | None) -> None:
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_second_import_changes_nothing(stored: Made, path: Path, journal: str) -> None:
    edit(path, f"PRAGMA journal_mode = {journal}")
    stored.import_into(path)
    before = path.read_bytes()
    assert stored.import_into(path) == NOTHING
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["user.db"]


def test_what_is_there_in_part_is_completed(stored: Made, path: Path) -> None:
    stored.import_into(path)
    expected = database_rows(path)
    edit(
        path,
        "DELETE FROM two_view_geometries WHERE pair_id % 2 = 0",
        "DELETE FROM matches WHERE pair_id % 3 = 0",
    )
    report = stored.import_into(path)
    assert report.keypoints == 0
    assert 0 < report.matched_pairs < 15
    assert 0 < report.verified_pairs < 15
    assert database_rows(path) == expected


def test_other_content_of_the_database_stays(stored: Made, path: Path) -> None:
    more = [*stored.scene.names, "more/1.jpg", "more/2.jpg"]
    path.unlink()
    make_database(path, more)
    with pycolmap.Database.open(path) as database:
        ids = [image_of(database, name).image_id for name in more[-2:]]
        for image_id in ids:
            database.write_keypoints(image_id, np.ones((3, 6), np.float32))
        database.write_matches(ids[0], ids[1], np.array([[0, 1]], np.uint32))
        prior = pycolmap.PosePrior(position=np.ones(3))
        prior.corr_data_id = image_of(database, more[0]).data_id
        database.write_pose_prior(prior)
    before = database_rows(path)
    assert stored.import_into(path) == ALL
    after = database_rows(path)
    for table, rows in before.items():
        assert set(rows) <= set(after[table]), table
    for table in (*TABLES_OF_IMAGES, "pose_priors", "descriptors"):
        assert after[table] == before[table]


def test_pairs_are_verified_with_the_cameras_of_the_database(
    scene: Scene, path: Path, tmp_path: Path
) -> None:
    made = store_scene(scene, tmp_path / "stores")
    path.unlink()
    theirs = camera(5, prior=False, focal=750.0)
    make_database(path, scene.names, made=theirs)
    assert made.import_into(path) == replace(ALL, verified_again=15)
    cameras = Cameras({5: theirs}, dict.fromkeys(scene.names, 5), False)
    expected = made.verified(cameras)
    with pycolmap.Database.open(path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        for pair, two_view in expected.items():
            geometry = database.read_two_view_geometry(ids[pair.a], ids[pair.b])
            assert geometry.config == two_view.config == TwoViewConfig.UNCALIBRATED
            assert_close(geometry.F, two_view.F)
    # The store keeps both, so nothing is verified a second time.
    assert made.import_into(path) == NOTHING
    assert {t.config for t in made.verified(scene.cameras).values()} == {TwoViewConfig.CALIBRATED}


def test_a_pair_without_matches_gets_no_rows(stored: Made, path: Path, tmp_path: Path) -> None:
    nothing = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    fewer = stored.with_matches(
        tmp_path / "fewer", lambda p, m: nothing if p == stored.pairs[0] else m
    )
    assert fewer.import_into(path) == replace(ALL, matched_pairs=14, verified_pairs=14)
    assert fewer.import_into(path) == NOTHING
    # What COLMAP leaves of such a pair is nothing more.
    pycolmap.geometric_verification(path)
    with pycolmap.Database.open(path) as database:
        assert database.num_verified_image_pairs() == 14
    assert fewer.import_into(path) == NOTHING


def test_a_rig_is_kept_and_mapped_as_one(tmp_path: Path) -> None:
    """Images, rig and frames are COLMAP's; the features of both come from somewhere else."""
    pycolmap.set_random_seed(1)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1, num_cameras_per_rig=2, num_frames_per_rig=4, num_points3D=150
    )
    path = tmp_path / "user.db"
    with pycolmap.Database.open(path) as database:
        truth = pycolmap.synthesize_dataset(options, database)
        images = {image.name: image for image in database.read_all_images()}
        keypoints = {n: database.read_keypoints(i.image_id) for n, i in images.items()}
        pairs = [Pair.of(a, b) for a in images for b in images if a < b]
        matches = {
            pair: database.read_matches(images[pair.a].image_id, images[pair.b].image_id)
            for pair in pairs
        }
        database.clear_two_view_geometries()
        database.clear_matches()
        database.clear_keypoints()
        database.clear_descriptors()
        cameras = {c.camera_id: c for c in database.read_all_cameras()}
    of_image = {name: image.camera_id for name, image in images.items()}
    scene = Scene(
        truth,
        Cameras(cameras, of_image, False),
        {name: points[:, :2].copy() for name, points in keypoints.items()},
        {p: Matches(m.astype(np.int32), np.ones(len(m), np.float32)) for p, m in matches.items()},
    )
    made = store_scene(replace(scene, cameras=_of_other_intrinsics(scene.cameras)), tmp_path / "s")
    before = rows_of_images(path)
    assert len(before["rig_sensors"]) == 1
    report = made.import_into(path)
    assert report == ImportReport(8, [], 28, 0, 0, 8, 28, 28)
    assert rows_of_images(path) == before
    model = reconstruct(path, tmp_path / "models")
    assert (model.num_reg_images(), model.num_frames(), model.num_rigs()) == (8, 4, 1)
    assert model.num_points3D() == 150
    for frame in model.frames.values():
        assert len(list(frame.image_ids)) == 2


def _of_other_intrinsics(cameras: Cameras) -> Cameras:
    """Return cameras of the same sizes, as a run on the images alone would guess them."""
    guessed = {
        camera_id: pycolmap.Camera.create_from_model_name(
            camera_id, "SIMPLE_RADIAL", 1.2 * made.width, made.width, made.height
        )
        for camera_id, made in cameras.cameras.items()
    }
    return Cameras(guessed, cameras.of_image, False)
