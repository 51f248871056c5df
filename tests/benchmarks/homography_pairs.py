"""Pairs of pictures made from photographs, with the exact homography between them.

Both pictures are resampled from the full-size photograph, so that neither is a copy of the other,
and each of their pixels averages several: nothing is aliased, and nothing is enlarged by much.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sfm_match.benchmarks.datasets import HomographyPair, HomographySet
from sfm_match.geometry.homographies import warp
from sfm_match.io.images import list_images, read_image
from sfm_match.training.light import Light, changed_light
from sfm_match.types import ArrayF64, Image

MIN_LONG_SIDE = 960
MAX_DEGREES = 30.0
MAX_TILT = 0.12
"""How far corners are moved, of the side."""
ZOOMS = (0.65, 1.25)
"""Of the second picture against the first."""
FIRST_SCALES = (0.7, 0.8)
"""Of the first picture against the photograph."""
MIN_SHARE_INSIDE = 0.7
"""Of the second picture; the rest mirrors the photograph."""
MAX_ENLARGED = 1.05
LIGHT = Light(blurred=0.0, max_noise=4.0)
SAMPLES = 3
"""Along each side of a pixel."""

# OpenCV's positions are counted from the centre of the first pixel.
_CORNER_FROM_CENTRE = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])


def make_pairs(photographs: Path, folder: Path, num: int, seed: int = 0) -> HomographySet:
    """Return pairs of different photographs below a folder, written where they are not there yet.

    Args:
        photographs: their folder, at any depth.
        folder: of the pairs: `00/0.png`, `00/1.png`, `01/0.png`, ...
        num: how many pairs.
        seed: of the choice and of the homographies.
    """
    names = [n for n in list_images(photographs) if "/images/" in f"/{n}"]
    order = np.random.default_rng(seed).permutation(len(names))
    pairs: list[HomographyPair] = []
    for name in (names[i] for i in order):
        photograph = _colour(read_image(photographs / name).pixels)
        if max(photograph.shape[:2]) < MIN_LONG_SIDE:
            continue
        number = len(pairs)
        pairs.append(_pair(photograph, folder, number, np.random.default_rng((seed, number))))
        if len(pairs) == num:
            return HomographySet(folder, tuple(pairs))
    raise ValueError(f"{photographs}: {len(pairs)} large photographs, {num} are needed")


def _colour(image: Image) -> Image:
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def _pair(photograph: Image, folder: Path, number: int, rng: np.random.Generator) -> HomographyPair:
    full = np.array(photograph.shape[1::-1], np.float64)
    size = np.rint(rng.uniform(*FIRST_SCALES) * full).astype(int)
    from_first = np.diag([*(full / size), 1.0])
    to_first = _view(rng, size.astype(np.float64))
    while not _is_shown(from_first @ to_first, size, full):
        to_first = _view(rng, size.astype(np.float64))
    names = f"{number:02}/0.png", f"{number:02}/1.png"
    if not (folder / names[1]).exists():
        (folder / names[0]).parent.mkdir(parents=True, exist_ok=True)
        first = _seen(photograph, from_first, size)
        second = changed_light(rng, _seen(photograph, from_first @ to_first, size), LIGHT)
        for name, picture in zip(names, (first, second), strict=True):
            cv2.imwrite(str(folder / name), picture[:, :, ::-1])
    return HomographyPair(names, np.asarray(np.linalg.inv(to_first), np.float64), "viewpoint")


def _view(rng: np.random.Generator, size: ArrayF64) -> ArrayF64:
    """Return a homography from a second picture to a first of the same width and height."""
    corners = size * [[0, 0], [1, 0], [1, 1], [0, 1]]
    zoom = np.exp(rng.uniform(*np.log(ZOOMS)))
    angle = np.radians(rng.uniform(-MAX_DEGREES, MAX_DEGREES))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = (corners - size / 2) @ turn + size / 2
    moved += rng.uniform(-MAX_TILT, MAX_TILT, (4, 2)) * size
    moved = (moved - size / 2) / zoom + size / 2
    found = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return np.asarray(found, np.float64)


def _is_shown(view: ArrayF64, size: ArrayF64, full: ArrayF64) -> bool:
    """Return whether enough of a view lies in the photograph, nowhere enlarged by much."""
    steps = np.linspace(0, 1, 20)
    grid = np.stack(np.meshgrid(steps, steps), axis=2).reshape(-1, 2) * size
    there = warp(grid, view)
    inside = ((there >= 0) & (there < full)).all(axis=1)
    across, down = (warp(grid + step, view) - there for step in ([1.0, 0.0], [0.0, 1.0]))
    areas = np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0])
    return bool(inside.mean() >= MIN_SHARE_INSIDE and areas.min() >= MAX_ENLARGED**-2)


def _seen(photograph: Image, view: ArrayF64, size: ArrayF64) -> Image:
    """Return a picture of a size, given the homography from its pixels to the photograph's."""
    finer = np.diag([1 / SAMPLES, 1 / SAMPLES, 1.0])
    raster = np.linalg.inv(_CORNER_FROM_CENTRE) @ view @ finer @ _CORNER_FROM_CENTRE
    width, height = (int(side) for side in size)
    samples = cv2.warpPerspective(
        photograph,
        raster,
        (width * SAMPLES, height * SAMPLES),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
