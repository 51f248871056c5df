"""Pairs from single pictures: two crops of a plane, seen from two places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from sfm_match.training.light import Light, changed_light
from sfm_match.training.pairs import DensePair, Source
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Image

_HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""Positions from the centre of the first pixel (OpenCV's) to positions from its corner."""


@dataclass(frozen=True)
class Warps:
    """How far two crops of a picture differ.

    Attributes:
        size: side of a crop, in pixels.
        max_zoom: largest ratio of their scales.
        turn: standard deviation of the rotation between them, in degrees.
        tilt: how far corners move towards each other, relative to the side.
        shift: largest shift, relative to the side.
        max_shrink: largest ratio of the picture's resolution to a crop's; smaller where the
            picture ends before.
    """

    size: int = 192
    max_zoom: float = 1.7
    turn: float = 15.0
    tilt: float = 0.15
    shift: float = 0.25
    max_shrink: float = 4.0


def halvings(picture: Image) -> list[Image]:
    """Return a picture and ever smaller ones, each of half the size, down to some pixels."""
    levels = [picture]
    while min(levels[-1].shape[:2]) >= 64:
        height, width = levels[-1].shape[:2]
        small = cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(small, np.uint8))
    return levels


def warping(pictures: Sequence[Image], warps: Warps, light: Light) -> Source:
    """Return a source of pairs from pictures, uint8 (H, W, 3), any sizes."""
    pyramids = [halvings(picture) for picture in pictures]
    return partial(warped_pair, pyramids=pyramids, warps=warps, light=light)


def warped_pair(
    rng: np.random.Generator, pyramids: Sequence[list[Image]], warps: Warps, light: Light
) -> DensePair:
    """Return two crops of one of the pictures, each given with its `halvings`."""
    pyramid = pyramids[int(rng.integers(len(pyramids)))]
    picture0 = first_view(rng, pyramid[0].shape[:2], warps)
    to_first = _other_view(rng, warps)
    flow = flow_of(np.linalg.inv(to_first).astype(np.float64), warps.size)
    # What is beyond the picture is made up.
    inside0 = _inside(flow_of(picture0, warps.size), pyramid[0].shape[:2])
    inside1 = _inside(flow_of(picture0 @ to_first, warps.size), pyramid[0].shape[:2])
    seen = cv2.remap(inside1.astype(np.uint8), *_maps(flow), cv2.INTER_NEAREST)
    flow[~(inside0 & (seen > 0))] = np.nan
    image0, image1 = (crop(pyramid, view, warps.size) for view in (picture0, picture0 @ to_first))
    return DensePair(changed_light(rng, image0, light), changed_light(rng, image1, light), flow)


def first_view(rng: np.random.Generator, shape: tuple[int, ...], warps: Warps) -> ArrayF64:
    """Return a similarity from a crop to a picture of a shape, with an upright crop inside."""
    height, width = shape
    largest = max(0.5, min(width, height) / warps.size)
    scale = np.exp(rng.uniform(np.log(0.5), np.log(min(warps.max_shrink, largest))))
    room = np.maximum(np.array([width, height]) - scale * warps.size, 0)
    x, y = rng.uniform(0, 1, 2) * room
    flip = rng.random() < 0.5
    across = -scale if flip else scale
    return np.array(
        [[across, 0, x + (scale * warps.size if flip else 0)], [0, scale, y], [0, 0, 1]]
    )


def _other_view(rng: np.random.Generator, warps: Warps) -> ArrayF64:
    """Return a homography from the second crop to the first."""
    size = warps.size
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float64)
    angle = np.radians(rng.normal(0, warps.turn))
    scale = np.exp(rng.uniform(-1, 1) * np.log(warps.max_zoom))
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    moved = (corners - size / 2) @ np.array([[cos, sin], [-sin, cos]]) + size / 2
    moved += rng.uniform(-warps.tilt, warps.tilt, (4, 2)) * size * scale
    moved += rng.uniform(-warps.shift, warps.shift, 2) * size
    found = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return np.asarray(found, np.float64)


def flow_of(homography: ArrayF64, size: int) -> ArrayF32:
    """Return where the pixel centres of a crop go, (size, size, 2), in corner-origin pixels."""
    return _carried(homography, np.arange(size, dtype=np.float64) + 0.5)


def _carried(homography: ArrayF64, axis: ArrayF64) -> ArrayF32:
    """Return where the points go whose x and y are each one of an axis."""
    x, y = np.meshgrid(axis, axis)
    lifted = np.stack([x, y, np.ones_like(x)], axis=2) @ homography.T
    return np.asarray(lifted[..., :2] / lifted[..., 2:], np.float32)


def _inside(positions: ArrayF32, shape: tuple[int, ...]) -> ArrayBool:
    return np.asarray(((positions >= 0) & (positions < [shape[1], shape[0]])).all(axis=2), np.bool_)


def _maps(flow: ArrayF32) -> tuple[ArrayF32, ArrayF32]:
    return flow[..., 0] - np.float32(0.5), flow[..., 1] - np.float32(0.5)


def crop(pyramid: Sequence[Image], view: ArrayF64, size: int) -> Image:
    """Return what a crop shows of a picture, from the level whose pixels are about as large.

    Args:
        pyramid: the picture and its `halvings`.
        view: from the crop to the picture, in corner-origin pixels.
        size: side of the crop.
    """
    middle = _carried(view, size // 2 + np.array([-0.5, 0.5]))
    area = abs(np.linalg.det(np.stack([middle[0, 1] - middle[0, 0], middle[1, 0] - middle[0, 0]])))
    level = int(np.clip(np.round(np.log2(max(area, 1e-6)) / 2), 0, len(pyramid) - 1))
    image = pyramid[level]
    full = pyramid[0].shape
    scale = np.diag([image.shape[1] / full[1], image.shape[0] / full[0], 1.0])
    raster = np.linalg.inv(_HALF) @ scale @ view @ _HALF
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = cv2.warpPerspective(
        image, raster, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(found, np.uint8)
