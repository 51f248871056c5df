"""A model as it is shown in 3D: upright, its cameras as pyramids, the truth beside it.

The shown frame has z upwards, its origin in the middle of most points and all cameras, and the
model's own unit of length.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap
from scipy.spatial import KDTree

from sfm_match.geometry.poses import (
    DegenerateAlignmentError,
    align_points,
    projection_centers,
    transform_poses,
)
from sfm_match.types import ArrayBool, ArrayF64

ArrayU8 = npt.NDArray[np.uint8]
ArrayInt = npt.NDArray[np.int64]

_CLEAR = 0.3
_OUTSIDE_PERCENT = (1.0, 99.0)
_MARGIN = 0.25
_NEIGHBOURS_SHARE = 0.4
_RADIUS_SHARES = (0.02, 0.12)
# So that the true cameras are seen where they coincide with the model's.
_TRUE_SIZE = 1.35
_EYE_HEIGHT = 0.55
_FOCUS_PERCENT = (4.0, 96.0)
_MAX_TANGENT = 1.5
_DIRECTION_SIGNS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@dataclass(frozen=True, eq=False)
class ModelView:
    """What is drawn of a model.

    Attributes:
        points: float64 (P, 3), those shown.
        colours: uint8 (P, 3), RGB.
        num_points: how many the model has.
        num_outside: how many of them are too far out to be shown.
        names: of the cameras shown, sorted.
        frusta: float64 (C, 5, 3), of each camera its centre and the corners of its picture: top
            left, top right, bottom right, bottom left.
        true_names: of the true cameras shown, sorted.
        true_frusta: float64 (T, 5, 3).
        no_truth: why the truth is not shown; empty where it is, or where there is none.
        radius: of the sphere about the origin that holds most points and all cameras.
        eye: float64 (3,), the direction from the origin to where one looks from first; length 1.
    """

    points: ArrayF64
    colours: ArrayU8
    num_points: int
    num_outside: int
    names: tuple[str, ...]
    frusta: ArrayF64
    true_names: tuple[str, ...]
    true_frusta: ArrayF64
    no_truth: str
    radius: float
    eye: ArrayF64


def view_model(
    model: pycolmap.Reconstruction,
    truth: pycolmap.Reconstruction | None,
    max_points: int,
    shown: Collection[str],
) -> ModelView:
    """Return what is drawn of a model; of too many points an even part.

    Args:
        model: the model.
        truth: the true poses of images, by their names, in any frame and unit; or None.
        max_points: how many points to show.
        shown: the images whose cameras are shown.
    """
    poses, tangents = _cameras(model)
    xyz, rgb = _points(model)
    true_poses, true_tangents, no_truth = _aligned_truth(poses, truth)
    names, true_names = (sorted(found.keys() & set(shown)) for found in (poses, true_poses))
    stacked, true_stacked = (
        np.array([found[name] for name in chosen]).reshape(-1, 3, 4)
        for found, chosen in ((poses, names), (true_poses, true_names))
    )
    rotation = upright_from_world(stacked)
    centres, true_centres = (projection_centers(p) @ rotation.T for p in (stacked, true_stacked))
    xyz = xyz @ rotation.T
    inside = _inside(xyz, centres)
    kept = np.flatnonzero(inside)[evenly(int(np.count_nonzero(inside)), max_points)]
    focus, radius = _focus(xyz[kept], centres)
    size = _frustum_size(centres, radius)
    turned, true_turned = (p[:, :, :3] @ rotation.T for p in (stacked, true_stacked))
    return ModelView(
        points=xyz[kept] - focus,
        colours=rgb[kept],
        num_points=len(xyz),
        num_outside=int(np.count_nonzero(~inside)),
        names=tuple(names),
        frusta=_frusta(centres - focus, turned, _stack(tangents, names), size),
        true_names=tuple(true_names),
        true_frusta=_frusta(
            true_centres - focus,
            true_turned,
            _stack(true_tangents, true_names),
            _TRUE_SIZE * size,
        ),
        no_truth=no_truth,
        radius=radius,
        eye=_eye(turned[:, 2]),
    )


def upright_from_world(cam_from_world: ArrayF64) -> ArrayF64:
    """Return the rotation float64 (3, 3) that turns the world's likeliest upwards to z.

    Upwards is where the pictures' tops point to on average; where they point everywhere, as from
    the air, it is where most cameras come from; else the world's own z.

    Args:
        cam_from_world: float64 (N, 3, 4).
    """
    candidates = (-cam_from_world[:, 1, :3], -cam_from_world[:, 2, :3])
    means = [rows.mean(axis=0) if len(rows) else np.zeros(3) for rows in candidates]
    up = next((m for m in means if np.linalg.norm(m) > _CLEAR), np.array([0.0, 0.0, 1.0]))
    up = up / np.linalg.norm(up)
    # Any horizontal axis will do; the one nearest to a coordinate axis is well conditioned.
    across = np.cross(np.eye(3)[np.abs(up).argmin()], up)
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(up, across), up])


def _cameras(
    model: pycolmap.Reconstruction,
) -> tuple[dict[str, ArrayF64], dict[str, ArrayF64]]:
    """Return cam_from_world (3, 4) and the tangents (2,) of half the angles of view, by name."""
    images = [model.image(image_id) for image_id in model.reg_image_ids()]
    poses = {i.name: np.asarray(i.cam_from_world().matrix(), np.float64) for i in images}
    return poses, {i.name: _tangents(model.camera(i.camera_id)) for i in images}


def _tangents(camera: pycolmap.Camera) -> ArrayF64:
    size = np.array([camera.width, camera.height], np.float64)
    if not camera.focal_length_idxs():  # it sees all round
        return np.asarray(_MAX_TANGENT * size / size.max())
    tangents = size / 2 / camera.mean_focal_length()
    return np.asarray(tangents * min(1.0, _MAX_TANGENT / float(tangents.max())))


def _points(model: pycolmap.Reconstruction) -> tuple[ArrayF64, ArrayU8]:
    points = list(model.points3D.values())
    xyz = np.array([point.xyz for point in points], np.float64).reshape(-1, 3)
    return xyz, np.array([point.color for point in points], np.uint8).reshape(-1, 3)


def _aligned_truth(
    poses: Mapping[str, ArrayF64], truth: pycolmap.Reconstruction | None
) -> tuple[dict[str, ArrayF64], dict[str, ArrayF64], str]:
    """Return the true poses in the model's frame, the cameras' tangents, or why there are none."""
    if truth is None:
        return {}, {}, ""
    true, tangents = _cameras(truth)
    common = sorted(poses.keys() & true.keys())
    centres, true_centres = (
        projection_centers(np.array([p[name] for name in common]).reshape(-1, 3, 4))
        for p in (poses, true)
    )
    try:
        model_from_truth = align_points(true_centres, centres)
    except DegenerateAlignmentError as error:
        return {}, {}, f"the true cameras cannot be laid beside the model: {error}"
    moved = transform_poses(model_from_truth, np.array(list(true.values())))
    return dict(zip(true, moved, strict=True)), tangents, ""


def _inside(points: ArrayF64, centres: ArrayF64) -> ArrayBool:
    """Return which points lie in the box, with a margin, of most points and all cameras."""
    if not len(points):
        return np.zeros(0, np.bool_)
    low, high = np.percentile(points, _OUTSIDE_PERCENT, axis=0)
    margin = _MARGIN * (high - low).max()
    low, high = np.minimum(low, centres.min(axis=0)), np.maximum(high, centres.max(axis=0))
    return np.asarray(((points >= low - margin) & (points <= high + margin)).all(axis=1))


def evenly(num: int, at_most: int) -> ArrayInt:
    """Return at most so many of the rows 0 to num - 1, at even distances."""
    count = min(num, at_most)
    return np.arange(count) * num // max(count, 1)


def _focus(points: ArrayF64, centres: ArrayF64) -> tuple[ArrayF64, float]:
    """Return the middle of most points and all cameras, and the radius about it that holds them."""
    parts = [centres]
    if len(points):
        parts.append(np.percentile(points, _FOCUS_PERCENT, axis=0))
    held = np.concatenate(parts)
    low, high = held.min(axis=0), held.max(axis=0)
    middle = (low + high) / 2
    return middle, max(float(np.linalg.norm(held - middle, axis=1).max()), 1e-9)


def _frustum_size(centres: ArrayF64, radius: float) -> float:
    """Return the depth of the pyramids: a part of what lies between neighbours, never tiny."""
    low, high = (share * radius for share in _RADIUS_SHARES)
    if len(centres) < 2:
        return high
    distances, _ = KDTree(centres).query(centres, k=2)
    nearest = float(np.median(np.asarray(distances)[:, 1]))
    return min(max(_NEIGHBOURS_SHARE * nearest, low), high)


def _stack(tangents: Mapping[str, ArrayF64], names: Sequence[str]) -> ArrayF64:
    return np.array([tangents[name] for name in names]).reshape(-1, 2)


def _frusta(
    centres: ArrayF64, cam_from_shown: ArrayF64, tangents: ArrayF64, size: float
) -> ArrayF64:
    """Return the pyramids (N, 5, 3) of cameras with axes (N, 3, 3) and tangents (N, 2)."""
    corners = _DIRECTION_SIGNS * tangents[:, None]
    rays = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2)
    ends = centres[:, None] + size * rays @ cam_from_shown
    return np.concatenate([centres[:, None], ends], axis=1)


def _eye(directions: ArrayF64) -> ArrayF64:
    """Return where to look from: from behind the cameras, or aslant where they look all round."""
    behind = -directions.mean(axis=0) if len(directions) else np.zeros(3)
    if np.linalg.norm(behind[:2]) < _CLEAR:
        behind = np.array([1.0, 1.0, 0.0])
    behind[2] = 0.0
    eye = behind / np.linalg.norm(behind) + np.array([0.0, 0.0, _EYE_HEIGHT])
    return np.asarray(eye / np.linalg.norm(eye))
