"""Sizes that the network takes, and the windows of two large images that show the same."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

from sfm_match.models.loftr import CellMatches
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Image

# A tile is worth matching from so many matches at the low resolution on.
_MIN_SUPPORT = 4
# The extent of its partners is measured between these percentiles, so that single wrong matches do
# not blow it up, and then extended by what they leave out at most.
_PERCENTILES = (5.0, 95.0)
_EXTENSION = 0.1


class Window(NamedTuple):
    """A rectangle of whole pixels: its first column and row, and those after its last."""

    left: int
    top: int
    right: int
    bottom: int


ORIGIN = Window(0, 0, 0, 0)
"""Stands for a whole image where only the first column and row count."""


class Points(NamedTuple):
    """Matches in full-size pixels: float32 (M, 2) twice, and scores float32 (M,)."""

    points0: ArrayF32
    points1: ArrayF32
    scores: ArrayF32


class Tile(NamedTuple):
    """A part of an image that is matched at once.

    Attributes:
        window: what is matched.
        core: the part whose matches are kept; the cores of all tiles make up the image.
    """

    window: Window
    core: Window


def tiles(width: int, height: int, side: int, overlap: int) -> list[Tile]:
    """Return square tiles that cover an image, row by row; none is larger than needed.

    Args:
        width: of the image.
        height: of the image.
        side: of the tiles, in pixels; larger than the overlap.
        overlap: how far neighbours overlap at least.
    """
    columns, rows = (_spans(length, side, overlap) for length in (width, height))
    return [
        Tile(*(Window(x[0], y[0], x[1], y[1]) for x, y in zip(column, row, strict=True)))
        for row in rows
        for column in columns
    ]


def _spans(length: int, side: int, overlap: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return spans of one axis, spread evenly, and their cores, which meet amid the overlaps."""
    num = 1 if length <= side else -(-(length - overlap) // (side - overlap))
    starts = np.linspace(0, max(0, length - side), num).round().astype(int).tolist()
    ends = [min(length, start + side) for start in starts]
    seams = [0, *((a + b) // 2 for a, b in zip(ends, starts[1:], strict=False)), length]
    spans = zip(starts, ends, strict=True)
    return list(zip(spans, pairwise(seams), strict=True))


def window_pairs(
    points0: ArrayF32,
    points1: ArrayF32,
    tiles0: list[Tile],
    size1: tuple[int, int],
    margin: float,
) -> list[tuple[Tile, Window]]:
    """Return the tiles of the first image that are worth matching, each with its partner.

    Args:
        points0: (M, 2), matches found at a low resolution, in full-size pixels.
        points1: (M, 2), the same in the second image.
        tiles0: of the first image.
        size1: width and height of the second image.
        margin: how far the matches may be off, in full-size pixels.
    """
    found = []
    for tile in tiles0:
        inside = within(points0, tile.window)
        if np.count_nonzero(inside) >= _MIN_SUPPORT:
            found.append((tile, _around(points1[inside], size1, margin)))
    return found


def within(points: ArrayF32, window: Window) -> ArrayBool:
    """Return which points (M, 2) lie in a window."""
    low, high = np.array(window[:2]), np.array(window[2:])
    return np.asarray(((points >= low) & (points < high)).all(axis=1))


def _around(points: ArrayF32, size: tuple[int, int], margin: float) -> Window:
    low, high = np.percentile(points.astype(np.float64), _PERCENTILES, axis=0)
    extension = margin + _EXTENSION * (high - low)
    left, top = np.clip(np.floor(low - extension), 0, np.array(size) - 1).astype(int).tolist()
    right, bottom = np.clip(np.ceil(high + extension), 1, size).astype(int).tolist()
    return Window(left, top, max(right, left + 1), max(bottom, top + 1))


def cut(image: Image, window: Window) -> Image:
    """Return the pixels of a window."""
    return image[window.top : window.bottom, window.left : window.right]


def resize_to_multiples(image: Image, limit: int, multiple: int) -> Image:
    """Return a grey image whose sides are multiples of a number, without cropping.

    Args:
        image: uint8 (H, W).
        limit: the long side shrinks to about so many pixels; 0 for any size.
        multiple: each side is rounded to the nearest multiple of this, and at least once this.
    """
    height, width = image.shape
    shrink = min(1.0, limit / max(width, height)) if limit else 1.0
    new_height, new_width = (
        max(1, round(side * shrink / multiple)) * multiple for side in (height, width)
    )
    if (new_height, new_width) == (height, width):
        return image
    smaller = new_height <= height and new_width <= width
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (new_width, new_height), interpolation=interpolation))


def full_size(
    matches: CellMatches,
    scale0: ArrayF64,
    scale1: ArrayF64,
    window0: Window = ORIGIN,
    window1: Window = ORIGIN,
) -> Points:
    """Return matches in the pixels of the full-size images, parts of which were matched."""
    points0 = matches.points0.numpy() * scale0 + np.array(window0[:2])
    points1 = matches.points1.numpy() * scale1 + np.array(window1[:2])
    return Points(points0.astype(np.float32), points1.astype(np.float32), matches.scores.numpy())
