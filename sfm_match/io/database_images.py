"""Cameras, rigs, images and keypoints of a COLMAP database: its rows, read and added.

The tables are those of COLMAP's documentation (https://colmap.github.io/database.html); arrays are
little-endian blobs in C order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pycolmap

from sfm_match.io.database_access import (
    Connection,
    ContentError,
    array_of,
    has_rig_tables,
    ids_of_pair,
    shape_and_blob,
    values_of,
)
from sfm_match.types import ArrayF32

_CAMERA = 0  # the type of sensor


@dataclass(frozen=True)
class ImageRow:
    """An image of a database: its id and its camera's."""

    image_id: int
    camera_id: int


@dataclass(frozen=True)
class RigRow:
    """A rig of a database: its id and its number of sensors."""

    rig_id: int
    num_sensors: int


@dataclass(frozen=True)
class Contents:
    """What a database says of its images.

    Attributes:
        cameras: by their id.
        images: by their name.
        rigs: by the id of a camera in them.
        has_rig_tables: whether its schema has rigs and frames (COLMAP 3.12 and later).
        has_frames: whether there is a frame.
        matched: ids of the images of pairs with matches or inliers.
        described: ids of the images with descriptors.
    """

    cameras: Mapping[int, pycolmap.Camera]
    images: Mapping[str, ImageRow]
    rigs: Mapping[int, RigRow]
    has_rig_tables: bool
    has_frames: bool
    matched: frozenset[int]
    described: frozenset[int]


def read_contents(connection: Connection) -> Contents:
    """Read the images, cameras and rigs of a database.

    Raises:
        ContentError: a camera is of an unknown model or has a wrong number of parameters.
    """
    cameras = connection.execute(
        "SELECT camera_id, model, width, height, params, prior_focal_length FROM cameras"
    )
    images = connection.execute("SELECT name, image_id, camera_id FROM images")
    pairs = connection.execute(
        "SELECT pair_id FROM matches WHERE rows > 0 "
        "UNION SELECT pair_id FROM two_view_geometries WHERE rows > 0"
    )
    described = connection.execute("SELECT image_id FROM descriptors WHERE rows > 0")
    with_rigs = has_rig_tables(connection)
    frame = connection.execute("SELECT 1 FROM frames LIMIT 1").fetchone() if with_rigs else None
    of_id = {row[0]: camera_of_row(*row) for row in cameras}
    of_name = {str(name): ImageRow(image_id, camera) for name, image_id, camera in images}
    for name, row in of_name.items():
        if row.camera_id not in of_id:
            raise ContentError(f"the camera of image {name}, id {row.camera_id}, is not there")
    return Contents(
        cameras=of_id,
        images=of_name,
        rigs=_read_rigs(connection) if with_rigs else {},
        has_rig_tables=with_rigs,
        has_frames=frame is not None,
        matched=frozenset(image for (pair,) in pairs for image in ids_of_pair(pair)),
        described=frozenset(image_id for (image_id,) in described),
    )


def camera_of_row(
    camera_id: int, model: int, width: int, height: int, params: bytes | None, prior: int
) -> pycolmap.Camera:
    """Return the camera of a row of the table `cameras`.

    Raises:
        ContentError: it is of an unknown model or has a wrong number of parameters.
    """
    names = {int(value): name for name, value in pycolmap.CameraModelId.__members__.items()}
    if names.get(model, "INVALID") == "INVALID":
        raise ContentError(f"camera {camera_id} is of model {model}, which pycolmap does not know")
    camera = pycolmap.Camera(
        camera_id=camera_id,
        model=names[model],
        width=width,
        height=height,
        params=values_of(params, "<f8", f"the parameters of camera {camera_id}").tolist(),
    )
    if not camera.verify_params():
        raise ContentError(
            f"camera {camera_id} has {len(camera.params)} parameters, "
            f"but those of {names[model]} are {camera.params_info}"
        )
    camera.has_prior_focal_length = bool(prior)
    return camera


def _read_rigs(connection: Connection) -> dict[int, RigRow]:
    sensors = connection.execute(
        "SELECT rig_id, ref_sensor_id, ref_sensor_type FROM rigs "
        "UNION ALL SELECT rig_id, sensor_id, sensor_type FROM rig_sensors"
    ).fetchall()
    num_sensors = Counter(rig_id for rig_id, _, _ in sensors)
    return {
        sensor_id: RigRow(rig_id, num_sensors[rig_id])
        for rig_id, sensor_id, sensor_type in sensors
        if sensor_type == _CAMERA
    }


def read_image_keypoints(connection: Connection, image_id: int) -> ArrayF32 | None:
    """Return the keypoints of an image, float32 (N, columns), or None where it has no row.

    Raises:
        ContentError: the row is damaged.
    """
    found = connection.execute(
        "SELECT rows, cols, data FROM keypoints WHERE image_id = ?", (image_id,)
    ).fetchone()
    return None if found is None else array_of(found, "<f4", f"the keypoints of image {image_id}")


def add_camera(connection: Connection, camera: pycolmap.Camera) -> None:
    """Add a camera under its id."""
    connection.execute(
        "INSERT INTO cameras (camera_id, model, width, height, params, prior_focal_length) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            camera.camera_id,
            int(camera.model),
            camera.width,
            camera.height,
            np.asarray(camera.params, "<f8").tobytes(),
            int(camera.has_prior_focal_length),
        ),
    )


def add_rig(connection: Connection, camera_id: int) -> int:
    """Add the rig of a single camera; return its id."""
    rig_id = connection.execute(
        "INSERT INTO rigs (ref_sensor_id, ref_sensor_type) VALUES (?, ?)", (camera_id, _CAMERA)
    ).lastrowid
    assert rig_id is not None
    return rig_id


def add_image(connection: Connection, name: str, image_id: int, camera_id: int) -> None:
    """Add an image under an id."""
    connection.execute(
        "INSERT INTO images (image_id, name, camera_id) VALUES (?, ?, ?)",
        (image_id, name, camera_id),
    )


def add_frame(connection: Connection, rig_id: int, image_id: int, camera_id: int) -> None:
    """Add a frame of a rig with a single image."""
    frame_id = connection.execute("INSERT INTO frames (rig_id) VALUES (?)", (rig_id,)).lastrowid
    connection.execute(
        "INSERT INTO frame_data (frame_id, data_id, sensor_id, sensor_type) VALUES (?, ?, ?, ?)",
        (frame_id, image_id, camera_id, _CAMERA),
    )


def add_keypoints(connection: Connection, image_id: int, points: ArrayF32) -> None:
    """Add the keypoints (N, columns) of an image."""
    connection.execute(
        "INSERT INTO keypoints (image_id, rows, cols, data) VALUES (?, ?, ?, ?)",
        (image_id, *shape_and_blob(points, "<f4")),
    )
