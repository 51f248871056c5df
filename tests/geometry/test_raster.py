"""Turning, shrinking and masking: exact on pixels, and features stay on what they were found on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PilImage
from PIL import ImageOps

from sfm_match.geometry.raster import (
    inverse_orientation,
    keep_unmasked,
    points_to_file_raster,
    points_to_upright,
    shrink,
    to_file_raster,
    to_grey,
    to_upright,
    upright,
)
from sfm_match.types import ArrayF32, Features, Image

ORIENTATIONS = range(1, 9)
orientations = st.sampled_from(ORIENTATIONS)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def noise(width: int, height: int, channels: int = 3) -> Image:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(width * 100 + height).integers(0, 256, shape, dtype=np.uint8)


def features(keypoints: ArrayF32, size: tuple[int, int], angles: ArrayF32 | None) -> Features:
    num = len(keypoints)
    return Features(
        keypoints=keypoints,
        scores=np.arange(num, dtype=np.float32),
        descriptors=np.eye(num, 4, dtype=np.float32),
        image_size=np.array(size, np.int32),
        scales=np.full(num, 2, np.float32),
        orientations=angles,
    )


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_upright_is_what_pillow_does(orientation: int) -> None:
    image = noise(7, 4)
    pillow = PilImage.fromarray(image)
    pillow.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(
        upright(image, orientation), np.asarray(ImageOps.exif_transpose(pillow))
    )


@given(size=sizes, orientation=orientations, channels=st.sampled_from([1, 3]))
def test_upright_and_back_is_exact(size: tuple[int, int], orientation: int, channels: int) -> None:
    image = noise(*size, channels)
    turned = upright(image, orientation)
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(upright(turned, inverse_orientation(orientation)), image)


@given(size=sizes, orientation=orientations, data=st.data())
def test_a_pixels_centre_turns_with_the_pixel(
    size: tuple[int, int], orientation: int, data: st.DataObject
) -> None:
    width, height = size
    column, row = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    image = np.zeros((height, width), np.uint8)
    image[row, column] = 255
    turned = upright(image, orientation)
    (found_row,), (found_column,) = np.nonzero(turned)
    in_file = np.array([[column + 0.5, row + 0.5]], np.float32)
    in_upright = np.array([[found_column + 0.5, found_row + 0.5]], np.float32)
    file_size = np.array(size, np.int32)
    upright_size = np.array(turned.shape[::-1], np.int32)
    np.testing.assert_array_equal(points_to_upright(in_file, file_size, orientation), in_upright)
    np.testing.assert_array_equal(
        points_to_file_raster(in_upright, upright_size, orientation), in_file
    )


@given(orientation=orientations, angle=st.floats(-10, 10, width=32))
def test_an_angle_turns_with_its_direction(orientation: int, angle: float) -> None:
    # A keypoint and a second one a step along its direction, both turned as points.
    step = np.array([[20, 15], [20 + 5 * np.cos(angle), 15 + 5 * np.sin(angle)]], np.float32)
    found = features(step[:1], (60, 40), np.array([angle], np.float32))
    turned = to_file_raster(found, orientation)
    assert turned.orientations is not None
    ends = points_to_file_raster(step, found.image_size, orientation)
    turned_angle = turned.orientations[0]
    direction = 5 * np.array([np.cos(turned_angle), np.sin(turned_angle)])
    np.testing.assert_allclose(ends[1] - ends[0], direction, atol=1e-4)
    if orientation != 1:
        assert -np.pi - 1e-6 <= turned_angle <= np.pi + 1e-6


@given(orientation=orientations)
def test_features_come_back_from_the_upright_picture(orientation: int) -> None:
    # On a grid of 1/16 pixel, on which float32 subtracts exactly.
    keypoints = (np.random.default_rng(0).integers(0, 16 * 500, (20, 2)) / 16).astype(np.float32)
    angles = np.linspace(-3, 3, 20, dtype=np.float32)
    found = features(keypoints, (640, 500), angles)
    there = to_upright(found, orientation)
    assert there.image_size.tolist() == ([500, 640] if orientation >= 5 else [640, 500])
    back = to_file_raster(there, orientation)
    np.testing.assert_array_equal(back.keypoints, keypoints)
    np.testing.assert_array_equal(back.image_size, found.image_size)
    np.testing.assert_allclose(np.asarray(back.orientations), angles, atol=1e-6)
    for name in ("scores", "descriptors", "scales"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))


def test_features_without_angles_and_without_rows_turn() -> None:
    none = features(np.zeros((0, 2), np.float32), (6, 4), None)
    turned = to_file_raster(none, 6)
    assert (len(turned), turned.orientations, turned.image_size.tolist()) == (0, None, [4, 6])


@pytest.mark.parametrize("orientation", [0, 9, -1])
def test_other_orientations_are_refused(orientation: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 8"):
        upright(noise(2, 2), orientation)
    with pytest.raises(ValueError, match="from 1 to 8"):
        to_file_raster(features(np.zeros((1, 2), np.float32), (2, 2), None), orientation)


@given(size=sizes, long_side=st.integers(1, 50))
def test_shrink_keeps_the_aspect_and_never_enlarges(size: tuple[int, int], long_side: int) -> None:
    image = noise(*size)
    small = shrink(image, long_side)
    if max(size) <= long_side:
        assert small is image
        return
    assert max(small.shape[:2]) == long_side
    exact = min(size) * long_side / max(size)
    assert abs(min(small.shape[:2]) - max(exact, 1)) <= 0.5


def test_shrink_averages_areas() -> None:
    image = noise(8, 4, channels=1)
    means = image.reshape(1, 4, 2, 4).mean(axis=(1, 3))
    assert np.abs(shrink(image, 2) - means).max() <= 0.5
    assert shrink(image, None) is image


def test_shrink_rounds_halves_up_and_refuses_zero() -> None:
    assert shrink(noise(20, 5), 10).shape == (3, 10, 3)  # 2.5 rows
    assert shrink(noise(20, 10), 5).shape == (3, 5, 3)  # 2.5 rows
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        shrink(noise(4, 4), 0)


def test_grey_weighs_by_rec_601() -> None:
    image = noise(16, 16)
    weighted = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(to_grey(image) - weighted).max() <= 0.51
    grey = image[..., 0]
    assert to_grey(grey) is grey


def test_masked_keypoints_are_dropped() -> None:
    mask = np.ones((3, 4), np.bool_)
    mask[1, 2] = False  # the pixel with corners (2, 1) and (3, 2)
    mask[2, 3] = False  # the last pixel, to which the image's far corner belongs
    keypoints = [[2, 1], [2.99, 1.99], [1.99, 1.5], [3.0, 1.5], [2.5, 2.0], [4, 3], [0, 0]]
    found = features(np.array(keypoints, np.float32), (4, 3), None)
    kept = keep_unmasked(found, mask)
    np.testing.assert_array_equal(kept.scores, [2, 3, 4, 6])


def test_a_mask_of_another_size_is_refused() -> None:
    found = features(np.zeros((1, 2), np.float32), (4, 3), None)
    with pytest.raises(ValueError, match="mask is 3 x 4 pixels, the image 4 x 3"):
        keep_unmasked(found, np.ones((4, 3), np.bool_))
