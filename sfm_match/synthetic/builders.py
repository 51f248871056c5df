"""Boxes, pictures and rooms out of textured rectangles. The world is in metres, z is up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sfm_match.synthetic.scene import Surface, Vector
from sfm_match.types import ArrayF64, Image


class BoxTextures(NamedTuple):
    """The textures of a box's faces; front is the face towards -y, right towards +x."""

    front: Image
    right: Image
    back: Image
    left: Image
    top: Image
    bottom: Image


class RoomTextures(NamedTuple):
    """The textures of a room's sides; north is the wall at +y, east the one at +x."""

    north: Image
    east: Image
    south: Image
    west: Image
    floor: Image
    ceiling: Image


def wall_axes(normal: Vector) -> tuple[ArrayF64, ArrayF64]:
    """Return the unit vectors right and down of an upright wall, as who faces it sees them.

    Args:
        normal: horizontal, of any length, from the wall towards the viewer.
    """
    x, y, z = np.asarray(normal, dtype=np.float64)
    length = np.hypot(x, y)
    if not length > 0 or abs(z) > 1e-9 * length:
        raise ValueError(f"a wall's normal must be horizontal and not zero, got {normal!r}")
    return np.array([-y, x, 0.0]) / length, np.array([0.0, 0.0, -1.0])


def rectangle(
    centre: Vector,
    right: Vector,
    down: Vector,
    texture: Image,
    *,
    reflectance: float = 0.8,
    specular: float = 0.0,
) -> Surface:
    """Return the rectangle with the given centre and edges."""
    across, along = np.asarray(right, dtype=np.float64), np.asarray(down, dtype=np.float64)
    corner = np.asarray(centre, dtype=np.float64) - (across + along) / 2
    return Surface(corner, across, along, texture, reflectance, specular)


def box(
    foot: Vector,
    size: Vector,
    textures: BoxTextures,
    *,
    turn: float = 0.0,
    reflectance: float = 0.8,
    specular: float = 0.0,
) -> tuple[Surface, ...]:
    """Return the six faces of an upright box.

    Args:
        foot: the centre of its bottom face.
        size: its extent along x, y and z before it is turned.
        textures: of its faces, upright as seen from outside; the top face is seen with its lower
            edge towards the front, the bottom face with its upper edge towards the front.
        turn: anticlockwise about the vertical, in degrees, as seen from above.
        reflectance: of all faces.
        specular: of all faces.
    """
    width, depth, height = np.asarray(size, dtype=np.float64)
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    x, y = np.array([cos, sin, 0.0]), np.array([-sin, cos, 0.0])
    up = np.array([0.0, 0.0, 1.0])
    middle = np.asarray(foot, dtype=np.float64) + up * height / 2
    faces = (
        (middle - y * depth / 2, x * width, -up * height),
        (middle + x * width / 2, y * depth, -up * height),
        (middle + y * depth / 2, -x * width, -up * height),
        (middle - x * width / 2, -y * depth, -up * height),
        (middle + up * height / 2, x * width, -y * depth),
        (middle - up * height / 2, x * width, y * depth),
    )
    return tuple(
        rectangle(*face, texture, reflectance=reflectance, specular=specular)
        for face, texture in zip(faces, textures, strict=True)
    )


def room(
    size: Vector, textures: RoomTextures, *, reflectance: float = 0.8, specular: float = 0.0
) -> tuple[Surface, ...]:
    """Return the inside of a room that reaches from the origin to `size`.

    Args:
        size: its extent along x, y and z.
        textures: upright as seen from inside; floor and ceiling are seen with north above.
        reflectance: of all sides.
        specular: of the floor alone.
    """
    width, depth, height = np.asarray(size, dtype=np.float64)
    x, y, up = np.eye(3)
    middle = np.array([width, depth, height]) / 2
    sides = (
        (middle + y * depth / 2, x * width, -up * height),
        (middle + x * width / 2, -y * depth, -up * height),
        (middle - y * depth / 2, -x * width, -up * height),
        (middle - x * width / 2, y * depth, -up * height),
        (middle - up * height / 2, x * width, -y * depth),
        (middle + up * height / 2, -x * width, -y * depth),
    )
    gloss = (0.0, 0.0, 0.0, 0.0, specular, 0.0)
    return tuple(
        rectangle(*side, texture, reflectance=reflectance, specular=shine)
        for side, texture, shine in zip(sides, textures, gloss, strict=True)
    )


def picture(
    centre: Vector,
    normal: Vector,
    image: Image,
    *,
    width: float,
    frame: Image,
    border: float = 0.05,
    thickness: float = 0.03,
    specular: float = 0.0,
) -> tuple[Surface, ...]:
    """Return a framed picture that hangs on a wall; its height follows the image.

    Args:
        centre: of the picture, on the wall.
        normal: of the wall, horizontal, towards the viewer.
        image: what it shows.
        width: of the image, in metres.
        frame: texture of the frame, whose front lies behind the image and whose sides reach back
            to the wall.
        border: how far the frame reaches beyond the image; 0 for a canvas without a frame.
        thickness: how far it stands off the wall.
        specular: of the image, as behind glass.
    """
    right, down = wall_axes(normal)
    outward = np.cross(down, right)
    height = width * image.shape[0] / image.shape[1]
    middle = np.asarray(centre, dtype=np.float64) + outward * thickness
    across, along = right * (width + 2 * border), down * (height + 2 * border)
    back = -outward * thickness
    sides = (
        (middle + across / 2, back, along),
        (middle - across / 2, -back, along),
        (middle - along / 2, across, -back),
        (middle + along / 2, across, back),
    )
    surfaces = [
        rectangle(place + back / 2, edge, other, frame, reflectance=0.6)
        for place, edge, other in sides
    ]
    if border > 0:
        surfaces.append(rectangle(middle, across, along, frame, reflectance=0.6))
        middle = middle + outward * 0.004
    surfaces.append(rectangle(middle, right * width, down * height, image, specular=specular))
    return tuple(surfaces)
