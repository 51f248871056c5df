"""Images that a database does not have are left out, or added as COLMAP would add them."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pycolmap
import pytest

from sfm_match.geometry.cameras import Cameras
from sfm_match.io.database_access import DatabaseError
from sfm_match.io.database_images import Contents, ImageRow
from sfm_match.stages.database import build_database
from sfm_match.stages.import_into import ImportReport
from sfm_match.stages.import_target import find_target
from tests.colmap_scene import camera
from tests.import_scene import (
    NOTHING,
    SPEC,
    TABLES_OF_IMAGES,
    Made,
    conflicts,
    image_of,
    make_database,
    make_old_database,
    reconstruct,
    rows_of_images,
)
from tests.scenes import database_rows


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
