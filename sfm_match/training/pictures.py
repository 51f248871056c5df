"""The pictures that training takes its crops from."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from sfm_match.io.images import list_images, read_image
from sfm_match.spec import ConfigError
from sfm_match.synthetic.textures import as_rgb, collage, fractal_noise, painting, to_image
from sfm_match.types import Image

LICENCES = {
    "skimage/data/camera.png": "CC0-1.0, Lav Varshney",
    "skimage/data/cell.png": "CC0-1.0",
    "skimage/data/chelsea.png": "CC0-1.0, Stefan van der Walt",
    "skimage/data/clock_motion.png": "public domain, Stefan van der Walt",
    "skimage/data/gravel.png": "CC0-1.0, CC0Textures",
    "skimage/data/microaneurysms.png": "CC0-1.0, Andreas Maier",
    "skimage/data/retina.jpg": "CC0-1.0, Mikael Häggström",
    "skimage/data/rocket.jpg": "public domain, SpaceX",
    "sklearn/datasets/images/china.jpg": "CC-BY-2.0, danielbuechele",
    "sklearn/datasets/images/flower.jpg": "CC-BY-2.0, vultilion",
}
"""Photographs in the wheels of scikit-image and scikit-learn, and what allows to use them."""

_SHAPE = 480, 640


def read_pictures(folder: Path) -> list[Image]:
    """Return all pictures below a folder, uint8 (H, W, 3), in the order of their names.

    Raises:
        ImageError: there is none, or one cannot be read.
    """
    return [as_rgb(read_image(folder / name).pixels) for name in list_images(folder)]


def free_photographs() -> list[Image]:
    """Return the photographs of `LICENCES`.

    Raises:
        ConfigError: a package that has them is not installed.
    """
    return [as_rgb(read_image(_place(name)).pixels) for name in LICENCES]


def _place(name: str) -> Path:
    package, *parts = name.split("/")
    found = find_spec(package)
    if found is None or found.origin is None:
        raise ConfigError(
            f"training on free photographs needs {name}: pip install scikit-image scikit-learn, "
            "or name a folder of your own pictures"
        )
    return Path(found.origin).parent.joinpath(*parts)


def made_up(seed: int, photographs: Sequence[Image], num: int) -> list[Image]:
    """Return pictures that are computed: leaves, collages and paintings in turn."""
    pictures = []
    for number in range(num):
        rng = np.random.default_rng([seed, number])
        if number % 3 == 0:
            pictures.append(leaves(rng, _SHAPE))
        elif number % 3 == 1:
            pictures.append(collage(rng, photographs, _SHAPE, num_patches=30))
        else:
            pictures.append(painting(rng, _SHAPE, num_shapes=250))
    return pictures


def leaves(rng: np.random.Generator, shape: tuple[int, int], num: int = 4000) -> Image:
    """Return textured discs and polygons that hide each other, of all sizes.

    The "dead leaves" model (Lee, Mumford, Huang, IJCV 2001), whose statistics are those of
    photographs: radii have a density of the inverse cube.
    """
    height, width = shape
    texture = 28 * fractal_noise(rng, shape, finest=1.0, coarsest=16.0)
    values = np.repeat(128 + texture[..., None], 3, axis=2)
    smallest, largest = 3.0, min(shape) / 4
    shares = rng.uniform(0, 1, num)
    radii = 1 / np.sqrt(smallest**-2 - shares * (smallest**-2 - largest**-2))
    for radius in radii:
        mask = np.zeros(shape, np.uint8)
        centre = rng.uniform(0, [width, height])
        corners = int(rng.integers(3, 9))
        if corners > 6:
            at = (int(centre[0]), int(centre[1]))
            cv2.circle(mask, at, max(1, int(radius)), 255, -1, cv2.LINE_AA)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
            outline = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            cv2.fillPoly(mask, [outline.astype(np.int32)], 255, cv2.LINE_AA)
        colour = rng.uniform(20, 235) + rng.normal(0, 20, 3)
        grain = np.roll(texture, tuple(rng.integers(0, shape)), axis=(0, 1)) * rng.uniform(0, 1.5)
        rows = slice(max(0, int(centre[1] - radius) - 2), int(centre[1] + radius) + 3)
        columns = slice(max(0, int(centre[0] - radius) - 2), int(centre[0] + radius) + 3)
        share = mask[rows, columns, None].astype(np.float32) / 255
        leaf = colour.astype(np.float32) + grain[rows, columns, None].astype(np.float32)
        values[rows, columns] += share * (leaf - values[rows, columns])
    return to_image(values)
