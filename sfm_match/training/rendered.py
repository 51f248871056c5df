"""Pairs from rendered rooms: true parallax, occlusion, and light that falls from lamps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pycolmap

from sfm_match.synthetic.flow import correspondences
from sfm_match.synthetic.lighting import LitScene, illuminate
from sfm_match.synthetic.render import Rendering, render
from sfm_match.synthetic.rooms import random_room, random_walk, room_size
from sfm_match.training.light import Light, changed_light
from sfm_match.training.pairs import DensePair, Source
from sfm_match.types import ArrayF32, Image


@dataclass(frozen=True)
class Rooms:
    """Rooms, and the walks through them.

    Attributes:
        num: how many rooms.
        views: pictures taken in each.
        width: of a picture, in pixels.
        height: of a picture, in pixels.
        farthest: how many views apart the two of a pair may be.
        step: typical distance from view to view, in metres.
        turn: typical change of direction from view to view, in degrees.
        size: side of a crop, in pixels.
        shift: largest shift of the second crop from what the first one shows, relative to the side.
    """

    num: int = 40
    views: int = 12
    width: int = 480
    height: int = 360
    farthest: int = 3
    step: float = 0.6
    turn: float = 12.0
    size: int = 192
    shift: float = 0.15


@dataclass(frozen=True, eq=False)
class _View:
    rendering: Rendering
    camera: pycolmap.Camera
    cam_from_world: pycolmap.Rigid3d


def rendering(
    photographs: Sequence[Image],
    rooms: Rooms,
    light: Light,
    seed: int,
    progress: Callable[[int], object] = lambda _: None,
) -> Source:
    """Return a source of pairs of crops; all rooms are rendered now.

    Args:
        photographs: uint8 (h, w, 3), for walls and pictures; at least one.
        rooms: how many rooms and views.
        light: what changes between two crops, beside what is rendered.
        seed: of the rooms: the same seed and photographs give the same ones.
        progress: is called with 1 after each room.
    """
    walks = []
    for number in range(rooms.num):
        walks.append(_walk(np.random.default_rng([seed, number]), photographs, rooms))
        progress(1)
    return partial(_pair, walks=walks, rooms=rooms, light=light)


def _walk(rng: np.random.Generator, photographs: Sequence[Image], rooms: Rooms) -> list[_View]:
    scene = random_room(rng, photographs, texels_per_metre=120.0)
    lit = illuminate(scene)
    size = room_size(scene)
    poses = random_walk(rng, size, rooms.views, step=rooms.step, turn=rooms.turn)
    return [_view(rng, lit, pose, rooms) for pose in poses]


def _view(rng: np.random.Generator, scene: LitScene, pose: pycolmap.Rigid3d, rooms: Rooms) -> _View:
    focal = rooms.width * float(rng.uniform(0.65, 1.1))
    params = [focal, focal, rooms.width / 2, rooms.height / 2]
    camera = pycolmap.Camera(model="PINHOLE", width=rooms.width, height=rooms.height, params=params)
    exposure = float(np.exp(rng.normal(0, 0.25)))
    noise, seed = float(rng.uniform(0, 0.01)), int(rng.integers(2**31))
    seen = render(scene, camera, pose, samples=2, exposure=exposure, noise=noise, seed=seed)
    return _View(seen, camera, pose)


def _pair(
    rng: np.random.Generator, walks: Sequence[Sequence[_View]], rooms: Rooms, light: Light
) -> DensePair:
    """Return crops of two views of one room, the second where the first one's middle is seen."""
    while True:
        walk = walks[int(rng.integers(len(walks)))]
        first = int(rng.integers(len(walk)))
        apart = int(rng.integers(-rooms.farthest, rooms.farthest + 1))
        if apart == 0 or not 0 <= first + apart < len(walk):
            continue
        found = cropped(
            rng, *_dense(walk[first], walk[first + apart]), rooms.size, shift=rooms.shift
        )
        if found is not None:
            image0, image1, flow = found
            return DensePair(
                changed_light(rng, image0, light), changed_light(rng, image1, light), flow
            )


def _dense(a: _View, b: _View) -> tuple[Image, Image, ArrayF32]:
    relative = b.cam_from_world * a.cam_from_world.inverse()
    found = correspondences(a.rendering.depth, b.rendering.depth, a.camera, b.camera, relative)
    flow = np.where(found.valid[..., None], found.points1, np.float32(np.nan))
    return a.rendering.image, b.rendering.image, flow


def cropped(
    rng: np.random.Generator,
    image0: Image,
    image1: Image,
    flow: ArrayF32,
    size: int,
    least_seen: float = 0.15,
    shift: float = 0.15,
) -> tuple[Image, Image, ArrayF32] | None:
    """Return crops (size, size, 3) of two pictures and their flow, or None if they share little.

    Args:
        rng: source of the crop's place.
        image0: uint8 (H, W, 3).
        image1: uint8 (H', W', 3).
        flow: (H, W, 2), as in `DensePair`.
        size: no larger than a side of the pictures.
        least_seen: the share of the first crop that the second one has to show.
        shift: largest shift of the second crop, relative to its side.
    """
    height, width = flow.shape[:2]
    top, left = (int(rng.integers(side - size + 1)) for side in (height, width))
    rows, columns = slice(top, top + size), slice(left, left + size)
    part = flow[rows, columns]
    known = part[~np.isnan(part[..., 0])]
    if len(known) < least_seen * size**2:
        return None
    limit = np.array(image1.shape[1::-1]) - size
    jitter = rng.uniform(-shift, shift, 2) * size
    corner = np.clip(np.median(known, axis=0) - size / 2 + jitter, 0, limit).astype(int)
    moved = part - corner.astype(np.float32)
    with np.errstate(invalid="ignore"):
        inside = np.asarray(((moved >= 0) & (moved < size)).all(axis=2), np.bool_)
    if inside.mean() < least_seen:
        return None
    second = image1[corner[1] : corner[1] + size, corner[0] : corner[0] + size]
    there = np.where(inside[..., None], moved, np.float32(np.nan))
    return image0[rows, columns], second, there
