"""Colours of values, and photographs muted so that colours on them can be told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sfm_match.geometry.raster import to_grey
from sfm_match.types import ArrayF32, Image

Floats = npt.NDArray[np.floating[Any]]

AGREES = "#2ee6c5"
DISAGREES = "#ff6b3d"
FAINT = "#ffffff"

# Their ends differ in lightness and in blue, which is seen with every kind of colour vision.
_ERROR = ("#2ee6c5", "#f7f06d", "#ffa23a", "#f2305a")
# Those of matplotlib's viridis and magma at even distances; the darkest of viridis is left out,
# for it cannot be seen on a dark photograph.
_SCORE = ("#3b528b", "#21918c", "#5ec962", "#fde725")
_MAP = ("#000004", "#3b0f70", "#8c2981", "#de4968", "#fe9f6d", "#fcfdbf")

_MIN_ERROR, _MAX_ERROR = 0.25, 8.0
_COLOUR_LEFT = 0.35
_LIGHTEST, _LIGHTEST_PERCENT = 150.0, 90.0
_MIN_GAIN, _MAX_GAIN = 0.5, 0.9
_SHOWN_PERCENT = (1.0, 99.0)


@dataclass(frozen=True)
class Scale:
    """How values become colours.

    Attributes:
        label: what the values are, with their unit.
        low: the value of the first colour; lower ones have it too.
        high: the value of the last colour.
        stops: colours such as ``#2ee6c5`` at even distances.
        is_log: the logarithms of the values lie at even distances.
    """

    label: str
    low: float
    high: float
    stops: tuple[str, ...]
    is_log: bool = False

    def colours(self, values: Floats) -> ArrayF32:
        """Return red, green and blue from 0 to 1, float32 (..., 3), of values (...)."""
        limits = np.array([self.low, self.high], np.float64)
        values = np.asarray(values, np.float64)
        if self.is_log:
            limits, values = np.log(limits), np.log(np.maximum(values, self.low))
        width = max(float(limits[1] - limits[0]), np.finfo(np.float64).tiny)
        place = np.clip((values - limits[0]) / width, 0, 1) * (len(self.stops) - 1)
        stops = np.array([_rgb(stop) for stop in self.stops])
        parts = [np.interp(place, np.arange(len(stops)), stops[:, i]) for i in range(3)]
        return np.stack(parts, axis=-1).astype(np.float32)


def error_scale(label: str = "epipolar error, px") -> Scale:
    """Return the scale of errors in pixels, the same for all pictures."""
    return Scale(label, _MIN_ERROR, _MAX_ERROR, _ERROR, is_log=True)


def score_scale(scores: Floats, label: str = "score") -> Scale:
    """Return a scale over the range that scores (M,) have."""
    finite = np.asarray(scores)[np.isfinite(scores)]
    low, high = np.percentile(finite, _SHOWN_PERCENT) if len(finite) else (0.0, 1.0)
    return Scale(label, float(low), float(high), _SCORE)


def map_scale(label: str = "") -> Scale:
    """Return the scale of a map of values from 0 to 1."""
    return Scale(label, 0.0, 1.0, _MAP)


def muted(image: Image) -> Image:
    """Return an image, uint8 (H, W, 3), with less colour and darker, above all if it is light."""
    grey = to_grey(image)[:, :, None].astype(np.float32)
    colour = image if image.ndim == 3 else image[:, :, None]
    mixed = _COLOUR_LEFT * colour + (1 - _COLOUR_LEFT) * grey
    light = max(float(np.percentile(grey[::4, ::4], _LIGHTEST_PERCENT)), 1.0)
    gain = np.clip(_LIGHTEST / light, _MIN_GAIN, _MAX_GAIN)
    return np.broadcast_to(gain * mixed, (*image.shape[:2], 3)).astype(np.uint8)


def principal_colours(*descriptors: Floats) -> list[Image]:
    """Return dense descriptors as colours: their three principal components, uint8 (h, w, 3).

    What has the same descriptor has the same colour, in all maps that are given together. Each
    component fills its channel from the first to the 99th percentile.

    Args:
        descriptors: floating (h, w, D), of any sizes but one D.
    """
    rows = np.concatenate([np.asarray(d, np.float32).reshape(-1, d.shape[-1]) for d in descriptors])
    rows = rows - rows.mean(axis=0)
    _, axes = np.linalg.eigh(rows.T @ rows)
    axes = axes[:, ::-1][:, :3]
    # An axis may as well point the other way: its largest part is positive.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    parts = np.zeros((len(rows), 3), np.float32)
    parts[:, : axes.shape[1]] = rows @ axes
    low, high = np.percentile(parts, _SHOWN_PERCENT, axis=0)
    scaled = (parts - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    pixels = (np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    ends = np.cumsum([d.shape[0] * d.shape[1] for d in descriptors])[:-1]
    pieces = zip(np.split(pixels, ends), descriptors, strict=True)
    return [piece.reshape(*d.shape[:2], 3) for piece, d in pieces]


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red / 255, green / 255, blue / 255
