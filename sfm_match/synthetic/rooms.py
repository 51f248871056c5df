"""Random furnished rooms and walks through them, for training: seeded, never the same twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycolmap

from sfm_match.synthetic.builders import BoxTextures, RoomTextures, box, picture, room
from sfm_match.synthetic.scene import Lamp, Scene, Surface, look_at
from sfm_match.synthetic.textures import canvas, collage, planks, plaster
from sfm_match.types import ArrayF64, Image

_INWARD = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Normals of the north, east, south and west wall, towards the room."""


def random_room(
    rng: np.random.Generator,
    photographs: Sequence[Image],
    *,
    texels_per_metre: float = 150.0,
    num_boxes: int = 6,
    num_pictures: int = 8,
) -> Scene:
    """Return a room with collages and pictures on its walls, boxes along them and lamps above.

    It reaches from the origin to the far corner of `room_size`; the boxes stay within 1.2 m of
    the walls, so that a walk (`random_walk`) finds the middle free.

    Args:
        rng: source of all choices: the same state and photographs give the same room.
        photographs: uint8 (h, w, 3) or (h, w), at least one; best many.
        texels_per_metre: resolution of the large textures.
        num_boxes: how many boxes stand on the floor.
        num_pictures: how many pictures hang on the walls.
    """
    size = np.array([rng.uniform(4.5, 8.0), rng.uniform(4.5, 8.0), rng.uniform(2.6, 3.6)])
    surfaces = list(_shell(rng, photographs, size, texels_per_metre))
    for _ in range(num_boxes):
        surfaces += _random_box(rng, photographs, size, texels_per_metre)
    for _ in range(num_pictures):
        surfaces += _random_picture(rng, photographs, size)
    num_lamps = int(rng.integers(2, 5))
    warmth = rng.uniform(-0.12, 0.12)
    power = np.array([1.0 + warmth, 1.0, 1.0 - warmth]) * rng.uniform(5.0, 9.0) / num_lamps
    lamps = tuple(
        Lamp(size * [*rng.uniform(0.15, 0.85, size=2), 0.93], power, radius=0.15)
        for _ in range(num_lamps)
    )
    level = rng.uniform(0.25, 0.5)
    return Scene(tuple(surfaces), lamps, (level, level, level))


def room_size(scene: Scene) -> ArrayF64:
    """Return the extent of a room that starts at the origin, (3,), in metres."""
    corners = [s.corner + s.right + s.down for s in scene.surfaces]
    corners += [s.corner for s in scene.surfaces]
    return np.asarray(np.max(corners, axis=0), dtype=np.float64)


def random_walk(
    rng: np.random.Generator, size: ArrayF64, num: int, *, step: float = 0.6, turn: float = 12.0
) -> list[pycolmap.Rigid3d]:
    """Return cam_from_world of neighbouring views on a walk through the middle of a room.

    Args:
        rng: source of the walk.
        size: the room's extent, (3,).
        num: how many views.
        step: typical distance from view to view, in metres.
        turn: typical change of direction from view to view, in degrees.
    """
    low, high = np.array([1.3, 1.3, 1.0]), size - [1.3, 1.3, size[2] - 2.1]
    eye = rng.uniform(low, high)
    heading = rng.uniform(0, 2 * np.pi)
    poses = []
    for _ in range(num):
        ahead = [np.cos(heading), np.sin(heading), rng.normal(0, 0.12)]
        poses.append(look_at(eye, eye + ahead, roll=rng.normal(0, 4.0)))
        eye = np.clip(eye + rng.normal(0, step / np.sqrt(2), size=3) * [1, 1, 0.3], low, high)
        heading += np.radians(rng.normal(0, turn))
    return poses


def _shell(
    rng: np.random.Generator, photographs: Sequence[Image], size: ArrayF64, density: float
) -> tuple[Surface, ...]:
    width, depth, height = (size * density).astype(int)
    walls = [
        collage(rng, photographs, (height, length), num_patches=int(rng.integers(8, 24)))
        for length in (width, depth, width, depth)
    ]
    tone = rng.uniform(90, 200)
    if rng.random() < 0.5:
        floor = planks(rng, (depth, width), (tone, 0.8 * tone, 0.6 * tone))
    else:
        floor = collage(rng, photographs, (depth, width), num_patches=16)
    ceiling = plaster(rng, (depth, width), (225.0, 222.0, 215.0))
    textures = RoomTextures(walls[0], walls[1], walls[2], walls[3], floor, ceiling)
    return room(size, textures, specular=float(rng.uniform(0, 0.15)))


def _random_box(
    rng: np.random.Generator, photographs: Sequence[Image], size: ArrayF64, density: float
) -> tuple[Surface, ...]:
    extent = rng.uniform([0.35, 0.35, 0.4], [0.7, 0.7, 1.6])
    wide, deep, tall = (extent * density).astype(int)
    shapes = [(tall, wide), (tall, deep)] * 2 + [(deep, wide)] * 2
    faces = BoxTextures(*(collage(rng, photographs, shape, num_patches=6) for shape in shapes))
    wall = int(rng.integers(4))
    along = np.abs(_INWARD[wall][[1, 0]])
    place = np.where(_INWARD[wall][:2] > 0, 0.0, size[:2]) * (1 - along)
    place = place + _INWARD[wall][:2] * rng.uniform(0.55, 0.65)
    place = place + along * rng.uniform(0.6, size[:2] - 0.6)
    return box([*place, 0.0], extent, faces, turn=float(rng.uniform(-40, 40)))


def _random_picture(
    rng: np.random.Generator, photographs: Sequence[Image], size: ArrayF64
) -> tuple[Surface, ...]:
    wall = int(rng.integers(4))
    normal = _INWARD[wall]
    along = np.abs(normal[[1, 0]])
    place = np.where(normal[:2] > 0, 0.0, size[:2]) * (1 - along)
    place = place + along * rng.uniform(0.7, size[:2] - 0.7)
    # The depth differs, lest two overlapping pictures share a plane.
    thickness = float(rng.uniform(0.015, 0.08))
    photograph = photographs[int(rng.integers(len(photographs)))]
    tone = rng.uniform(30, 200)
    return picture(
        [*place, rng.uniform(1.2, size[2] - 0.8)],
        normal,
        canvas(rng, photograph, factor=600 / max(photograph.shape)),
        width=min(float(rng.uniform(0.5, 1.2)), 1.1 * photograph.shape[1] / photograph.shape[0]),
        frame=plaster(rng, (64, 64), (tone, 0.8 * tone, 0.55 * tone), contrast=0.15),
        border=float(rng.uniform(0.0, 0.08)),
        thickness=thickness,
        specular=float(rng.choice([0.0, 0.05])),
    )
