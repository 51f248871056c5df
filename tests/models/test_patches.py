from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.models.patches import cut_patches

torch.set_num_threads(1)

Array = npt.NDArray[np.float64]


def cut(image: Array, x: float, y: float, side: float, angle: float = 0.0, size: int = 64) -> Array:
    """Return one patch (size, size)."""
    found = cut_patches(
        torch.from_numpy(image).float(),
        torch.tensor([[x, y]]),
        torch.tensor([side]),
        torch.tensor([angle]),
        size,
    )
    assert found.shape == (1, 1, size, size)
    return np.asarray(found[0, 0].numpy(), np.float64)


def places(x: float, y: float, side: float, angle: float, size: int = 64) -> tuple[Array, Array]:
    """Return where the cells of a patch lie in the image, x and y, each (size, size)."""
    steps = side * ((np.arange(size) + 0.5) / size - 0.5)
    across, down = np.meshgrid(steps, steps)
    cosine, sine = math.cos(angle), math.sin(angle)
    return x + cosine * across - sine * down, y + sine * across + cosine * down


def pattern(x: Array, y: Array) -> Array:
    """Return a smooth picture that is like none of its turned or mirrored versions."""
    waves = 50 * np.sin(x / 17 + 0.3) * np.cos(y / 23) + 40 * np.sin((x + 2 * y) / 61 + 1)
    return np.asarray(128 + waves)


def drawn(height: int, width: int) -> Array:
    """Return the pattern as a picture: its first pixel's centre lies at (0.5, 0.5)."""
    return pattern(*np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5))


PICTURE = drawn(301, 403)


@settings(max_examples=40)
@given(
    x=st.floats(150, 250),
    y=st.floats(120, 180),
    side=st.floats(4, 126),
    angle=st.floats(-7, 7),
)
def test_a_cell_is_the_picture_at_its_place(x: float, y: float, side: float, angle: float) -> None:
    # Between pixels, interpolation is off by a curvature of at most 0.3 / 8 for each axis; the
    # pattern's slopes reach 3 grey values a pixel.
    expected = pattern(*places(x, y, side, angle))
    np.testing.assert_allclose(cut(PICTURE, x, y, side, angle), expected, atol=0.07)


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, -2.5])
@pytest.mark.parametrize("side", [128.0, 150.0, 180.0])
def test_a_larger_patch_comes_from_a_smaller_level(side: float, angle: float) -> None:
    cells = places(201.3, 149.6, side, angle)
    # Blurring takes off some contrast, and no more than that: nothing moves.
    error = cut(PICTURE, 201.3, 149.6, side, angle) - pattern(*cells)
    assert np.abs(error).max() < 2
    slopes = [
        pattern(cells[0] + dx, cells[1] + dy) - pattern(*cells) for dx, dy in ((1, 0), (0, 1))
    ]
    moved, *_ = np.linalg.lstsq(
        np.stack([slope.ravel() for slope in slopes], axis=1), error.ravel(), rcond=None
    )
    assert np.abs(moved).max() < 0.03


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_picture_has_the_same_patches(turn: int) -> None:
    # Clockwise on the screen, which is from x towards y.
    turned = np.ascontiguousarray(np.rot90(PICTURE, -turn))
    x, y, width, height = 180.3, 140.9, 403.0, 301.0
    expected = cut(PICTURE, x, y, 80.0, 0.4)
    for _ in range(turn):
        x, y, width, height = height - y, x, height, width
    angle = 0.4 + turn * math.pi / 2
    np.testing.assert_allclose(cut(turned, x, y, 80.0, angle), expected, atol=1e-2)


def test_a_square_of_pixels_is_cut_as_it_is() -> None:
    image = np.random.default_rng(0).uniform(0, 255, (90, 100))
    np.testing.assert_allclose(cut(image, 50.0, 40.0, 64.0), image[8:72, 18:82], atol=1e-2)


def test_beyond_the_border_the_nearest_pixel_counts() -> None:
    image = np.arange(20.0).reshape(4, 5)
    found = cut(image, 0.0, 0.0, 16.0, size=16)
    assert (found[:9, :9] == 0).all()
    np.testing.assert_allclose(found[8:12, 8:13], image, atol=1e-4)
    assert (found[12:, 13:] == 19).all()
    assert (cut(np.full((1, 1), 7.0), 0.5, 0.5, 300.0) == 7).all()


def test_a_patch_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(0, 300, (50, 2))).float()
    sides, angles = (torch.from_numpy(rng.uniform(*r, 50)).float() for r in ((5, 300), (-4, 4)))
    image = torch.from_numpy(PICTURE).float()
    together = cut_patches(image, points, sides, angles, 32)
    for i in (0, 17, 49):
        row = slice(i, i + 1)
        alone = cut_patches(image, points[row], sides[row], angles[row], 32)
        torch.testing.assert_close(alone[0], together[i])
    assert cut_patches(image, points[:0], sides[:0], angles[:0], 32).shape == (0, 1, 32, 32)
