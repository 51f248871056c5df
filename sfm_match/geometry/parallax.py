"""How well the points of a pair can be triangulated: what makes it a pair to begin with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pycolmap

from sfm_match.types import ArrayF64, TwoViewConfig

_MATRIX_OF_CONFIG: dict[int, str] = {
    TwoViewConfig.CALIBRATED: "E",
    TwoViewConfig.UNCALIBRATED: "F",
    TwoViewConfig.PLANAR: "H",
    TwoViewConfig.PANORAMIC: "H",
    TwoViewConfig.PLANAR_OR_PANORAMIC: "H",
}


@dataclass(frozen=True, slots=True)
class Parallax:
    """What COLMAP judges an initial pair by.

    Attributes:
        angle: the median triangulation angle of the inliers, in degrees.
        forward: the part of the translation along the second camera's axis, from 0 to 1.
    """

    angle: float
    forward: float


def parallax(
    camera0: pycolmap.Camera,
    points0: ArrayF64,
    camera1: pycolmap.Camera,
    points1: ArrayF64,
    geometry: pycolmap.TwoViewGeometry,
) -> Parallax | None:
    """Return the parallax of a pair, None where no pose comes out of its geometry.

    Args:
        camera0: camera of the first image.
        points0: float64 (N0, 2), its keypoints in pixels.
        camera1: camera of the second image.
        points1: float64 (N1, 2), its keypoints in pixels.
        geometry: with inliers; its pose and angle are set. Where it lacks the matrix of its class
            it is estimated anew from the inliers.
    """
    needed = _MATRIX_OF_CONFIG.get(geometry.config)
    if needed is not None and getattr(geometry, needed) is None:
        geometry = pycolmap.estimate_calibrated_two_view_geometry(
            camera0, points0, camera1, points1, geometry.inlier_matches
        )
    if not pycolmap.estimate_two_view_geometry_pose(camera0, points0, camera1, points1, geometry):
        return None
    pose = geometry.cam2_from_cam1
    assert pose is not None
    translation = pose.translation
    length = float(np.linalg.norm(translation))
    return Parallax(
        angle=float(np.degrees(geometry.tri_angle)),
        forward=abs(float(translation[2])) / length if length else 0.0,
    )
