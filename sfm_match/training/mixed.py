"""Pictures mixed from others, a new one for every pair, so that none becomes known by heart.

A network that sees the same places of the same few pictures again and again learns to tell these
places apart, and no others: its losses fall, also on other warps of these pictures, while it finds
fewer matches in new ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np

from sfm_match.synthetic.textures import to_image
from sfm_match.training.light import Light
from sfm_match.training.pairs import DensePair, Source
from sfm_match.training.warps import Warps, crop, halvings, warped_pair
from sfm_match.types import ArrayF32, ArrayF64, Image

_ROOM = 1.6
"""Side of a mixed picture, relative to the crops that are taken from it."""


def mixing(pictures: Sequence[Image], warps: Warps, light: Light) -> Source:
    """Return a source of pairs from mixtures of pictures, uint8 (H, W, 3), any sizes."""
    pyramids = [halvings(picture) for picture in pictures]
    return partial(_pair, pyramids=pyramids, warps=warps, light=light)


def mixtures(seed: int, pictures: Sequence[Image], num: int, side: int) -> list[Image]:
    """Return mixed pictures, uint8 (side, side, 3)."""
    pyramids = [halvings(picture) for picture in pictures]
    return [mixture(np.random.default_rng([seed, i]), pyramids, side) for i in range(num)]


def _pair(
    rng: np.random.Generator, pyramids: Sequence[list[Image]], warps: Warps, light: Light
) -> DensePair:
    picture = mixture(rng, pyramids, int(_ROOM * warps.size))
    return warped_pair(rng, [halvings(picture)], warps, light)


def mixture(rng: np.random.Generator, pyramids: Sequence[list[Image]], side: int) -> Image:
    """Return two or three parts of pictures that show through, cover or weaken each other.

    Args:
        rng: source of randomness.
        pyramids: pictures, each with its `halvings`.
        side: of the result, in pixels.
    """
    values = _part(rng, pyramids, side)
    for _ in range(int(rng.integers(1, 3))):
        values = _joined(rng, values, _part(rng, pyramids, side), pyramids)
    deviation = max(1.0, float(values.std()))
    contrast, middle = rng.uniform(25, 65) / deviation, rng.uniform(80, 170)
    return to_image((values - values.mean()) * np.float32(contrast) + np.float32(middle))


def _part(rng: np.random.Generator, pyramids: Sequence[list[Image]], side: int) -> ArrayF32:
    """Return a part of a picture, turned, scaled and in other colours: float32 (side, side, 3)."""
    pyramid = pyramids[int(rng.integers(len(pyramids)))]
    height, width = pyramid[0].shape[:2]
    scale, angle = np.exp(rng.uniform(np.log(0.4), np.log(2.5))), rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn[:, 0] *= rng.choice([-1, 1])
    view: ArrayF64 = np.eye(3)
    view[:2, :2] = scale * turn
    view[:2, 2] = rng.uniform(0, [width, height]) - view[:2, :2] @ [side / 2, side / 2]
    values = crop(pyramid, view, side)[..., rng.permutation(3)].astype(np.float32) - 128
    return values * rng.choice([-1, 1], 3, p=[0.25, 0.75]).astype(np.float32)


def _joined(
    rng: np.random.Generator, a: ArrayF32, b: ArrayF32, pyramids: Sequence[list[Image]]
) -> ArrayF32:
    kind = int(rng.integers(5))
    if kind == 1:
        return np.maximum(a, b)
    if kind == 2:
        return np.asarray(a * (b + 128) / 128, np.float32)
    if kind == 0:
        share = np.full((1, 1, 1), rng.uniform(0.3, 0.7), np.float32)
    else:
        # One covers the other where a third is bright, or in large smooth parts.
        third = _part(rng, pyramids, len(a)).mean(axis=2) if kind == 3 else _smooth(rng, len(a))
        share = np.asarray(third > np.median(third), np.float32)[..., None]
    return np.asarray(share * a + (1 - share) * b, np.float32)


def _smooth(rng: np.random.Generator, side: int) -> ArrayF32:
    coarse = rng.standard_normal((6, 6), np.float32)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)
