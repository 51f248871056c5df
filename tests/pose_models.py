"""COLMAP models with random poses, and what moves them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pycolmap
from scipy.spatial.transform import Rotation

from sfm_match.geometry import poses
from sfm_match.types import ArrayF64

Poses = Mapping[str, ArrayF64]


def random_poses(num: int, seed: int = 0) -> dict[str, ArrayF64]:
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(num, random_state=rng).as_matrix()
    centers = rng.normal(size=(num, 3, 1)) * 5
    stacked = np.concatenate([rotations, -rotations @ centers], axis=-1)
    return {f"image {i:04d}.jpg": stacked[i] for i in range(num)}


def reconstruct(cam_from_world: Poses) -> pycolmap.Reconstruction:
    reconstruction = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        model="PINHOLE", width=100, height=80, params=[90, 90, 50, 40], camera_id=1
    )
    reconstruction.add_camera_with_trivial_rig(camera)
    for image_id, (name, pose) in enumerate(cam_from_world.items(), start=1):
        image = pycolmap.Image(name=name, camera_id=1, image_id=image_id)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    return reconstruction


def write(folder: Path, model: pycolmap.Reconstruction | Poses, *, text: bool = False) -> Path:
    if not isinstance(model, pycolmap.Reconstruction):
        model = reconstruct(model)
    folder.mkdir()
    if text:
        model.write_text(folder)
    else:
        model.write(folder)
    return folder


def moved(cam_from_world: Poses, name: str, turn: ArrayF64, shift: ArrayF64) -> dict[str, ArrayF64]:
    """Turn one camera about its centre, then shift its centre."""
    pose = cam_from_world[name]
    rotation = turn @ pose[:, :3]
    center = poses.projection_centers(pose) + shift
    return {**cam_from_world, name: np.column_stack([rotation, -rotation @ center])}


def similar(cam_from_world: Poses, similarity: poses.Similarity) -> dict[str, ArrayF64]:
    return {n: poses.transform_poses(similarity, pose) for n, pose in cam_from_world.items()}


def similarity(seed: int, scale: float) -> poses.Similarity:
    rng = np.random.default_rng(seed)
    return poses.Similarity(
        scale, Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3) * 100
    )
