"""SIFT (Lowe, IJCV 2004) as COLMAP has it, by default with RootSIFT descriptors, but faster.

Keypoints are those of VLFeat, which is what COLMAP's SIFT is made of (`colmap_sift` is that SIFT
itself); OpenCV describes them, in the same layout: features of both may be matched with each other.

RootSIFT: Arandjelovic and Zisserman, "Three things everyone should know to improve object
retrieval", CVPR 2012. As COLMAP's, descriptors are bytes of norm 512; they are kept as those bytes
divided by 512, which float16 represents exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.geometry.raster import shrink, to_grey
from sfm_match.models.orientation import orientations
from sfm_match.models.scale_space import (
    SCALES,
    SIGMA,
    ArrayI64,
    Extrema,
    Octave,
    extrema,
    scale_space,
)
from sfm_match.spec import Spec
from sfm_match.types import ArrayF64, Extractor, Features, Image

VERSION = 2
CONCURRENT = True
RELEASES_GIL = True
LICENCE = "Apache-2.0"
LIBRARIES = ("opencv-python-headless",)

_DESCRIPTOR_NORM = 512.0
_DIVIDED = (np.arange(256) / _DESCRIPTOR_NORM).astype(np.float16)
_MOST_ORIENTATIONS = 2
# Below that there is nothing to find.
_MIN_SIDE = 16


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `sift`.

    Attributes:
        max_keypoints: the largest-scale features up to about this many (whole scale levels are
            kept and second orientations added, so more may come, as in COLMAP).
        resize: shrink the image so that its long side has at most so many pixels; 0 for never.
        root: RootSIFT descriptors (L1 norm, square root) instead of the L2 norm.
        first_octave: -1 doubles the image first, 0 does not.
        peak_threshold: smallest contrast of an extremum of the difference of Gaussians.
        edge_threshold: largest ratio of principal curvatures.
        upright: fix every orientation to zero.
    """

    max_keypoints: PositiveInt = 8192
    resize: NonNegativeInt = 3200
    root: bool = True
    first_octave: Literal[-1, 0] = -1
    peak_threshold: PositiveFloat = 0.02 / 3
    edge_threshold: PositiveFloat = 10.0
    upright: bool = False


@dataclass(frozen=True)
class _Keypoints:
    """N keypoints of a picture, in pixels; the centre of its first one is at 0."""

    x: ArrayF64
    y: ArrayF64
    scales: ArrayF64
    angles: ArrayF64
    octaves: ArrayI64  # 0 where samples are pixels
    levels: ArrayI64


@dataclass(frozen=True)
class _Sift:
    config: Config

    def __call__(self, image: Image) -> Features:
        full_size = np.array(image.shape[1::-1], np.int32)
        grey = np.ascontiguousarray(to_grey(shrink(image, self.config.resize or None)))
        found = _detected(grey, self.config)
        descriptors = _described(grey, found)
        scales = found.scales.astype(np.float32)
        # The score is the scale: larger features are found again more reliably; COLMAP ranks so.
        features = Features(
            keypoints=np.column_stack([found.x, found.y]).astype(np.float32) + np.float32(0.5),
            scores=scales.copy(),
            descriptors=as_units(_rooted(descriptors) if self.config.root else descriptors),
            image_size=np.array(grey.shape[::-1], np.int32),
            scales=scales,
            orientations=found.angles.astype(np.float32),
        )
        return features.resized(full_size)


def _detected(grey: Image, config: Config) -> _Keypoints:
    """Return the keypoints of a picture (H, W), the levels of the largest first."""
    parts = [np.zeros((0, 6))]
    number = 0
    for octave_number, octave, level, points in _levels(grey, config):
        if config.upright:
            rows, angles = np.arange(len(points)), np.zeros(len(points))
        else:
            rows, angles = orientations(octave.levels[level], points, _MOST_ORIENTATIONS)
        at = points.take(rows)
        places = np.column_stack([at.x, at.y, at.sigma]) * octave.spacing
        numbers = np.broadcast_to([octave_number, level], (len(rows), 2))
        parts.append(np.column_stack([places, angles, numbers]))
        number += len(points)
        if number > config.max_keypoints:
            break
    x, y, scales, angles, octave_numbers, levels = np.concatenate(parts).T
    return _Keypoints(x, y, scales, angles, octave_numbers.astype(int), levels.astype(int))


def _levels(grey: Image, config: Config) -> Iterator[tuple[int, Octave, int, Extrema]]:
    """Yield octaves with their numbers, and their levels with the extrema there, coarse ones first.

    Finer ones are searched only if they are asked for.
    """
    octaves = scale_space(grey, config.first_octave) if min(grey.shape) >= _MIN_SIDE else []
    for number, octave in reversed([*enumerate(octaves, config.first_octave)]):
        found = extrema(octave, config.peak_threshold, config.edge_threshold)
        for level in range(SCALES, 0, -1):
            yield number, octave, level, found.take(found.found_at == level)


def _described(grey: Image, keypoints: _Keypoints) -> npt.NDArray[np.uint8]:
    """Return SIFT's descriptors (N, 128), of norm 512."""
    if not len(keypoints.scales):
        return np.zeros((0, 128), np.uint8)
    # OpenCV has both numbers in one, and diameters and degrees.
    packed = (keypoints.octaves & 255) | (keypoints.levels << 8)
    degrees = np.rad2deg(keypoints.angles) % 360
    rows = zip(
        keypoints.x.tolist(),
        keypoints.y.tolist(),
        (2 * keypoints.scales).tolist(),
        degrees.tolist(),
        packed.tolist(),
        strict=True,
    )
    points = [cv2.KeyPoint(x, y, size, angle, 0, octave) for x, y, size, angle, octave in rows]
    sift = cv2.SIFT.create(nOctaveLayers=SCALES, sigma=SIGMA, enable_precise_upscale=True)
    _, descriptors = sift.compute(grey, points)  # whole numbers
    return np.asarray(descriptors).astype(np.uint8)


def _rooted(descriptors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the square roots of descriptors whose sum is 1, again of norm 512."""
    sums = np.maximum(descriptors.sum(axis=1, dtype=np.float32, keepdims=True), 1)
    roots = _DESCRIPTOR_NORM * np.sqrt(descriptors / sums)
    return np.asarray(np.rint(roots).clip(0, 255), np.uint8)


def as_units(descriptors: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """Return descriptors (N, 128), bytes of norm 512, with norm 1."""
    if not len(descriptors):
        return np.zeros(descriptors.shape, np.float16)
    return np.asarray(cv2.LUT(descriptors, _DIVIDED.view(np.uint16)).view(np.float16))


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Extractor:
    """Return the extractor; it runs on the CPU whatever the device."""
    return _Sift(config)
