"""The reprojection errors of a model, observation by observation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.types import ArrayF64


@dataclass(frozen=True, eq=False)
class Observations:
    """The keypoints of an image that see a 3D point, and the others.

    Attributes:
        keypoints: float64 (N, 2), all of the image, in pixels of its file raster.
        errors: float64 (N,), in pixels: the distance to the projected 3D point; NaN where the
            keypoint sees none.
    """

    keypoints: ArrayF64
    errors: ArrayF64

    @property
    def found(self) -> ArrayF64:
        """The errors of the keypoints that see a 3D point."""
        return self.errors[~np.isnan(self.errors)]


def observations_of(model: pycolmap.Reconstruction) -> dict[str, Observations]:
    """Return the observations of the registered images, by name.

    A point that lies behind its camera has an infinite error.
    """
    ids = np.array(sorted(model.points3D), np.uint64)
    xyz = np.array([model.points3D[int(i)].xyz for i in ids], np.float64).reshape(-1, 3)
    images = [model.image(image_id) for image_id in model.reg_image_ids()]
    return {image.name: _observations(model, image, ids, xyz) for image in images}


def _observations(
    model: pycolmap.Reconstruction,
    image: pycolmap.Image,
    ids: npt.NDArray[np.uint64],
    xyz: ArrayF64,
) -> Observations:
    points = list(image.points2D)
    keypoints = np.array([point.xy for point in points], np.float64).reshape(-1, 2)
    seen = np.array([point.has_point3D() for point in points], bool)
    errors = np.full(len(points), np.nan)
    if seen.any():
        point_ids = np.array([p.point3D_id for p in points if p.has_point3D()], np.uint64)
        in_world = xyz[np.searchsorted(ids, point_ids)]
        in_camera = in_world @ image.cam_from_world().matrix()[:, :3].T
        in_camera += image.cam_from_world().translation
        projected = np.asarray(model.camera(image.camera_id).img_from_cam(in_camera))
        distances = np.linalg.norm(projected - keypoints[seen], axis=1)
        errors[seen] = np.where(np.isfinite(distances), distances, np.inf)
    return Observations(keypoints, errors)
