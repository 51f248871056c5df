"""Pairs from a COLMAP model: its tracks say where a few pixels lie in the other photograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.geometry.raster import shrink
from sfm_match.io.images import read_image
from sfm_match.io.model import ModelError, read_model
from sfm_match.synthetic.textures import as_rgb
from sfm_match.training.light import Light, changed_light
from sfm_match.training.pairs import DensePair, Source
from sfm_match.training.rendered import cropped
from sfm_match.types import ArrayF32, ArrayF64, Image

_KEPT_IMAGES = 32


@dataclass(frozen=True)
class Tracked:
    """Which pairs of a model are taken, and what of them.

    Attributes:
        size: side of a crop, in pixels.
        resize: shrink photographs so that their long side has at most so many pixels.
        min_shared: points that both photographs of a pair have to see.
        max_error: largest reprojection error of an observation, in full-size pixels.
        min_in_crop: points in a crop that the other one has to show.
    """

    size: int = 192
    resize: int = 1024
    min_shared: int = 50
    max_error: float = 2.0
    min_in_crop: int = 15


@dataclass(frozen=True, eq=False)
class _Photograph:
    """Observations of a photograph.

    Attributes:
        name: of the image's file.
        size: width and height, in pixels.
        points: int64 (N,), ids of the points, ascending.
        positions: float64 (N, 2), corner-origin pixels.
    """

    name: str
    size: tuple[int, int]
    points: npt.NDArray[np.int64]
    positions: ArrayF64


def tracking(model: Path, images: Path, tracked: Tracked, light: Light) -> Source:
    """Return a source of pairs of crops from the photographs of a COLMAP model.

    Args:
        model: folder of the model.
        images: folder of its images.
        tracked: which pairs.
        light: what changes beside what the photographs differ in.

    Raises:
        ModelError: there is no such model, or no two of its images share enough points.
        ImageError: an image cannot be read.
    """
    reconstruction = read_model(model)
    photographs = [_photograph(reconstruction, i, tracked) for i in reconstruction.reg_image_ids()]
    pairs = [
        (a, b)
        for a in photographs
        for b in photographs
        if a is not b and len(np.intersect1d(a.points, b.points)) >= tracked.min_shared
    ]
    if not pairs:
        raise ModelError(
            f"{model}: no two images share {tracked.min_shared} points; training on tracks needs "
            "a model with points, as `sfm-match map` leaves it"
        )

    @lru_cache(_KEPT_IMAGES)
    def read(name: str) -> Image:
        return as_rgb(shrink(read_image(images / name).pixels, tracked.resize))

    return partial(_pair, pairs=pairs, read=read, tracked=tracked, light=light)


def _photograph(model: pycolmap.Reconstruction, image_id: int, tracked: Tracked) -> _Photograph:
    image = model.images[image_id]
    camera = model.cameras[image.camera_id]
    observed = [p for p in image.points2D if p.has_point3D()]
    ids = np.array([p.point3D_id for p in observed], np.int64)
    positions = np.array([p.xy for p in observed], np.float64).reshape(-1, 2)
    known = np.array([model.points3D[int(i)].error <= tracked.max_error for i in ids], np.bool_)
    ids, positions = ids[known], positions[known]
    # One observation of each point.
    ids, first = np.unique(ids, return_index=True)
    return _Photograph(image.name, (camera.width, camera.height), ids, positions[first])


def _pair(
    rng: np.random.Generator,
    pairs: Sequence[tuple[_Photograph, _Photograph]],
    read: Callable[[str], Image],
    tracked: Tracked,
    light: Light,
) -> DensePair:
    while True:
        a, b = pairs[int(rng.integers(len(pairs)))]
        image0, image1 = read(a.name), read(b.name)
        if min(*image0.shape[:2], *image1.shape[:2]) < tracked.size:
            raise ModelError(
                f"{a.name}, {b.name}: a photograph is smaller than a crop of {tracked.size} pixels"
            )
        flow = sparse_flow(a, b, image0.shape[:2], image1.shape[:2])
        least = tracked.min_in_crop / tracked.size**2
        found = cropped(rng, image0, image1, flow, tracked.size, least)
        if found is not None:
            crop0, crop1, there = found
            return DensePair(
                changed_light(rng, crop0, light), changed_light(rng, crop1, light), there
            )


def sparse_flow(
    a: _Photograph, b: _Photograph, shape0: tuple[int, ...], shape1: tuple[int, ...]
) -> ArrayF32:
    """Return the flow (H, W, 2) of pictures of given shapes: known where a point is observed.

    The rest of a pixel moves as its observation does.
    """
    _, rows0, rows1 = np.intersect1d(a.points, b.points, return_indices=True)
    points0 = a.positions[rows0] * (np.array(shape0[1::-1]) / a.size)
    points1 = b.positions[rows1] * (np.array(shape1[1::-1]) / b.size)
    pixels = np.floor(points0).astype(np.int64)
    pixels = np.clip(pixels, 0, np.array(shape0[1::-1]) - 1)
    flow = np.full((*shape0[:2], 2), np.nan, np.float32)
    flow[pixels[:, 1], pixels[:, 0]] = points1 + (pixels + 0.5 - points0)
    return flow
