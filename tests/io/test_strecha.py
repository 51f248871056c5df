from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.io.model import ModelError
from sfm_match.io.strecha import StrechaCamera, read_strecha_camera, write_strecha_camera

# A camera at (5, 6, 7) that looks along the world's x-axis; its own x-axis is the world's -y.
FILE = """100 0 49.5
0 110 39.5
0 0 1
0 0 0
0 0 1
-1 0 0
0 -1 0
5 6 7
100 80
"""


def test_a_point_is_seen_where_it_must_be(tmp_path: Path) -> None:
    path = tmp_path / "0000.jpg.camera"
    path.write_text(FILE)
    found = read_strecha_camera(path)
    assert (found.camera.width, found.camera.height) == (100, 80)
    # 2 m ahead, 1 m to the right (-y) and 0.5 m down (-z).
    point = found.cam_from_world[:, :3] @ [7, 5, 6.5] + found.cam_from_world[:, 3]
    np.testing.assert_allclose(point, [1, 0.5, 2], atol=1e-12)
    # K's 49.5 is the middle of the pixel 49.5 + 0.5 = 50 from the corner.
    pixel = found.camera.img_from_cam(np.asarray(point))
    assert pixel is not None
    assert pixel.ravel().tolist() == pytest.approx([50 + 100 / 2, 40 + 110 / 4])


def test_the_real_cameras_are_those_of_the_true_model(tmp_path: Path, test_data: Path) -> None:
    truth = json.loads((test_data / "fountain-P11" / "ground_truth.json").read_text())
    model = pycolmap.Reconstruction(test_data / "fountain-P11" / "gt")
    assert len(truth) == 11
    for name, camera in truth.items():
        K, R, t = (np.array(camera[key]) for key in ("K", "R", "t"))
        rows = [*K, [0, 0, 0], *R.T, -R.T @ t, camera["size"]]
        path = tmp_path / f"{name}.camera"
        path.write_text("\n".join(" ".join(map(repr, map(float, row))) for row in rows))
        found, true = read_strecha_camera(path), model.find_image_with_name(name)
        assert true is not None
        assert true.camera is not None
        # The files have six digits of R, and the nearest rotation is taken on either side.
        np.testing.assert_allclose(
            found.cam_from_world, true.cam_from_world().matrix(), atol=2e-5, err_msg=name
        )
        np.testing.assert_allclose(found.camera.params, true.camera.params, atol=1e-9)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.column_stack([q * np.sign(np.linalg.det(q)), rng.normal(size=3)])
    camera = pycolmap.Camera(model="PINHOLE", width=640, height=480, params=[500, 510, 320.25, 241])
    write_strecha_camera(tmp_path / "a.camera", StrechaCamera(camera, pose))
    found = read_strecha_camera(tmp_path / "a.camera")
    np.testing.assert_allclose(found.cam_from_world, pose, atol=1e-14)
    np.testing.assert_allclose(found.camera.params, camera.params, atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("5 6 7\n", "", "expected K .3 lines., .* got 8 lines"),
        ("5 6 7", "5 six 7", "could not convert string to float: 'six'"),
        ("0 0 0\n", "0.1 0 0\n", "line 4: has a distortion, 0.1 0 0"),
        ("100 0 49.5", "100 2 49.5", "K must be fx 0 cx"),
        ("-1 0 0", "-1.1 0 0", "R is not a rotation"),
        ("-1 0 0", "1 0 0", "R is a reflection"),
        ("100 80", "100 80.5", "width and height"),
    ],
)
def test_wrong_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    path = tmp_path / "0000.jpg.camera"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(ModelError, match=f"0000.jpg.camera.*{message}"):
        read_strecha_camera(path)
