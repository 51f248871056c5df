"""What a scene consists of: textured parallelograms and lamps; and where a camera looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.types import ArrayF64, Image, check_image

Vector = npt.ArrayLike
"""Three numbers, in metres, in the world frame."""


def _vector(owner: str, name: str, value: Vector) -> ArrayF64:
    vector = np.asarray(value, dtype=np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise ValueError(f"{owner}.{name} must be three finite numbers, got {value!r}")
    return vector


@dataclass(frozen=True, eq=False, slots=True)
class Surface:
    """A textured parallelogram, seen only from its front.

    Who stands in front of it sees `right` point to the right and `down` point down, the texture
    upright, and the normal `down` x `right` towards himself.

    Attributes:
        corner: float64 (3,), the texture's top-left corner in the world, in metres.
        right: float64 (3,), from the top-left corner to the top-right one.
        down: float64 (3,), from the top-left corner to the bottom-left one.
        texture: uint8 (h, w, 3), sRGB; it is stretched over the parallelogram, so the texture
            point (x, y), origin at its corner, lies at corner + x / w * right + y / h * down.
        reflectance: what part of the light the texture's white reflects, 0 to 1.
        specular: strength of the highlight, 0 for a matt surface.

    Raises:
        ValueError: a field has the wrong shape or range, or the edges span no area.
    """

    corner: ArrayF64
    right: ArrayF64
    down: ArrayF64
    texture: Image
    reflectance: float = 0.8
    specular: float = 0.0

    def __post_init__(self) -> None:
        for name in ("corner", "right", "down"):
            object.__setattr__(self, name, _vector("Surface", name, getattr(self, name)))
        check_image(self.texture)
        if self.texture.ndim != 3:
            raise ValueError(f"Surface.texture must be (h, w, 3), got {self.texture.shape}")
        if not 0 <= self.reflectance <= 1:
            raise ValueError(f"Surface.reflectance must be in 0..1, got {self.reflectance}")
        if not self.specular >= 0:
            raise ValueError(f"Surface.specular must not be negative, got {self.specular}")
        area = np.linalg.norm(np.cross(self.down, self.right))
        if not area > 1e-9 * np.linalg.norm(self.down) * np.linalg.norm(self.right):
            raise ValueError("Surface.right and Surface.down span no area")

    @property
    def normal(self) -> ArrayF64:
        """float64 (3,), the unit normal that points to the front."""
        normal = np.cross(self.down, self.right)
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


@dataclass(frozen=True, eq=False, slots=True)
class Lamp:
    """A small ball of light; its radius makes the shadows soft.

    Attributes:
        position: float64 (3,), in metres.
        power: float64 (3,), linear red, green and blue; a white surface of reflectance 1 that
            faces the lamp from 1 m away appears white at exposure 1 where the power is 1.
        radius: in metres.
    """

    position: ArrayF64
    power: ArrayF64
    radius: float = 0.1

    def __post_init__(self) -> None:
        for name in ("position", "power"):
            object.__setattr__(self, name, _vector("Lamp", name, getattr(self, name)))
        if not (self.power >= 0).all():
            raise ValueError(f"Lamp.power must not be negative, got {self.power}")
        if not self.radius >= 0:
            raise ValueError(f"Lamp.radius must not be negative, got {self.radius}")


@dataclass(frozen=True, eq=False, slots=True)
class Scene:
    """Surfaces and lamps.

    Attributes:
        surfaces: at least one.
        lamps: may be empty.
        ambient: float64 (3,), linear red, green and blue of the light from everywhere.
    """

    surfaces: tuple[Surface, ...]
    lamps: tuple[Lamp, ...] = ()
    ambient: ArrayF64 | tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ambient", _vector("Scene", "ambient", self.ambient))
        if not self.surfaces:
            raise ValueError("Scene.surfaces is empty: a scene needs at least one surface")


def look_at(
    eye: Vector, target: Vector, roll: float = 0.0, up: Vector = (0.0, 0.0, 1.0)
) -> pycolmap.Rigid3d:
    """Return cam_from_world of a camera that looks from a point towards another.

    Args:
        eye: the camera's centre, in the world.
        target: a point on its optical axis.
        roll: by how much the camera is turned clockwise about its axis, in degrees; the picture
            then appears turned anticlockwise.
        up: the world's upward direction.

    Raises:
        ValueError: the viewing direction is parallel to `up` or has no length.
    """
    centre = _vector("look_at", "eye", eye)
    forward = _vector("look_at", "target", target) - centre
    sideways = np.cross(forward, _vector("look_at", "up", up))
    if not np.linalg.norm(sideways) > 1e-9 * np.linalg.norm(forward):
        raise ValueError(
            f"look_at from {eye!r} to {target!r}: the direction is parallel to up, {up!r}"
        )
    forward = forward / np.linalg.norm(forward)
    sideways = sideways / np.linalg.norm(sideways)
    downward = np.cross(forward, sideways)
    cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
    rotation = np.stack(
        [cos * sideways + sin * downward, -sin * sideways + cos * downward, forward]
    )
    return pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), -rotation @ centre)


def surface_frames(surfaces: tuple[Surface, ...]) -> dict[str, npt.NDArray[Any]]:
    """Return the surfaces' corners, normals and texture axes, one row per surface.

    The point p of a surface's plane lies at u = (p - corner) . u_axis across and
    v = (p - corner) . v_axis down its texture, both 0 to 1: the axes are the basis dual to the
    two edges.
    """
    edges = np.array([[s.right, s.down] for s in surfaces])
    axes = np.linalg.pinv(edges)
    return {
        "corner": np.array([s.corner for s in surfaces]),
        "normal": np.array([s.normal for s in surfaces]),
        "u_axis": axes[:, :, 0],
        "v_axis": axes[:, :, 1],
    }
