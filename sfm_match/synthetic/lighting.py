"""Light that does not depend on the camera, computed once per scene into its textures.

Lambert's law with inverse-square lamps, soft shadows from samples of each lamp's ball, and ambient
light that is held off where other surfaces are near (ambient occlusion: S. Zhukov, A. Iones and
G. Kronin, "An ambient light illumination model", Rendering Techniques 1998). The lit textures are
filtered in linear light to pyramids of box averages (L. Williams, "Pyramidal parametrics",
SIGGRAPH 1983).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sfm_match.synthetic.scene import Lamp, Scene, Surface, surface_frames
from sfm_match.types import ArrayF32, ArrayF64, Image

_CLEARANCE = 1e-3
"""How far a shadow ray starts from its surface, in metres, lest the surface shade itself."""

_BLOCK = 8
_CHUNK = 100_000

_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, eq=False, slots=True)
class LitScene:
    """A scene whose matt light has been computed; what `render` takes.

    Attributes:
        scene: where it comes from.
        texels: float32 (T, 3), linear radiance of every surface's texture pyramid.
        starts: int64 (S, L), the row of the first texel of level l of surface s.
        widths: int64 (S, L), texels in a row of that level.
        heights: int64 (S, L), rows of that level.
        num_levels: int64 (S,), the levels that each surface has; later columns repeat the last.
    """

    scene: Scene
    texels: ArrayF32
    starts: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64]
    num_levels: npt.NDArray[np.int64]


def srgb_to_linear(image: Image) -> ArrayF32:
    """Decode uint8 sRGB to linear light, float32 in 0..1 (IEC 61966-2-1)."""
    code = np.arange(256) / 255.0
    table = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return table.astype(np.float32)[image]


def linear_to_srgb(linear: ArrayF32) -> Image:
    """Encode linear light, clipped to 0..1, to uint8 sRGB (IEC 61966-2-1)."""
    light = np.clip(linear, 0.0, 1.0)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(code * 255.0).astype(np.uint8)


def illuminate(
    scene: Scene,
    *,
    spacing: float = 0.08,
    shadow_samples: int = 12,
    ambient_samples: int = 32,
    ambient_range: float = 1.2,
) -> LitScene:
    """Compute the light that falls on every surface and put it into its texture.

    The light is as fine as the grid that `spacing` gives, and no finer than a surface's texture.

    Args:
        scene: what to light.
        spacing: distance of the grid points at which the light is computed, in metres.
        shadow_samples: points on each lamp towards which shadow rays go; 0 for no shadows.
        ambient_samples: directions in which the ambient light may be obstructed; 0 for none.
        ambient_range: an obstacle farther than this takes no ambient light away, in metres.
    """
    caster = _ShadowCaster.of(scene.surfaces)
    pyramids = []
    for surface in scene.surfaces:
        points, normal = _grid(surface, spacing), surface.normal
        light = np.zeros(points.shape)
        for cells in _blocks(points.shape[:2]):
            place = points[cells].reshape(-1, 3)
            openness = _openness(caster, place, normal, ambient_samples, ambient_range)
            block = openness[:, None] * scene.ambient
            for lamp in scene.lamps:
                block += (
                    _received(caster, place, normal, lamp, shadow_samples)[:, None] * lamp.power
                )
            light[cells] = block.reshape(light[cells].shape)
        height, width = surface.texture.shape[:2]
        light_map = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)
        texture = srgb_to_linear(surface.texture) * surface.reflectance
        pyramids.append(_pyramid((texture * light_map).astype(np.float32)))
    return _pack(scene, pyramids)


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of light cells, small enough for few obstacles to matter to each."""
    for top in range(0, shape[0], _BLOCK):
        for left in range(0, shape[1], _BLOCK):
            yield slice(top, top + _BLOCK), slice(left, left + _BLOCK)


def _grid(surface: Surface, spacing: float) -> ArrayF64:
    """Return the centres of a surface's light cells, (rows, columns, 3), a little off it."""
    columns = max(2, int(np.ceil(np.linalg.norm(surface.right) / spacing)))
    rows = max(2, int(np.ceil(np.linalg.norm(surface.down) / spacing)))
    u = (np.arange(columns)[None, :, None] + 0.5) / columns
    v = (np.arange(rows)[:, None, None] + 0.5) / rows
    base = surface.corner + _CLEARANCE * surface.normal
    return np.asarray(base + u * surface.right + v * surface.down, dtype=np.float64)


@dataclass(frozen=True, eq=False, slots=True)
class _ShadowCaster:
    """All surfaces as obstacles, from both sides; one row per surface."""

    corner: ArrayF32
    normal: ArrayF32
    u_axis: ArrayF32
    v_axis: ArrayF32
    outline: ArrayF32
    """float32 (S, 4, 3): the four corners."""

    @classmethod
    def of(cls, surfaces: tuple[Surface, ...]) -> _ShadowCaster:
        frames = surface_frames(surfaces)
        edges = np.array([[0 * s.right, s.right, s.down, s.right + s.down] for s in surfaces])
        frames["outline"] = frames["corner"][:, None] + edges
        return cls(**{name: rows.astype(np.float32) for name, rows in frames.items()})

    def between(
        self, points: ArrayF64, normal: ArrayF64, low: ArrayF64, high: ArrayF64
    ) -> _ShadowCaster:
        """Return what of it may lie within a box and in front of the points' common plane."""
        low, high = np.minimum(points.min(axis=0), low), np.maximum(points.max(axis=0), high)
        inside = (self.outline.max(axis=1) >= low) & (self.outline.min(axis=1) <= high)
        above = ((self.outline - points[0]) @ normal).max(axis=1) > 0
        rows = inside.all(axis=1) & above
        return _ShadowCaster(
            self.corner[rows],
            self.normal[rows],
            self.u_axis[rows],
            self.v_axis[rows],
            self.outline[rows],
        )

    def nearest(self, origins: ArrayF64, directions: ArrayF64) -> ArrayF32:
        """Return how many lengths of its direction each ray goes to its first obstacle.

        Args:
            origins: (N, 3).
            directions: (N, K, 3).

        Returns:
            float32 (N, K), infinite where there is no obstacle.
        """
        distance = np.full(directions.shape[:2], np.inf, dtype=np.float32)
        if not len(self.corner):
            return distance
        rows = max(1, _CHUNK // (directions.shape[1] * len(self.corner)))
        for start in range(0, len(origins), rows):
            part = slice(start, start + rows)
            distance[part] = self._nearest(
                origins[part].astype(np.float32), directions[part].astype(np.float32)
            )
        return distance

    def _nearest(self, origins: ArrayF32, directions: ArrayF32) -> ArrayF32:
        num, per_origin = directions.shape[:2]
        rays = directions.reshape(-1, 3)
        shape = (num, per_origin, -1)

        def along(axis: ArrayF32) -> tuple[ArrayF32, ArrayF32]:
            """Return the origins' (N, 1, S) and the directions' (N, K, S) part along an axis."""
            offset = origins @ axis.T - np.sum(self.corner * axis, axis=1)
            return offset[:, None, :].astype(np.float32), (rays @ axis.T).reshape(shape)

        above, climb = along(self.normal)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -above / climb
            u0, du = along(self.u_axis)
            u = u0 + t * du
            v0, dv = along(self.v_axis)
            v = v0 + t * dv
            hit = (t > 0) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
        return np.asarray(np.where(hit, t, np.inf).min(axis=2), dtype=np.float32)


def _received(
    caster: _ShadowCaster, points: ArrayF64, normal: ArrayF64, lamp: Lamp, samples: int
) -> ArrayF64:
    """Return the light of a lamp of power 1 at the points of one surface, (N,)."""
    to_lamp = lamp.position - points
    distance = np.linalg.norm(to_lamp, axis=1)
    cosine = np.maximum(to_lamp @ normal, 0.0) / np.maximum(distance, 1e-9)
    light = cosine / (distance**2 + lamp.radius**2)
    if samples == 0:
        return np.asarray(light, dtype=np.float64)
    lit = np.flatnonzero(light > 0)
    rays = to_lamp[lit, None, :] + lamp.radius * _ball_points(samples)
    obstacles = caster.between(
        points, normal, lamp.position - lamp.radius, lamp.position + lamp.radius
    )
    reached = obstacles.nearest(points[lit], rays) >= 1.0
    light[lit] *= reached.mean(axis=1)
    return np.asarray(light, dtype=np.float64)


def _openness(
    caster: _ShadowCaster, points: ArrayF64, normal: ArrayF64, samples: int, reach: float
) -> ArrayF64:
    """Return which part of the ambient light gets to the points of one surface, (N,)."""
    if samples == 0:
        return np.ones(len(points))
    side = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    side /= np.linalg.norm(side)
    frame = np.stack([side, np.cross(normal, side), normal])
    directions = np.broadcast_to(_hemisphere(samples) @ frame, (len(points), samples, 3))
    near = caster.between(points, normal, points.min(axis=0) - reach, points.max(axis=0) + reach)
    free = np.minimum(near.nearest(points, directions) / reach, 1.0)
    return np.asarray(free.mean(axis=1), dtype=np.float64)


def _ball_points(num: int) -> ArrayF64:
    """Return points spread over the unit sphere (a Fibonacci lattice), (num, 3)."""
    z = 1.0 - (2.0 * np.arange(num) + 1.0) / num
    turn = 2.0 * np.pi * _GOLDEN * np.arange(num)
    radius = np.sqrt(1.0 - z**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)


def _hemisphere(num: int) -> ArrayF64:
    """Return directions spread over the half sphere around z by the cosine law, (num, 3)."""
    squared = (np.arange(num) + 0.5) / num
    turn = 2.0 * np.pi * _GOLDEN * np.arange(num)
    radius = np.sqrt(squared)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), np.sqrt(1.0 - squared)], axis=1)


def _pyramid(texture: ArrayF32) -> list[ArrayF32]:
    """Return the texture and its halvings down to one texel.

    An odd row or column is halved together with a copy of itself, so that the texel i of level l
    always covers the base texels i * 2**l to (i + 1) * 2**l.
    """
    levels = [texture]
    while max(levels[-1].shape[:2]) > 1:
        level = levels[-1]
        odd_rows, odd_columns = level.shape[0] % 2, level.shape[1] % 2
        level = np.pad(level, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
        rows, columns = level.shape[0] // 2, level.shape[1] // 2
        halved = level.reshape(rows, 2, columns, 2, 3).mean(axis=(1, 3))
        levels.append(halved.astype(np.float32))
    return levels


def _pack(scene: Scene, pyramids: list[list[ArrayF32]]) -> LitScene:
    """Lay all pyramids one after another, so that one look-up serves all surfaces."""
    num_levels = np.array([len(p) for p in pyramids], dtype=np.int64)
    starts, widths, heights = np.zeros((3, len(pyramids), num_levels.max()), dtype=np.int64)
    texels, end = [], 0
    for row, pyramid in enumerate(pyramids):
        for column, level in enumerate(pyramid):
            starts[row, column:] = end
            heights[row, column:], widths[row, column:] = level.shape[:2]
            texels.append(level.reshape(-1, 3))
            end += len(texels[-1])
    return LitScene(
        scene=scene,
        texels=np.concatenate(texels),
        starts=starts,
        widths=widths,
        heights=heights,
        num_levels=num_levels,
    )
