"""The `.camera` files of Strecha's multi-view data set: read and written.

Strecha, von Hansen, Van Gool, Fua, Thoennessen: "On Benchmarking Camera Calibration and Multi-View
Stereo for High Resolution Imagery", CVPR 2008. The image `0000.jpg` has the file
`0000.jpg.camera` of 29 numbers in nine lines:

    K, 3 x 3 by rows
    three numbers, of radial distortion: always zero, the images are undistorted
    R, 3 x 3 by rows
    the camera's centre C in the world
    width and height of the image

A column of R is an axis of the camera in the world's frame: R takes directions of the camera to the
world, so that a point X of the world is at R^T (X - C) in the camera, x to the right, y down, z
forward. (The data set's `.P` files, P = K [R^T | -R^T C], say the same.)

The files do not say where a pixel's centre is. K is taken as is usual where its users work in
MATLAB or OpenCV, with the centre of the first pixel at (0, 0), and half a pixel is added to its
principal point on reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.io.model import ModelError
from sfm_match.types import ArrayF64

_LENGTHS = (3, 3, 3, 3, 3, 3, 3, 3, 2)
_FORM = "K (3 lines), 0 0 0, R (3 lines), the centre, and width and height"
# How far a rotation in a file may be from one: they have six digits.
_MAX_SKEW = 1e-3


@dataclass(frozen=True, eq=False, slots=True)
class StrechaCamera:
    """What a file says.

    Attributes:
        camera: PINHOLE, in pixels with their origin at the corner.
        cam_from_world: float64 (3, 4); the rotation is exactly one.
    """

    camera: pycolmap.Camera
    cam_from_world: ArrayF64


def read_strecha_camera(path: Path) -> StrechaCamera:
    """Read a file.

    Raises:
        ModelError: it is not of the form, K has a skew, or there is a distortion; the message says
            which line and what is wrong.
        OSError: it cannot be opened.
    """
    lines = [line.split() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    if [len(line) for line in lines] != list(_LENGTHS):
        raise ModelError(f"{path}: expected {_FORM}, got {len(lines)} lines")
    try:
        rows = [[float(word) for word in line] for line in lines]
    except ValueError as error:
        raise ModelError(f"{path}: expected {_FORM}: {error}") from None
    K, R, centre = np.array(rows[:3]), np.array(rows[4:7]), np.array(rows[7])
    if any(rows[3]):
        raise ModelError(f"{path}, line 4: has a distortion, {' '.join(lines[3])}; undistort first")
    if K[0, 0] <= 0 or K[1, 1] <= 0 or K[0, 1] or K[1, 0] or (K[2] != (0, 0, 1)).any():
        raise ModelError(f"{path}: K must be fx 0 cx, 0 fy cy, 0 0 1 with positive fx and fy")
    width, height = rows[8]
    if not (width.is_integer() and height.is_integer() and min(width, height) > 0):
        raise ModelError(f"{path}: the last line must be width and height of the image")
    u, singular, vt = np.linalg.svd(R)
    if not np.isfinite(centre).all() or np.abs(singular - 1).max() > _MAX_SKEW:
        raise ModelError(f"{path}: R is not a rotation, or the centre is not finite")
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        raise ModelError(f"{path}: R is a reflection, not a rotation")
    rotation = (u @ vt).T
    camera = pycolmap.Camera(
        model="PINHOLE",
        width=int(width),
        height=int(height),
        params=[K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5],
    )
    return StrechaCamera(camera, np.column_stack([rotation, -rotation @ centre]))


def write_strecha_camera(path: Path, found: StrechaCamera) -> None:
    """Write a file, with all digits; the camera must be a pinhole."""
    camera, pose = found.camera, found.cam_from_world
    fx, fy, cx, cy = camera.params
    centre = -pose[:, :3].T @ pose[:, 3]
    rows = [
        [fx, 0, cx - 0.5],
        [0, fy, cy - 0.5],
        [0, 0, 1],
        [0, 0, 0],
        *pose[:, :3].T.tolist(),
        centre.tolist(),
        [camera.width, camera.height],
    ]
    path.write_text("".join(" ".join(f"{v:.17g}" for v in row) + "\n" for row in rows))
