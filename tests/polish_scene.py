"""A textured wall and floor seen by six cameras: photographs, and a model with exact keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pycolmap

from sfm_match.geometry.observations import Observations, read_observations, write_keypoints
from sfm_match.stages.scan import Source, scan
from sfm_match.synthetic.builders import rectangle
from sfm_match.synthetic.lighting import illuminate
from sfm_match.synthetic.render import render
from sfm_match.synthetic.scene import Scene, look_at
from sfm_match.synthetic.textures import painting
from sfm_match.types import ArrayF64

WIDTH, HEIGHT, NUM_IMAGES = 320, 240, 6
_NUM_POINTS = 250
_MARGIN = 12


@dataclass(frozen=True)
class Photographed:
    """Photographs of a scene and its exact model.

    Attributes:
        folder: the photographs.
        sources: the same, by name.
        model: true poses, points and keypoints; nothing may change it.
    """

    folder: Path
    sources: dict[str, Source]
    model: pycolmap.Reconstruction


def photograph(folder: Path) -> Photographed:
    """Write photographs below a folder, and return them with their model."""
    rng = np.random.default_rng(5)
    wall = rectangle((0, 2, 1), (6, 0, 0), (0, 0, -3), painting(rng, (360, 720), 400))
    floor = rectangle((0, 0, -0.5), (6, 0, 0), (0, -4, 0), painting(rng, (480, 720), 400))
    lit = illuminate(Scene((wall, floor)))
    folder.mkdir(parents=True)
    model = pycolmap.Reconstruction()
    params = [300.0, WIDTH / 2, HEIGHT / 2, -0.02]
    camera = pycolmap.Camera(
        camera_id=1, model="SIMPLE_RADIAL", width=WIDTH, height=HEIGHT, params=params
    )
    model.add_camera_with_trivial_rig(camera)
    poses = [
        look_at((0.45 * (i - 2.5), -1.5 + 0.15 * (i % 2), 0.8 + 0.1 * i), (0, 2, 0.5), roll=3.0 * i)
        for i in range(NUM_IMAGES)
    ]
    on_wall = np.column_stack(
        [
            rng.uniform(-1.8, 1.8, _NUM_POINTS),
            np.full(_NUM_POINTS, 2),
            rng.uniform(0, 2, _NUM_POINTS),
        ]
    )
    on_floor = np.column_stack(
        [
            rng.uniform(-1.8, 1.8, _NUM_POINTS),
            rng.uniform(0, 2, _NUM_POINTS),
            np.full(_NUM_POINTS, -0.5),
        ]
    )
    points = np.concatenate([on_wall, on_floor])
    tracks = [pycolmap.Track() for _ in points]
    for image_id, pose in enumerate(poses, start=1):
        seen = render(lit, camera, pose, samples=4, noise=0.003, seed=image_id)
        name = f"{image_id}.png"
        PIL.Image.fromarray(seen.image).save(folder / name)
        at = np.asarray(camera.img_from_cam(pose * points))
        inside = ((at > _MARGIN) & (at < np.array([WIDTH, HEIGHT]) - _MARGIN)).all(axis=1)
        rows = np.flatnonzero(inside)
        image = pycolmap.Image(name=name, camera_id=1, image_id=image_id, keypoints=at[rows])
        model.add_image_with_trivial_frame(image, pose)
        for index, row in enumerate(rows.tolist()):
            tracks[row].add_element(image_id, index)
    for xyz, track in zip(points, tracks, strict=True):
        if track.length() >= 3:
            model.add_point3D(xyz, track)
    return Photographed(folder, scan(folder).images, model)


def disturbed(
    exact: pycolmap.Reconstruction, noise: float, seed: int = 0
) -> tuple[pycolmap.Reconstruction, Observations, ArrayF64]:
    """Return a copy with normal noise on its keypoints, its observations, and the noise."""
    model = pycolmap.Reconstruction(exact)
    seen = read_observations(model)
    moved = np.random.default_rng(seed).normal(0, noise, seen.keypoints.shape)
    write_keypoints(model, seen, seen.keypoints + moved)
    return model, read_observations(model), moved
