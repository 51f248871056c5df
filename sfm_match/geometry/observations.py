"""What the images of a model see of its points, as arrays, and how the surface looks there.

Keypoints are (x, y) in pixels of COLMAP's convention.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.types import ArrayBool, ArrayF64

Rows = npt.NDArray[np.int64]

# The step of the derivatives, as a share of the distance: about a pixel.
_STEP = 1e-3


@dataclass(frozen=True, eq=False, slots=True)
class Observations:
    """All observations of all points, sorted by image.

    Attributes:
        image_ids: of the images with a pose.
        point_ids: of the points.
        images: int64 (N,), rows of `image_ids`, ascending.
        points: int64 (N,), rows of `point_ids`.
        indices: int64 (N,), which of its image's keypoints it is.
        keypoints: float64 (N, 2).
    """

    image_ids: list[int]
    point_ids: list[int]
    images: Rows
    points: Rows
    indices: Rows
    keypoints: ArrayF64

    def __len__(self) -> int:
        return len(self.images)

    def of_image(self, row: int) -> slice:
        """Return the observations of an image, by its row of `image_ids`."""
        first, last = np.searchsorted(self.images, [row, row + 1])
        return slice(int(first), int(last))


@dataclass(frozen=True, eq=False, slots=True)
class Surfaces:
    """How the surfaces around points lie in the images that observe them.

    A surface is the plane through its point across the mean direction that it is seen from.

    Attributes:
        projections: float64 (N, 2), where the points lie.
        jacobians: float64 (N, 2, 2), what a step on the surface along two axes, the same for all
            views of a point, moves in the image: pixels per unit of length.
        angles: float64 (N,), between the direction to the camera and the mean one, in radians.
        visible: bool (N,), False where the rest is void: the point is not in front of the camera,
            or the surface is seen edge-on.
    """

    projections: ArrayF64
    jacobians: ArrayF64
    angles: ArrayF64
    visible: ArrayBool


def read_observations(model: pycolmap.Reconstruction) -> Observations:
    """Return all observations of a model."""
    image_ids, point_ids = sorted(model.reg_image_ids()), sorted(model.point3D_ids())
    row_of = {point_id: row for row, point_id in enumerate(point_ids)}
    rows: list[tuple[int, int, int]] = []
    keypoints: list[ArrayF64] = []
    for image_row, image_id in enumerate(image_ids):
        for index, point in enumerate(model.image(image_id).points2D):
            if point.has_point3D():
                rows.append((image_row, row_of[point.point3D_id], index))
                keypoints.append(point.xy)
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Observations(
        image_ids=image_ids,
        point_ids=point_ids,
        images=table[:, 0],
        points=table[:, 1],
        indices=table[:, 2],
        keypoints=np.array(keypoints, np.float64).reshape(-1, 2),
    )


def write_keypoints(
    model: pycolmap.Reconstruction, seen: Observations, keypoints: ArrayF64
) -> None:
    """Give the observations of a model other keypoints, (N, 2), in place."""
    for row, image_id in enumerate(seen.image_ids):
        points, some = model.image(image_id).points2D, seen.of_image(row)
        for index, xy in zip(seen.indices[some].tolist(), keypoints[some], strict=True):
            points[index].xy = xy


def point_errors(model: pycolmap.Reconstruction, seen: Observations) -> ArrayF64:
    """Return the mean reprojection error of each point in pixels, (P,), brought up to date."""
    model.update_point_3d_errors()
    return np.array([model.point3D(point_id).error for point_id in seen.point_ids], np.float64)


def surfaces(model: pycolmap.Reconstruction, seen: Observations) -> Surfaces:
    """Return how the surfaces around the points of a model look in its images."""
    xyz = np.array([model.point3D(p).xyz for p in seen.point_ids], np.float64).reshape(-1, 3)
    centres = np.array(
        [model.image(i).projection_center() for i in seen.image_ids], np.float64
    ).reshape(-1, 3)
    to_camera = centres[seen.images] - xyz[seen.points]
    distances = np.linalg.norm(to_camera, axis=1, keepdims=True)
    directions = to_camera / np.maximum(distances, np.finfo(float).tiny)
    normals = np.zeros_like(xyz)
    np.add.at(normals, seen.points, directions)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)
    axes = _axes(normals)[seen.points]
    projections, jacobians = np.empty((len(seen), 2)), np.empty((len(seen), 2, 2))
    for row, image_id in enumerate(seen.image_ids):
        image, some = model.image(image_id), seen.of_image(row)
        at, step = xyz[seen.points[some]], _STEP * distances[some]
        projections[some] = _project(image, at)
        for axis in (0, 1):
            offset = step * axes[some, axis]
            moved = _project(image, at + offset) - _project(image, at - offset)
            jacobians[some, :, axis] = moved / (2 * step)
    cosines = (directions * normals[seen.points]).sum(axis=1)
    finite = np.isfinite(projections).all(axis=1) & np.isfinite(jacobians).all(axis=(1, 2))
    projections[~finite], jacobians[~finite] = 0.0, 0.0
    area = np.abs(np.linalg.det(jacobians)) * distances[:, 0] ** 2  # in pixels per steradian
    visible = (cosines > 0) & (area > 1.0)
    jacobians[~visible] = np.eye(2)
    return Surfaces(projections, jacobians, np.arccos(cosines.clip(-1, 1)), visible)


def _project(image: pycolmap.Image, points: ArrayF64) -> ArrayF64:
    """Return where world points (M, 3) lie in an image, NaN where they do not."""
    assert image.camera is not None
    return np.asarray(image.camera.img_from_cam(image.cam_from_world() * points), np.float64)


def _axes(normals: ArrayF64) -> ArrayF64:
    """Return two axes of length 1 across each normal, (P, 2, 3)."""
    other = np.where(np.abs(normals[:, :1]) < 0.6, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    first = np.cross(normals, other)
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), np.finfo(float).tiny)
    return np.stack([first, np.cross(normals, first)], axis=1)


def reference_views(seen: Observations, found: Surfaces) -> Rows:
    """Return the observation of each point that is most like all its others, (P,); -1 for none.

    It is the one whose direction and scale (the logarithm of pixels per length) are nearest to the
    means over the point's views: from there the other views differ least.
    """
    num = len(seen.point_ids)
    scales = np.log(np.abs(np.linalg.det(found.jacobians)).clip(1e-300)) / 2
    count = np.bincount(seen.points, found.visible, minlength=num).clip(1)
    mean = np.bincount(seen.points, found.visible * scales, minlength=num) / count
    cost = found.angles**2 + (scales - mean[seen.points]) ** 2
    rows = np.flatnonzero(found.visible)
    rows = rows[np.lexsort((cost[rows], seen.points[rows]))]
    points, first = np.unique(seen.points[rows], return_index=True)
    references = np.full(num, -1, np.int64)
    references[points] = rows[first]
    return references
