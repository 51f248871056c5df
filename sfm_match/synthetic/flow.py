"""Dense correspondences of two views from their depth and poses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pycolmap

from sfm_match.types import ArrayBool, ArrayF32, ArrayF64

_SAME_DIRECTION = 1e-4
"""How far, in radians, the ray of a projected point may miss the point."""


class Flow(NamedTuple):
    """Where the pixels of image 0 lie in image 1.

    Attributes:
        points1: float32 (H0, W0, 2), the position in image 1 of what the centre of each pixel of
            image 0 shows: absolute, corner-origin pixels; NaN where there is none.
        valid: bool (H0, W0), True where that point lies within image 1 and is seen there.
    """

    points1: ArrayF32
    valid: ArrayBool


def correspondences(
    depth0: ArrayF32,
    depth1: ArrayF32,
    camera0: pycolmap.Camera,
    camera1: pycolmap.Camera,
    cam1_from_cam0: pycolmap.Rigid3d,
    *,
    tolerance: float = 0.002,
) -> Flow:
    """Return the position in image 1 of every pixel of image 0, and whether it is seen there.

    A point is seen in image 1 where its depth agrees with image 1's depth at its projection. The
    latter is interpolated in 1 / z, which is linear across the picture of a plane: exact on
    planes, and at a silhouette between near and far, where neither is called valid.

    Args:
        depth0: float32 (H0, W0), z at the pixel centres of image 0; 0 where unknown.
        depth1: float32 (H1, W1), the same of image 1.
        camera0: the camera of image 0.
        camera1: the camera of image 1.
        cam1_from_cam0: the relative pose, in the depths' unit of length.
        tolerance: relative difference of depth up to which the two agree; larger for measured
            depth.

    Raises:
        ValueError: a depth map has another size than its camera.
    """
    for name, depth, camera in (("depth0", depth0, camera0), ("depth1", depth1, camera1)):
        if depth.shape != (camera.height, camera.width):
            raise ValueError(
                f"{name} must be (height, width) = {(camera.height, camera.width)} as its camera"
                f" says, got {depth.shape}"
            )
    rows, columns = np.nonzero(depth0 > 0)
    pixels = np.stack([columns, rows], axis=1) + 0.5
    # pycolmap's arrays of points stay arrays; its stubs merge them with single points and None.
    rays = np.asarray(camera0.cam_ray_from_img(pixels), dtype=np.float64)
    in_cam1 = cam1_from_cam0 * (rays * (depth0[rows, columns] / rays[:, 2])[:, None])
    projected = np.asarray(camera1.img_from_cam(in_cam1), dtype=np.float64)
    seen = _within(projected, camera1)
    seen[seen] = _looks_back(camera1, projected[seen], in_cam1[seen])
    seen[seen] &= _agrees(depth1, projected[seen], in_cam1[seen, 2], tolerance)

    points1 = np.full((*depth0.shape, 2), np.nan, dtype=np.float32)
    valid = np.zeros(depth0.shape, dtype=np.bool_)
    points1[rows, columns] = projected
    valid[rows, columns] = seen
    return Flow(points1, valid)


def _within(points: ArrayF64, camera: pycolmap.Camera) -> ArrayBool:
    with np.errstate(invalid="ignore"):
        return np.asarray(
            ((points >= 0) & (points < [camera.width, camera.height])).all(axis=1),
            dtype=np.bool_,
        )


def _looks_back(camera: pycolmap.Camera, pixels: ArrayF64, points: ArrayF64) -> ArrayBool:
    """Tell where the ray of the pixel points at the point.

    A distortion polynomial is not monotonic: far outside the field of view it may fold points
    back into the image.
    """
    if not len(pixels):
        return np.zeros(0, dtype=np.bool_)
    rays = np.asarray(camera.cam_ray_from_img(np.ascontiguousarray(pixels)), dtype=np.float64)
    directions = points / np.linalg.norm(points, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        miss = np.linalg.norm(rays - directions, axis=1)
        return np.asarray(miss < _SAME_DIRECTION, dtype=np.bool_)


def _agrees(depth: ArrayF32, points: ArrayF64, z: ArrayF64, tolerance: float) -> ArrayBool:
    """Tell where z agrees with the depth map at the points (N, 2)."""
    height, width = depth.shape
    x = np.clip(points[:, 0] - 0.5, 0, width - 1)
    y = np.clip(points[:, 1] - 0.5, 0, height - 1)
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = x - x0, y - y0
    nearness = np.zeros(depth.shape)
    np.divide(1.0, depth, out=nearness, where=depth > 0)
    top = nearness[y0, x0] * (1 - fx) + nearness[y0, x1] * fx
    low = nearness[y1, x0] * (1 - fx) + nearness[y1, x1] * fx
    difference = np.abs((top * (1 - fy) + low * fy) * z - 1.0)
    return np.asarray(difference <= tolerance, dtype=np.bool_)
