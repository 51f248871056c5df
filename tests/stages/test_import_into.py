"""A database that somebody else made: never overwritten, and after a failure as it was."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.geometry.cameras import Cameras
from sfm_match.io.database_access import DatabaseError
from sfm_match.io.database_images import Contents, ImageRow
from sfm_match.stages import import_into as stage
from sfm_match.stages.database import build_database
from sfm_match.stages.import_into import ConflictError, ImportReport
from sfm_match.stages.import_target import find_target
from sfm_match.stages.verify import VerifyReport, verify
from sfm_match.types import ArrayF64, Matches, Pair, TwoViewConfig
from tests.colmap_scene import Scene, camera
from tests.import_scene import (
    SPEC,
    TABLES_OF_IMAGES,
    Made,
    execute,
    make_database,
    make_old_database,
    reconstruct,
    store_scene,
)
from tests.scenes import database_rows

NOTHING = ImportReport(found=6, missing=[])
ALL = ImportReport(found=6, missing=[], keypoints=6, matched_pairs=15, verified_pairs=15)


@pytest.fixture(scope="module")
def stored(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The stores of the scene; a test may only add to them."""
    return store_scene(scene, tmp_path_factory.mktemp("stores"))


@pytest.fixture
def path(scene: Scene, tmp_path: Path) -> Path:
    """A database of the scene's images, without features."""
    make_database(tmp_path / "user.db", scene.names)
    return tmp_path / "user.db"


def rows_of_images(path: Path) -> dict[str, list[str]]:
    rows = database_rows(path)
    return {table: rows[table] for table in TABLES_OF_IMAGES}


def image_of(database: pycolmap.Database, name: str) -> pycolmap.Image:
    found = database.read_image_with_name(name)
    assert found is not None, name
    return found


def assert_close(found: ArrayF64 | None, expected: ArrayF64 | None) -> None:
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found, expected, atol=1e-12)


def conflicts(made: Made, path: Path, *, add_images: bool = False) -> tuple[str, ...]:
    """Return why a database is left as it is, which it is to the last byte."""
    before = path.read_bytes()
    with pytest.raises(ConflictError) as caught:
        made.import_into(path, add_images=add_images)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.glob("user.db*")] == ["user.db"]
    message = str(caught.value)
    assert message.startswith(f"{path}: nothing was changed")
    assert [line.strip() for line in message.splitlines()[1:]] == list(caught.value.conflicts)
    return caught.value.conflicts


# --- what goes in ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_second_import_changes_nothing(stored: Made, path: Path, journal: str) -> None:
    execute(path, f"PRAGMA journal_mode = {journal}")
    stored.import_into(path)
    before = path.read_bytes()
    assert stored.import_into(path) == NOTHING
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["user.db"]


def test_what_is_there_in_part_is_completed(stored: Made, path: Path) -> None:
    stored.import_into(path)
    expected = database_rows(path)
    execute(
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


# --- images that are not there --------------------------------------------------------------------


def test_missing_images_are_left_out(stored: Made, path: Path) -> None:
    names = stored.scene.names
    path.unlink()
    make_database(path, names[:4])
    before = rows_of_images(path)
    report = stored.import_into(path)
    assert report == ImportReport(4, names[4:], keypoints=4, matched_pairs=6, verified_pairs=6)
    assert rows_of_images(path) == before


def test_added_images_share_the_camera_of_their_like(
    stored: Made, path: Path, tmp_path: Path
) -> None:
    names = stored.scene.names
    path.unlink()
    make_database(path, names[:4])
    stored.import_into(path)  # and the rest later
    report = stored.import_into(path, add_images=True)
    assert report == ImportReport(4, [], 0, 2, 0, keypoints=2, matched_pairs=9, verified_pairs=9)
    with pycolmap.Database.open(path) as database:
        assert database.num_cameras() == database.num_rigs() == 1
        added = [image_of(database, name) for name in names[4:]]
        assert [image.image_id for image in added] == [41, 42]
        assert {image.camera_id for image in added} == {5}
        for image in added:
            frame = database.read_frame(image.frame_id)
            assert frame.rig_id == 105
            assert list(frame.image_ids) == [image.data_id]
    assert stored.import_into(path, add_images=True) == NOTHING
    assert reconstruct(path, tmp_path / "models").num_reg_images() == 6


def test_added_images_without_their_like_bring_their_camera(
    stored: Made, path: Path, tmp_path: Path
) -> None:
    names, scene = stored.scene.names, stored.scene
    path.unlink()
    make_database(path, names[:4], cameras=dict(zip(names, (5, 5, 6, 6), strict=False)))
    report = stored.import_into(path, add_images=True)
    assert (report.images, report.cameras, report.verified_again) == (2, 1, 0)
    with pycolmap.Database.open(path) as database:
        assert [c.camera_id for c in database.read_all_cameras()] == [5, 6, 7]
        new, own = database.read_camera(7), scene.cameras[names[4]]
        assert (new.model, list(new.params)) == (own.model, list(own.params))
        assert new.has_prior_focal_length
        assert [r.ref_sensor_id.id for r in database.read_all_rigs()] == [5, 6, 7]
        assert {image_of(database, n).camera_id for n in names[4:]} == {7}
    assert own.camera_id == 1  # the run's camera is what it was
    assert stored.import_into(path, add_images=True) == NOTHING
    assert reconstruct(path, tmp_path / "models").num_reg_images() == 6


def test_an_empty_database_gets_everything(stored: Made, path: Path, tmp_path: Path) -> None:
    path.unlink()
    make_database(path, [])
    with pytest.raises(DatabaseError, match=r"has none of the 6 images, such as .*no image at all"):
        stored.import_into(path)
    report = stored.import_into(path, add_images=True)
    assert report == ImportReport(0, [], 0, 6, 1, 6, 15, 15)
    whole = tmp_path / "whole.db"
    build_database(
        whole,
        stored.scene.digests,
        stored.pairs,
        stored.scene.cameras,
        SPEC,
        stored.features,
        stored.matches,
        stored.two_views,
    )
    ours, theirs = database_rows(path), database_rows(whole)
    for table in (*TABLES_OF_IMAGES, "keypoints", "matches", "two_view_geometries"):
        assert ours[table] == theirs[table], table


def test_images_get_no_frames_where_the_others_have_none(
    stored: Made, path: Path, tmp_path: Path
) -> None:
    path.unlink()
    make_database(path, stored.scene.names[:4], frames=False)
    assert stored.import_into(path, add_images=True).images == 2
    rows = database_rows(path)
    assert rows["rigs"] == rows["frames"] == rows["frame_data"] == []
    assert reconstruct(path, tmp_path / "models").num_reg_images() == 6


def test_an_image_is_not_added_to_a_rig_of_several_cameras(stored: Made, path: Path) -> None:
    names = stored.scene.names
    path.unlink()
    make_database(path, names[:4])
    with pycolmap.Database.open(path) as database:
        second = camera(6)
        database.write_camera(second, use_camera_id=True)
        rig = database.read_rig(105)
        rig.add_sensor(second.sensor_id, pycolmap.Rigid3d())
        database.update_rig(rig)
    found = conflicts(stored, path, add_images=True)
    assert [line.split(":")[0] for line in found] == names[4:]
    assert "its camera (id 5) is one of 2 of rig 105" in found[0]
    assert stored.import_into(path).missing == names[4:]


# --- refusals -------------------------------------------------------------------------------------


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
    first, last = sorted(names)[0], sorted(names)[-1]
    execute(
        path,
        f"UPDATE images SET camera_id = 6 WHERE image_id = {a}",
        f"DELETE FROM keypoints WHERE image_id = {b}",
        f"UPDATE keypoints SET rows = 1, data = zeroblob(8) WHERE image_id = {c}",
        f"UPDATE images SET name = '{last.upper()}' WHERE name = '{last}'",
        f"UPDATE matches SET rows = 1, data = zeroblob(8) WHERE pair_id % 2147483647 = {a}"
        f" AND pair_id / 2147483647 = {d}",
        f"UPDATE two_view_geometries SET config = 6 WHERE pair_id % 2147483647 = {c}"
        f" AND pair_id / 2147483647 = {d}",
    )
    num = {name: len(points) for name, points in stored.scene.keypoints.items()}
    matched = len(stored.scene.matches[Pair(names[0], names[3])])
    inliers = stored.verified(stored.scene.cameras)[Pair(names[2], names[3])].num_inliers
    assert first == names[0]
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
    execute(path, "UPDATE cameras SET prior_focal_length = 0")
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


@pytest.mark.parametrize(
    "other", ["photos/{}", "/data/photos/{}", "./{}", "{upper}", "photos\\{}", "./photos/{upper}"]
)
def test_names_in_another_form(stored: Made, path: Path, other: str) -> None:
    names = stored.scene.names
    renamed = [other.format(name, upper=name.upper()) for name in names]
    path.unlink()
    make_database(path, renamed)
    for add_images in (False, True):
        found = conflicts(stored, path, add_images=add_images)
        assert [line.split(";")[0] for line in found] == [
            f"{name}: seems to be {form} in the database"
            for name, form in zip(names, renamed, strict=True)
        ]


@pytest.mark.parametrize(
    ("own", "there", "seems"),
    [
        (["ä/1.jpg"], ["a\u0308/1.jpg"], ["ä/1.jpg"]),  # composed, decomposed
        (["x/cam0/1.jpg", "cam0/2.jpg"], ["cam0/1.jpg"], ["x/cam0/1.jpg"]),
        (["cam1/1.jpg"], ["cam0/1.jpg"], []),  # another image of the same name
        (["1.jpg", "cam0/1.jpg"], ["cam0/1.jpg"], []),  # that one is found by its own name
        (["b1.jpg"], ["1.jpg"], []),
    ],
)
def test_which_names_are_forms_of_another(
    own: list[str], there: list[str], seems: list[str]
) -> None:
    contents = Contents(
        cameras={1: camera()},
        images={name: ImageRow(i, 1) for i, name in enumerate(there, start=1)},
        rigs={},
        has_rig_tables=True,
        has_frames=False,
        matched=frozenset(),
        described=frozenset(),
    )
    target = find_target(contents, Cameras({1: camera()}, dict.fromkeys(own, 1), False), True)
    assert [line.split(":")[0] for line in target.conflicts] == seems


def test_a_database_of_other_images(stored: Made, path: Path) -> None:
    path.unlink()
    make_database(path, ["x.jpg", "y.jpg"])
    with pytest.raises(DatabaseError, match=r"has none of the 6 images.*such as 'x\.jpg'.*added"):
        stored.import_into(path)
    assert stored.import_into(path, add_images=True).images == 6


# --- older databases ------------------------------------------------------------------------------


def test_an_older_database_stays_one(
    stored: Made, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = stored.scene.names
    path.unlink()
    make_old_database(path, names[:5])
    schema = tables(path)
    with caplog.at_level(logging.WARNING, "sfm_match"):
        assert stored.import_into(path, add_images=True).images == 1
    assert "COLMAP before 3.12, without rigs and frames" in caplog.text
    assert tables(path) == schema
    assert stored.import_into(path) == NOTHING
    model = reconstruct(path, tmp_path / "models")  # which converts it
    assert tables(path) != schema
    assert (model.num_reg_images(), model.num_points3D()) == (6, 200)


def tables(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT sql FROM sqlite_master ORDER BY sql").fetchall()
    connection.close()
    return [str(sql) for (sql,) in found]


# --- breaking off ---------------------------------------------------------------------------------


def test_a_database_that_changes_meanwhile(
    stored: Made, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify_while_others_write(*arguments: Any, **options: Any) -> VerifyReport:
        execute(path, "UPDATE cameras SET params = zeroblob(32)")
        return verify(*arguments, **options)

    monkeypatch.setattr(stage, "verify", verify_while_others_write)
    with pytest.raises(DatabaseError, match="changed by another program meanwhile; import again"):
        stored.import_into(path)
    assert database_rows(path)["keypoints"] == []


def test_ctrl_c_leaves_the_database_as_it_was(
    stored: Made, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "add_two_view", stop)
    with pytest.raises(KeyboardInterrupt):
        stored.import_into(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["user.db"]


@pytest.mark.parametrize(
    ("journal", "stride"),
    [
        ("wal", 60),
        ("delete", 60),
        pytest.param("wal", 1, marks=pytest.mark.slow),
        pytest.param("delete", 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_statement_leaves_the_database_as_it_was(
    stored: Made, path: Path, journal: str, stride: int
) -> None:
    execute(path, f"PRAGMA journal_mode = {journal}")
    stores = stored.features.folder.parent
    command = [sys.executable, "-m", "tests.kill_import", str(stores), str(path), str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * stride > 2 * (6 + 15 + 15)  # as many as there are statements
