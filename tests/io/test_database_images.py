"""Images added to a COLMAP database are the rows that pycolmap writes, and are read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.io.database_access import DatabaseError, transaction
from sfm_match.io.database_images import (
    add_camera,
    add_frame,
    add_image,
    add_keypoints,
    add_rig,
    read_contents,
    read_image_keypoints,
)
from tests.databases import edit
from tests.io.small_database import NAMES, camera, keypoints, refused, write_with_pycolmap
from tests.scenes import database_rows


def write_here(path: Path, columns: int = 2) -> None:
    """Write the same."""
    pycolmap.Database.open(path).close()
    with transaction(path) as connection:
        add_camera(connection, camera())
        rig_id = add_rig(connection, 7)
        for image_id, name in enumerate(NAMES, start=1):
            add_image(connection, name, image_id, 7)
            add_frame(connection, rig_id, image_id, 7)
            add_keypoints(connection, image_id, keypoints(image_id, columns))


@pytest.mark.parametrize("columns", [2, 4])
def test_images_are_written_as_pycolmap_writes_them(tmp_path: Path, columns: int) -> None:
    write_with_pycolmap(tmp_path / "colmap.db", columns)
    write_here(tmp_path / "here.db", columns)
    assert database_rows(tmp_path / "here.db") == database_rows(tmp_path / "colmap.db")


def test_contents_are_read_as_pycolmap_wrote_them(tmp_path: Path) -> None:
    write_with_pycolmap(tmp_path / "colmap.db")
    with pycolmap.Database.open(tmp_path / "colmap.db") as database:
        second = pycolmap.Camera.create_from_model_name(9, "EUCM", 500.0, 640, 480)
        database.write_camera(second, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(camera().sensor_id)
        rig.add_sensor(second.sensor_id, pycolmap.Rigid3d())
        database.update_rig(rig)
        database.write_matches(3, 1, np.zeros((1, 2), np.uint32))
        database.write_matches(1, 2, np.zeros((0, 2), np.uint32))
        descriptors = pycolmap.FeatureDescriptors(
            pycolmap.FeatureExtractorType.SIFT, np.zeros((5, 128), np.uint8)
        )
        database.write_descriptors(2, descriptors)
    with transaction(tmp_path / "colmap.db") as connection:
        contents = read_contents(connection)
        assert read_image_keypoints(connection, 4) is None
        for image_id in (1, 2, 3):
            found = read_image_keypoints(connection, image_id)
            assert found is not None
            assert found.tolist() == keypoints(image_id, 2).tolist()
    assert {i: repr(c.todict()) for i, c in contents.cameras.items()} == {
        7: repr(camera().todict()),
        9: repr(second.todict()),
    }
    assert {n: (r.image_id, r.camera_id) for n, r in contents.images.items()} == {
        name: (i, 7) for i, name in enumerate(NAMES, start=1)
    }
    assert {i: (r.rig_id, r.num_sensors) for i, r in contents.rigs.items()} == {
        7: (1, 2),
        9: (1, 2),
    }
    assert contents.has_rig_tables
    assert contents.has_frames
    assert contents.matched == {1, 3}
    assert contents.described == {2}


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE cameras SET model = 99", "camera 7 is of model 99, which pycolmap does not know"),
        ("UPDATE cameras SET params = x'00'", "are damaged"),
        ("UPDATE cameras SET params = zeroblob(16)", "camera 7 has 2 parameters, but those of OPE"),
        ("DELETE FROM cameras", "the camera of image b.jpg, id 7, is not there"),
    ],
)
def test_contents_that_are_wrong(tmp_path: Path, statement: str, message: str) -> None:
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    edit(path, statement)
    assert message in refused(path)


def test_arrays_that_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    edit(path, "UPDATE keypoints SET data = substr(data, 1, 8) WHERE image_id = 2")
    with (
        pytest.raises(DatabaseError, match=r"image 2 are damaged: 5 x 2 values, of which 2 are"),
        transaction(path) as connection,
    ):
        read_image_keypoints(connection, 2)
