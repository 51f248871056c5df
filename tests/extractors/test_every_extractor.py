"""What every extractor promises, held against every extractor that there is."""

from __future__ import annotations

import dataclasses
import pickle
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import cKDTree

from sfm_match.spec import Spec
from sfm_match.types import Features, Image
from tests.components import EXTRACTORS, build_default, options_of, parse
from tests.pictures import blob_picture, noise_picture


def assert_same(found: Features, expected: Features) -> None:
    for field in dataclasses.fields(Features):
        np.testing.assert_array_equal(
            getattr(found, field.name), getattr(expected, field.name), field.name
        )


def assert_fits(found: Features, image: Image) -> None:
    """Check what `Features` does not check by itself."""
    height, width = image.shape[:2]
    assert found.image_size.tolist() == [width, height]
    assert (found.keypoints >= 0).all()
    assert (found.keypoints <= [width, height]).all()
    assert np.isfinite(found.descriptors).all()
    if found.scales is not None:
        assert (found.scales > 0).all()


@cache
def features_of_noise(name: str) -> Features:
    found: Features = build_default(name)(noise_picture())
    return found


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_picture_of_noise_has_many_features_inside_it(name: str) -> None:
    found = features_of_noise(name)
    assert len(found) > 50
    assert_fits(found, noise_picture())


@pytest.mark.parametrize("name", EXTRACTORS)
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 50, 3), (33, 18, 3), (120, 90)], ids=str)
def test_black_and_tiny_images_are_no_error(name: str, shape: tuple[int, ...]) -> None:
    typical = features_of_noise(name)
    for image in (np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)):
        found = build_default(name)(image)
        assert_fits(found, image)
        # A store has descriptors of one width and type.
        assert found.descriptors.shape[1] == typical.descriptors.shape[1]
        assert found.descriptors.dtype == typical.descriptors.dtype


@pytest.mark.parametrize("name", EXTRACTORS)
def test_grey_is_red_equal_to_green_equal_to_blue(name: str) -> None:
    grey = noise_picture(90, 110)
    assert_same(build_default(name)(np.stack([grey] * 3, axis=2)), build_default(name)(grey))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_the_image_is_left_alone_and_may_be_a_view(name: str) -> None:
    image = noise_picture(90, 110)
    copy = image.copy()
    found = build_default(name)(image)
    np.testing.assert_array_equal(image, copy)
    view = np.pad(image, 5)[5:-5, 5:-5]
    assert not view.flags.c_contiguous
    assert_same(build_default(name)(view), found)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_it_finds_the_same_twice_and_in_another_process(name: str) -> None:
    image = noise_picture(90, 110)
    found = build_default(name)(image)
    build_default(name)(noise_picture(64, 64, seed=1))
    assert_same(build_default(name)(image), found)
    pickled: Spec = pickle.loads(pickle.dumps(parse("extractors", name)))
    assert_same(pickled.build()(image), found)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_what_came_before_does_not_matter(name: str) -> None:
    # Few features, so that one image may end in the state in which the next one begins.
    images = [blob_picture(70, 45), blob_picture(31, 88), noise_picture(120, 150)]
    alone = [parse("extractors", name).build()(image) for image in images]
    for i in (0, 1, 0, 2, 1, 2, 0):
        assert_same(build_default(name)(images[i]), alone[i])


def offsets(found: npt.NDArray[np.floating[Any]], reference: Features) -> npt.NDArray[Any]:
    """Return how far keypoints (N, 2) lie from the nearest one of the reference."""
    _, rows = cKDTree(reference.keypoints).query(found)
    return found - reference.keypoints[rows]


@pytest.mark.parametrize("name", EXTRACTORS)
def test_half_the_image_has_its_keypoints_at_half_the_coordinates(name: str) -> None:
    image = noise_picture(240, 300)
    small = np.asarray(cv2.resize(image, (150, 120), interpolation=cv2.INTER_AREA), np.uint8)
    # A pyramid must reach down to the smaller one; and noise has not the offsets of photographs.
    wanted: dict[str, Any] = {"min_size": 100, "centred": False}
    options = {k: v for k, v in wanted.items() if k in options_of("extractors", name)}
    extractor = parse("extractors", name, **options).build()
    full, half = extractor(image), extractor(small)
    scaled = [half.keypoints * 2]
    if "resize" in options_of("extractors", name):
        resized = parse("extractors", name, resize=150, **options).build()(image)
        assert resized.image_size.tolist() == [300, 240]
        scaled.append(resized.keypoints)
    for keypoints in scaled:
        assert len(keypoints) > 30
        away = offsets(keypoints, full)
        # Features of a single scale are not all the same ones at another.
        assert np.median(np.linalg.norm(away, axis=1)) < 2
        near = np.linalg.norm(away, axis=1) < 3
        assert np.abs(away[near].mean(axis=0)).max() < 0.3


@pytest.mark.parametrize("name", EXTRACTORS)
def test_the_mirrored_image_has_mirrored_keypoints(name: str) -> None:
    # With the centre of the first pixel at 0.5, a mirror maps x to width - x. Keypoints that are
    # half a pixel off come back a whole pixel off.
    image = noise_picture()
    found = build_default(name)(image)
    mirrored = build_default(name)(np.ascontiguousarray(image[::-1, ::-1]))
    away = offsets([200, 160] - mirrored.keypoints, found)
    near = np.linalg.norm(away, axis=1) < 2
    if near.mean() < 0.5:
        pytest.skip(f"{name} finds other features in an image that is turned by 180 degrees")
    assert np.abs(away[near].mean(axis=0)).max() < 0.5
