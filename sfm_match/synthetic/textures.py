"""Textures made of noise and of photographs; unlike everywhere, as matching needs them.

A texture that repeats makes matches ambiguous, so none of these tiles anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sfm_match.types import ArrayF32, Image

Colour = tuple[float, float, float]
"""sRGB, 0 to 255."""


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    finest: float = 2.0,
    coarsest: float = 128.0,
    roughness: float = 0.5,
    stretch: float = 1.0,
) -> ArrayF32:
    """Return noise whose octaves run from fine to coarse, float32 (h, w), mean 0, deviation 1.

    Args:
        rng: source of the noise.
        shape: rows, columns.
        finest: the smallest wavelength's half, in texels.
        coarsest: the largest one's.
        roughness: an octave's amplitude is its wavelength to this power.
        stretch: how much longer the noise is across than down.
    """
    noise = np.zeros(shape, dtype=np.float32)
    cell = finest
    while cell <= max(coarsest, finest):
        rows = int(np.ceil(shape[0] / cell)) + 3
        columns = int(np.ceil(shape[1] / (cell * stretch))) + 3
        coarse = rng.standard_normal((rows, columns), dtype=np.float32)
        fine = cv2.resize(
            coarse,
            (int(columns * cell * stretch), int(rows * cell)),
            interpolation=cv2.INTER_CUBIC,
        )
        top, left = int(cell), int(cell * stretch)
        noise += cell**roughness * fine[top : top + shape[0], left : left + shape[1]]
        cell *= 2
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-9), dtype=np.float32)


def plaster(
    rng: np.random.Generator, shape: tuple[int, int], colour: Colour, contrast: float = 0.08
) -> Image:
    """Return an uneven, stained coat of paint.

    Args:
        rng: source of its unevenness.
        shape: rows, columns.
        colour: its mean.
        contrast: standard deviation of its brightness, relative.
    """
    shade = fractal_noise(rng, shape, finest=1.5, coarsest=96.0, roughness=0.25)
    tint = fractal_noise(rng, shape, finest=24.0, coarsest=192.0)
    stains = np.minimum(fractal_noise(rng, shape, finest=4.0, coarsest=24.0) + 1.6, 0.0)
    brightness = 1.0 + contrast * (shade + 1.5 * stains)
    warmth = 0.2 * contrast * tint[..., None] * np.array([1.0, 0.0, -1.0])
    return to_image(np.asarray(colour) * (brightness[..., None] + warmth))


def planks(
    rng: np.random.Generator,
    shape: tuple[int, int],
    colour: Colour,
    *,
    width: int = 24,
    length: int = 260,
) -> Image:
    """Return boards that run across the texture, each of its own length, tone and grain.

    Args:
        rng: source of the boards.
        shape: rows, columns.
        colour: their mean.
        width: of a board, in texels.
        length: of a board, the mean, in texels.
    """
    grain = fractal_noise(rng, shape, finest=1.2, coarsest=12.0, roughness=0.3, stretch=9.0)
    blotches = fractal_noise(rng, shape, finest=3.0, coarsest=24.0, stretch=2.0)
    brightness = 1.0 + 0.09 * grain + 0.05 * blotches
    warmth = np.zeros(shape)
    for top in range(0, shape[0], width):
        rows = slice(top, min(top + width, shape[0]))
        left = -int(rng.integers(length))
        while left < shape[1]:
            end = left + int(rng.uniform(0.5, 1.5) * length)
            columns = slice(max(left, 0), max(end, 0))
            brightness[rows, columns] *= rng.normal(1.0, 0.14)
            warmth[rows, columns] += rng.normal(0.0, 0.03)
            brightness[rows, max(end - 1, 0) : max(end, 0)] *= 0.45
            left = end
        brightness[rows.stop - 1] *= 0.5
    shift = warmth[..., None] * np.array([1.0, 0.0, -1.0])
    return to_image(np.asarray(colour) * (brightness[..., None] + shift))


def canvas(
    rng: np.random.Generator, photograph: Image, factor: float = 2.0, contrast: float = 0.05
) -> Image:
    """Return a photograph enlarged as a print, with the fine grain of its canvas.

    An enlarged photograph alone has nothing fine in it; the grain is what a near view sees.

    Args:
        rng: source of the grain.
        photograph: uint8 (h, w, 3) or (h, w).
        factor: of enlargement.
        contrast: standard deviation of the grain, relative.
    """
    size = (round(photograph.shape[1] * factor), round(photograph.shape[0] * factor))
    large = cv2.resize(as_rgb(photograph), size, interpolation=cv2.INTER_CUBIC)
    grain = fractal_noise(rng, large.shape[:2], finest=1.0, coarsest=8.0, roughness=0.2)
    return to_image((large + 12.0) * (1.0 + contrast * grain[..., None]) - 12.0)


def painting(rng: np.random.Generator, shape: tuple[int, int], num_shapes: int = 60) -> Image:
    """Return an abstract painting: discs, bars and polygons, with the strokes of the brush.

    Args:
        rng: source of its shapes and colours.
        shape: rows, columns.
        num_shapes: how many shapes, the large ones below the small ones.
    """
    height, width = shape
    colours = _palette(rng, 7)
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[:] = colours[0]
    for size in np.geomspace(0.3, 0.03, num_shapes) * min(height, width):
        colour = colours[rng.integers(len(colours))]
        centre = rng.uniform(0, [width, height])
        kind = rng.integers(3)
        if kind == 0:
            axes = (int(size), int(size * rng.uniform(0.4, 1.0)))
            at, turn = (int(centre[0]), int(centre[1])), float(rng.uniform(0, 180))
            cv2.ellipse(image, at, axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 1:
            angles = np.sort(rng.uniform(0, 2 * np.pi, size=rng.integers(3, 6)))
            outline = centre + 1.4 * size * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            cv2.fillPoly(image, [outline.astype(np.int32)], colour, cv2.LINE_AA)
        else:
            end = centre + 4.0 * size * rng.uniform(-1, 1, size=2)
            points = [(int(p[0]), int(p[1])) for p in (centre, end)]
            cv2.line(image, points[0], points[1], colour, int(2 + size / 6), cv2.LINE_AA)
    strokes = fractal_noise(rng, shape, finest=2.0, coarsest=32.0, roughness=0.1, stretch=2.5)
    return canvas(rng, to_image(image * (1 + 0.12 * strokes[..., None])), 1.0, contrast=0.07)


def _palette(rng: np.random.Generator, num: int) -> list[tuple[int, int, int]]:
    """Return colours that go together: one hue and its neighbours, muted, and one accent."""
    hue = (rng.choice([4, 12, 20, 30, 48, 75, 100, 110, 170]) + rng.normal(0, 10, size=num)) % 180
    hue[-1] = (hue[0] + 90) % 180
    saturation, value = rng.uniform(25, 120, size=num), np.linspace(45, 235, num)
    hsv = np.stack([hue, saturation, rng.permutation(value)], axis=1)
    rgb = cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]
    return [(int(r), int(g), int(b)) for r, g, b in rgb]


def tinted(photograph: Image, dark: Colour, light: Colour) -> Image:
    """Return the photograph's brightness as a range of colours from dark to light."""
    grey = as_rgb(photograph).mean(axis=2, dtype=np.float32)[..., None] / 255.0
    return to_image(np.asarray(dark) * (1.0 - grey) + np.asarray(light) * grey)


def collage(
    rng: np.random.Generator,
    photographs: Sequence[Image],
    shape: tuple[int, int],
    *,
    num_patches: int = 12,
    patch_size: tuple[float, float] = (0.15, 0.45),
) -> Image:
    """Return random pieces of photographs over a background of noise, each one changed.

    Every piece has its own cut, size, mirroring, quarter turn, contrast and tint, so that two
    pieces of one photograph do not look alike.

    Args:
        rng: source of all choices.
        photographs: uint8 (h, w, 3) or (h, w), at least one.
        shape: rows, columns.
        num_patches: how many pieces are laid over one another.
        patch_size: range of a piece's sides, relative to the texture's.

    Raises:
        ValueError: there is no photograph.
    """
    if not len(photographs):
        raise ValueError("a collage needs at least one photograph, got none")
    base = rng.uniform(90, 200) + rng.uniform(-25, 25, size=3)
    texture = plaster(rng, shape, (base[0], base[1], base[2]), contrast=0.12)
    for _ in range(num_patches):
        height, width = (max(8, int(n * rng.uniform(*patch_size))) for n in shape)
        height, width = min(height, shape[0]), min(width, shape[1])
        top = int(rng.integers(shape[0] - height + 1))
        left = int(rng.integers(shape[1] - width + 1))
        source = photographs[int(rng.integers(len(photographs)))]
        piece = _changed_piece(rng, as_rgb(source), (height, width))
        texture[top : top + height, left : left + width] = piece
    return texture


def _changed_piece(rng: np.random.Generator, photograph: Image, shape: tuple[int, int]) -> Image:
    rows, columns = photograph.shape[:2]
    share = rng.uniform(0.3, 1.0, size=2)
    height, width = max(1, int(rows * share[0])), max(1, int(columns * share[1]))
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    piece = np.rot90(photograph[top : top + height, left : left + width], int(rng.integers(4)))
    if rng.random() < 0.5:
        piece = piece[:, ::-1]
    size = (shape[1], shape[0])
    resized = cv2.resize(np.ascontiguousarray(piece), size, interpolation=cv2.INTER_CUBIC)
    gain = rng.uniform(0.6, 1.2) * rng.uniform(0.85, 1.15, size=3)
    grain = fractal_noise(rng, shape, finest=1.0, coarsest=8.0, roughness=0.2)
    return to_image(resized * gain + rng.uniform(0, 40) + 6.0 * grain[..., None])


def as_rgb(image: Image) -> Image:
    """Return the image as (h, w, 3), a grey one with three equal channels."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def to_image(values: npt.NDArray[np.floating[Any]]) -> Image:
    """Return values rounded and clipped to uint8."""
    return np.asarray(np.rint(np.clip(values, 0, 255)), dtype=np.uint8)
