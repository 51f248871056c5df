"""A ray caster for textured planes: image and exact depth, for every camera model of COLMAP.

The ray d of a pixel meets the plane of a surface after t d, and 1/t, u/t and v/t are linear in d.
So what a camera sees of a surface takes three dot products per ray and no division; tiles whose
rays cannot meet a surface are left out by bounds of the same linear forms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.synthetic.lighting import LitScene, linear_to_srgb
from sfm_match.synthetic.scene import Lamp, Scene, surface_frames
from sfm_match.types import ArrayF32, ArrayF64, Image

_TILE = 64
_SHININESS = 80.0
_Floats = npt.NDArray[np.floating[Any]]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Rendering:
    """What a camera sees.

    Attributes:
        image: uint8 (H, W, 3), sRGB.
        depth: float32 (H, W), z in the camera's frame at the pixels' centres; 0 where there is
            nothing, or nothing in front of the camera.
    """

    image: Image
    depth: ArrayF32


def render(
    scene: LitScene,
    camera: pycolmap.Camera,
    cam_from_world: pycolmap.Rigid3d,
    *,
    samples: int = 4,
    exposure: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
) -> Rendering:
    """Render the image and the depth that a camera sees.

    Args:
        scene: the lit scene, from `illuminate`.
        camera: any COLMAP camera; pixels with corner origin.
        cam_from_world: its pose.
        samples: rays per pixel; textures are filtered to the rays' distance.
        exposure: factor on the light.
        noise: standard deviation of the sensor's noise at white, in linear light (0.005 is a good
            camera, 0.02 a poor one); it falls with the square root of the light.
        seed: of the noise.

    Returns:
        The rendering; the same arguments give the same arrays.
    """
    planes = _Planes.seen_from(scene.scene, cam_from_world)
    lamps = scene.scene.lamps
    light = np.zeros((camera.height, camera.width, 3), dtype=np.float32)
    depth = np.zeros((camera.height, camera.width), dtype=np.float32)
    offsets = _sample_offsets(samples)
    for rows, columns, centres in _tiles(camera):
        depth[rows, columns] = _depth(planes, camera, centres)
        rays = _rays(camera, (centres[None] + offsets[:, None, None]).reshape(-1, 2))
        met = planes.first_hit(rays.astype(np.float32))
        hit = np.flatnonzero(met.surface >= 0)
        seen = met.take(hit)
        apart = _texels_between_rays(scene, planes, seen, *_steps(camera, centres, rays[hit]))
        radiance = np.zeros((len(rays), 3), dtype=np.float32)
        radiance[hit] = _look_up(scene, seen, apart / np.float32(np.sqrt(samples)))
        for lamp in lamps:
            _add_highlight(
                radiance, hit, rays[hit], seen, planes, lamp=lamp, cam_from_world=cam_from_world
            )
        light[rows, columns] = radiance.reshape(samples, *centres.shape[:2], 3).mean(axis=0)
    light *= exposure
    if noise > 0:
        grain = np.random.default_rng(seed).standard_normal(light.shape, dtype=np.float32)
        light += noise * np.sqrt(light + 0.01) * grain
    return Rendering(image=linear_to_srgb(light), depth=depth)


def render_depth(
    scene: Scene, camera: pycolmap.Camera, cam_from_world: pycolmap.Rigid3d
) -> ArrayF32:
    """Return the depth alone, float32 (H, W), as in `Rendering`; it needs no light."""
    planes = _Planes.seen_from(scene, cam_from_world)
    depth = np.zeros((camera.height, camera.width), dtype=np.float32)
    for rows, columns, centres in _tiles(camera):
        depth[rows, columns] = _depth(planes, camera, centres)
    return depth


@dataclass(frozen=True, eq=False, slots=True)
class _Hits:
    """What rays meet: the surface's row, the place on it (0 to 1), 1 / distance."""

    surface: _Ints
    u: _Floats
    v: _Floats
    nearness: _Floats

    def take(self, rows: _Ints) -> _Hits:
        return _Hits(self.surface[rows], self.u[rows], self.v[rows], self.nearness[rows])


@dataclass(frozen=True, eq=False, slots=True)
class _Planes:
    """The surfaces as linear forms of a unit ray d in the camera's frame; one row per surface.

    Attributes:
        forms: (S, 3, 3); forms[s] @ d = (1, u, v) / t, where t is the distance; 0 for
            a surface that is seen from behind.
        normal: (S, 3), in the camera's frame.
        specular: (S,).
    """

    forms: ArrayF64
    normal: ArrayF64
    specular: ArrayF64

    @classmethod
    def seen_from(cls, scene: Scene, cam_from_world: pycolmap.Rigid3d) -> _Planes:
        rotation = cam_from_world.rotation.matrix()
        centre = cam_from_world.inverse().translation
        frames = surface_frames(scene.surfaces)
        offset = centre - frames["corner"]
        height = np.sum(offset * frames["normal"], axis=1)
        normal = frames["normal"] @ rotation.T
        inverse = -normal / np.where(height > 0, height, np.inf)[:, None]

        def form(axis: ArrayF64) -> ArrayF64:
            along = np.sum(offset * axis, axis=1)[:, None]
            return np.asarray(axis @ rotation.T + along * inverse, dtype=np.float64)

        return cls(
            forms=np.stack([inverse, form(frames["u_axis"]), form(frames["v_axis"])], axis=1),
            normal=normal,
            specular=np.array([s.specular for s in scene.surfaces]),
        )

    def first_hit(self, rays: _Floats) -> _Hits:
        """Return what unit rays (N, 3) meet first; surface -1 where they meet none."""
        surface = np.full(len(rays), -1, dtype=np.int64)
        best, best_u, best_v = np.zeros((3, len(rays)), dtype=rays.dtype)
        columns = np.ascontiguousarray(rays.T)
        for index in self._candidates(columns):
            nearness, u, v = self.forms[index].astype(rays.dtype) @ columns
            wins = (nearness > best) & (u >= 0) & (u <= nearness) & (v >= 0) & (v <= nearness)
            surface[wins] = index
            np.copyto(best, nearness, where=wins)
            np.copyto(best_u, u, where=wins)
            np.copyto(best_v, v, where=wins)
        with np.errstate(invalid="ignore"):
            return _Hits(surface, best_u / best, best_v / best, best)

    def _candidates(self, columns: _Floats) -> list[int]:
        """Return the surfaces that a ray within the bounding box of rays (3, N) might meet."""
        low, high = np.fmin.reduce(columns, axis=1), np.fmax.reduce(columns, axis=1)
        nearness, u, v = self.forms[:, 0], self.forms[:, 1], self.forms[:, 2]
        positive = np.stack([nearness, u, v, nearness - u, nearness - v])
        greatest = np.maximum(positive * low, positive * high).sum(axis=2)
        possible = (greatest >= -1e-6).all(axis=0) & (greatest[0] > 0)
        return [int(index) for index in np.flatnonzero(possible)]


def _tiles(camera: pycolmap.Camera) -> Iterator[tuple[slice, slice, ArrayF64]]:
    """Yield the rows, the columns and the pixel centres (h, w, 2) of every tile."""
    for top in range(0, camera.height, _TILE):
        rows = slice(top, min(top + _TILE, camera.height))
        for left in range(0, camera.width, _TILE):
            columns = slice(left, min(left + _TILE, camera.width))
            y, x = np.mgrid[rows, columns] + 0.5
            yield rows, columns, np.stack([x, y], axis=-1)


def _rays(camera: pycolmap.Camera, points: ArrayF64) -> ArrayF64:
    """Return the unit rays of pixels (N, 2) in the camera's frame, NaN where there is none."""
    # An (N, 2) array gives an array; the stub merges it with the overload for a single point.
    return np.asarray(camera.cam_ray_from_img(np.ascontiguousarray(points)), dtype=np.float64)


def _depth(planes: _Planes, camera: pycolmap.Camera, centres: ArrayF64) -> ArrayF32:
    rays = _rays(camera, centres.reshape(-1, 2))
    met = planes.first_hit(rays)
    in_front = (met.surface >= 0) & (rays[:, 2] > 0)
    depth = np.zeros(len(rays), dtype=np.float32)
    depth[in_front] = rays[in_front, 2] / met.nearness[in_front]
    return depth.reshape(centres.shape[:2])


def _steps(camera: pycolmap.Camera, centres: ArrayF64, rays: ArrayF64) -> tuple[ArrayF64, ArrayF32]:
    """Return how rays change from pixel to pixel, across and down, in a tile.

    Returns:
        The steps at the tile's middle, (2, 3), and the factor on them for each ray, (N,). They
        are taken in the plane z = 1, where a pinhole's are the same everywhere, unless the tile
        looks sideways or back; multiples of the ray itself do not count.
    """
    middle = centres[centres.shape[0] // 2, centres.shape[1] // 2]
    around = _rays(camera, middle + np.array([[-0.5, 0.0], [0.0, -0.5], [0.5, 0.0], [0.0, 0.5]]))
    factor = np.ones(len(rays), dtype=np.float32)
    if around[:, 2].min() > 0.1:
        around = around / around[:, 2:]
        factor = rays[:, 2].astype(np.float32)
    return np.nan_to_num(around[2:] - around[:2]), factor


def _texels_between_rays(
    scene: LitScene, planes: _Planes, seen: _Hits, steps: ArrayF64, factor: ArrayF32
) -> ArrayF32:
    """Return the distance of neighbouring rays on the texture, (N,), the greater of the two.

    It is the derivative of the quotients u and v, times the texture's size, along each step.
    """
    change = planes.forms @ steps.T
    width, height = scene.widths[:, :1], scene.heights[:, :1]
    terms = (change[:, 1] * width, change[:, 0] * width, change[:, 2] * height)
    table = np.hstack([*terms, change[:, 0] * height]).astype(np.float32)
    rows = table.take(seen.surface, axis=0)
    across = rows[:, 0:2] - seen.u[:, None] * rows[:, 2:4]
    down = rows[:, 4:6] - seen.v[:, None] * rows[:, 6:8]
    squared = (across**2 + down**2).max(axis=1)
    return np.asarray(np.sqrt(squared) * np.abs(factor) / seen.nearness, dtype=np.float32)


def _sample_offsets(num: int) -> ArrayF64:
    """Return places of the rays in a pixel, (num, 2) around 0: each row and column once."""
    order = np.argsort(np.argsort((np.arange(num) * (np.sqrt(5.0) - 1.0) / 2.0) % 1.0))
    return (np.stack([np.arange(num), order], axis=1) + 0.5) / num - 0.5


def _look_up(scene: LitScene, seen: _Hits, texels: _Floats) -> ArrayF32:
    """Return the radiance (N, 3) for rays so many texels apart.

    It is interpolated in place and between the two nearest pyramid levels.
    """
    last = scene.num_levels[seen.surface] - 1
    level = np.clip(np.log2(np.maximum(texels, 1e-9)), 0, last)
    lower = level.astype(np.int64)
    share = (level - lower).astype(np.float32)[:, None]
    colour = _bilinear(scene, seen, lower) * (1 - share)
    blend = np.flatnonzero(share[:, 0] > 0)
    partly = seen.take(blend)
    colour[blend] += _bilinear(scene, partly, np.minimum(lower + 1, last)[blend]) * share[blend]
    return colour


def _bilinear(scene: LitScene, seen: _Hits, level: _Ints) -> ArrayF32:
    width = scene.widths[seen.surface, level]
    base_width, base_height = scene.widths[seen.surface, 0], scene.heights[seen.surface, 0]
    shrink = np.exp2(-level).astype(np.float32)
    x = np.clip(seen.u * base_width * shrink - 0.5, 0, width - 1)
    height = scene.heights[seen.surface, level]
    y = np.clip(seen.v * base_height * shrink - 0.5, 0, height - 1)
    x0, y0 = x.astype(np.int64), y.astype(np.int64)
    fx, fy = (x - x0).astype(np.float32)[:, None], (y - y0).astype(np.float32)[:, None]
    first = scene.starts[seen.surface, level] + y0 * width + x0
    right = (x0 + 1 < width).astype(np.int64)
    down = np.where(y0 + 1 < height, width, 0)
    take = scene.texels.take
    top = take(first, axis=0) * (1 - fx) + take(first + right, axis=0) * fx
    low = take(first + down, axis=0) * (1 - fx) + take(first + down + right, axis=0) * fx
    return np.asarray(top * (1 - fy) + low * fy, dtype=np.float32)


def _add_highlight(
    radiance: ArrayF32,
    hit: _Ints,
    rays: ArrayF64,
    seen: _Hits,
    planes: _Planes,
    *,
    lamp: Lamp,
    cam_from_world: pycolmap.Rigid3d,
) -> None:
    """Add a lamp's reflection on glossy surfaces (J. Blinn, SIGGRAPH 1977), without shadows."""
    glossy = np.flatnonzero(planes.specular[seen.surface] > 0)
    if not len(glossy):
        return
    surface = seen.surface[glossy]
    to_lamp = cam_from_world * lamp.position[None] - rays[glossy] / seen.nearness[glossy, None]
    distance = np.linalg.norm(to_lamp, axis=1, keepdims=True)
    half = to_lamp / distance - rays[glossy]
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    cosine = np.maximum(np.sum(half * planes.normal[surface], axis=1), 0.0)
    strength = planes.specular[surface] * cosine**_SHININESS / distance[:, 0] ** 2
    radiance[hit[glossy]] += (strength[:, None] * lamp.power).astype(np.float32)
