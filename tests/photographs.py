"""The photographs of fountain-P11, and how far matches are from its truth."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.geometry.epipolar import essential_from_pose, squared_sampson_distance
from sfm_match.geometry.poses import relative_pose
from sfm_match.io.images import read_image
from sfm_match.io.model import read_model
from sfm_match.types import Correspondences, Image


@cache
def fountain(folder: Path, *numbers: int) -> list[Image]:
    """Return some of the photographs, 1024 x 683."""
    return [read_image(folder / "images" / f"{number:04d}.jpg").pixels for number in numbers]


def sampson_pixels(folder: Path, found: Correspondences, a: int, b: int) -> np.ndarray[Any, Any]:
    """Return the distances (M,) of matches between images from the true epipolar geometry."""
    model = read_model(folder / "gt")
    images = {image.name: image for image in model.images.values()}
    first, second = (images[f"{number:04d}.jpg"] for number in (a, b))
    pose = relative_pose(first.cam_from_world().matrix(), second.cam_from_world().matrix())
    cameras = [model.cameras[image.camera_id] for image in (first, second)]
    rays = [
        np.asarray(camera.cam_from_img(points.astype(np.float64)))
        for camera, points in zip(cameras, (found.points0, found.points1), strict=True)
    ]
    squared = squared_sampson_distance(rays[0], rays[1], essential_from_pose(pose))
    return np.sqrt(squared) * cameras[0].mean_focal_length()
