"""A thousand rendered views of many rooms, and which of them truly overlap.

The rooms are furnished at random and hung with paintings, half of which hang in other rooms too:
copies there are what misleads retrieval by appearance. Overlap is exact, from the rendered depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pycolmap

from sfm_match.synthetic.lighting import illuminate
from sfm_match.synthetic.render import render
from sfm_match.synthetic.rooms import random_room, random_walk, room_size
from sfm_match.synthetic.textures import painting
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Image

SIZE = (480, 360)
VIEWS_PER_ROOM = 50
_NUM_OWN, _NUM_SHARED, _SHARED_POOL = 6, 6, 40
_STEP = 12  # pixels between the points that overlap is measured on
_DEPTH_TOLERANCE = 0.03


def make_views(folder: Path, num_rooms: int, workers: int) -> ArrayF32:
    """Render `num_rooms` rooms of 50 views each into `folder/images`; return their overlap.

    Returns:
        float32 (N, N), the images in the order of their names: the share of the pixels of the one
        (row) that the other (column) sees too; 0 on the diagonal.
    """
    (folder / "images").mkdir(parents=True)
    with ProcessPoolExecutor(workers) as pool:
        blocks = list(pool.map(partial(_make_room, folder / "images"), range(num_rooms)))
    overlap = np.zeros((num_rooms * VIEWS_PER_ROOM,) * 2, np.float32)
    for number, block in enumerate(blocks):
        rows = slice(number * VIEWS_PER_ROOM, (number + 1) * VIEWS_PER_ROOM)
        overlap[rows, rows] = block
    return overlap


def _make_room(folder: Path, number: int) -> ArrayF32:
    rng = np.random.default_rng([1, number])
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 0.8 * SIZE[0], *SIZE)
    scene = random_room(rng, _paintings(rng), texels_per_metre=120)
    lit = illuminate(scene)
    poses = random_walk(rng, room_size(scene), VIEWS_PER_ROOM, step=0.9, turn=35.0)
    depths = []
    for i, pose in enumerate(poses):
        seed = number * VIEWS_PER_ROOM + i
        exposure = float(rng.uniform(0.7, 1.4))
        seen = render(lit, camera, pose, samples=2, exposure=exposure, noise=0.01, seed=seed)
        PIL.Image.fromarray(seen.image).save(folder / f"{seed:04d}.jpg", quality=90)
        depths.append(seen.depth)
    return _overlap(camera, poses, depths)


def _paintings(rng: np.random.Generator) -> list[Image]:
    shared = rng.choice(_SHARED_POOL, _NUM_SHARED, replace=False)
    own = [painting(rng, (240, 320)) for _ in range(_NUM_OWN)]
    return own + [painting(np.random.default_rng([2, i]), (240, 320)) for i in shared]


def _overlap(
    camera: pycolmap.Camera, poses: Sequence[pycolmap.Rigid3d], depths: Sequence[ArrayF32]
) -> ArrayF32:
    y, x = np.mgrid[_STEP // 2 : SIZE[1] : _STEP, _STEP // 2 : SIZE[0] : _STEP]
    rays = np.asarray(camera.cam_from_img(np.stack([x, y], -1).reshape(-1, 2) + 0.5))
    shares = np.zeros((len(poses), len(poses)), np.float32)
    for i, pose in enumerate(poses):
        z = depths[i][y, x].reshape(-1).astype(np.float64)
        points = pose.inverse() * (np.c_[rays, np.ones(len(rays))] * z[:, None])
        for j, other in enumerate(poses):
            if i != j:
                shares[i, j] = np.mean(_is_seen(camera, other * points, depths[j]) & (z > 0))
    return shares


def _is_seen(camera: pycolmap.Camera, points: ArrayF64, depth: ArrayF32) -> ArrayBool:
    """Return which points (N, 3), in the camera's frame, are in the picture and not hidden."""
    z = points[:, 2]
    safe = np.where(z > 0.05, z, 1.0)
    pixels = np.floor(camera.params[0] * points[:, :2] / safe[:, None] + camera.params[1:3])
    inside = (z > 0.05) & (pixels >= 0).all(1) & (pixels < SIZE).all(1)
    columns, rows = np.where(inside[:, None], pixels, 0).astype(int).T
    return np.asarray(inside & (np.abs(depth[rows, columns] - z) < _DEPTH_TOLERANCE * z))
