"""A database of three images that pycolmap writes, and why a file is refused as a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.io.database_access import DatabaseError, transaction
from sfm_match.io.database_images import read_contents

NAMES = ("b.jpg", "ä/Fuß 1.jpg", "写真 'x'.png")


def camera(model: str = "OPENCV") -> pycolmap.Camera:
    made = pycolmap.Camera.create_from_model_name(7, model, 900.0, 1024, 768)
    made.has_prior_focal_length = True
    return made


def keypoints(image_id: int, columns: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(image_id)
    return rng.uniform(0, 700, (5 * (image_id - 1), columns)).astype(np.float32)


def write_with_pycolmap(path: Path, columns: int = 2) -> None:
    """Write a camera, its rig, and three images as frames, the first without keypoints."""
    with pycolmap.Database.open(path) as database:
        made = camera()
        database.write_camera(made, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(made.sensor_id)
        database.write_rig(rig, use_rig_id=True)
        for image_id, name in enumerate(NAMES, start=1):
            image = pycolmap.Image(name=name, camera_id=7, image_id=image_id)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(rig_id=1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame)
            database.write_keypoints(image_id, keypoints(image_id, columns))


def refused(path: Path) -> str:
    with pytest.raises(DatabaseError) as caught, transaction(path) as connection:
        read_contents(connection)
    return str(caught.value)
