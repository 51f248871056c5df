"""SIFT, ours and COLMAP's: the same facts hold for both, and both find the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from sfm_match.io.images import read_image
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import ArrayF32, ArrayF64, Features, Image
from tests.pictures import blob_picture, noise_picture

Extract = partial[Features]


def extract_with(name: str, image: Image, **options: Any) -> Features:
    found: Features = Spec.parse("extractors", name, options).build()(image)
    return found


@pytest.fixture(params=["sift", "colmap_sift"])
def extract(request: pytest.FixtureRequest) -> Extract:
    return partial(extract_with, request.param)


def differences(angles0: ArrayF32, angles1: ArrayF32) -> ArrayF64:
    return (angles1.astype(np.float64) - angles0 + np.pi) % (2 * np.pi) - np.pi


def same_places(
    expected: ArrayF32, scales: ArrayF32, found: Features, radius: float = 0.5
) -> tuple[list[int], list[int]]:
    """Return which found features lie at which expected places, with the expected scales."""
    tree = cKDTree(found.keypoints)
    assert found.scales is not None
    pairs = [
        (i, j)
        for i, point in enumerate(expected)
        for j in tree.query_ball_point(point, radius)
        if abs(np.log(found.scales[j] / scales[i])) < 0.1
    ]
    rows0, rows1 = zip(*pairs, strict=True)
    return list(rows0), list(rows1)


def test_a_quarter_turn_adds_a_right_angle_to_orientations(extract: Extract) -> None:
    image = noise_picture()
    height = image.shape[0]
    upright = extract(image)
    turned = extract(np.ascontiguousarray(np.rot90(image, -1)))  # clockwise, so from x towards y
    expected = np.column_stack([height - upright.keypoints[:, 1], upright.keypoints[:, 0]])
    assert upright.scales is not None
    assert upright.orientations is not None
    assert turned.orientations is not None
    rows0, rows1 = same_places(expected, upright.scales, turned)
    assert len(set(rows0)) > 0.95 * len(upright)
    change = np.rad2deg(differences(upright.orientations[rows0], turned.orientations[rows1]))
    # A keypoint may have several orientations: those of the same place are compared with each.
    assert np.mean(np.abs(change - 90) < 5) > 0.7
    assert np.mean(np.abs(change + 90) < 30) < 0.1


def test_a_blob_is_found_at_the_centre_of_its_pixel(extract: Extract) -> None:
    for x, y in ((70, 45), (31, 88)):
        found = extract(blob_picture(x, y))
        distances = np.linalg.norm(found.keypoints - [x + 0.5, y + 0.5], axis=1)
        assert distances.min() < 0.1


def test_scales_grow_with_the_picture(extract: Extract) -> None:
    image = noise_picture()
    large = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    features, zoomed = extract(image), extract(np.asarray(large, np.uint8))
    distances, rows = cKDTree(zoomed.keypoints / 2).query(features.keypoints)
    assert zoomed.scales is not None
    assert features.scales is not None
    ratios = (zoomed.scales[rows] / features.scales)[distances < 0.3]
    assert len(ratios) > 0.5 * len(features)
    assert np.median(ratios) == pytest.approx(2, abs=0.1)


def test_the_scale_of_a_blob_is_its_size(extract: Extract) -> None:
    # A blob of standard deviation s is an extremum at scale s; half of 0.5 px^2 is assumed there.
    for sigma in (2.0, 3.0, 4.0):
        found = extract(blob_picture(70, 45, sigma=sigma))
        near = np.linalg.norm(found.keypoints - [70.5, 45.5], axis=1) < 0.5
        assert near.any()
        assert found.scales is not None
        assert found.scales[near] == pytest.approx(sigma, rel=0.15)


def test_upright_features_have_no_orientation(extract: Extract) -> None:
    found = extract(noise_picture(), upright=True)
    assert len(found) > 100
    assert found.orientations is not None
    np.testing.assert_array_equal(found.orientations, 0)


@pytest.mark.parametrize("root", [True, False])
def test_descriptors_are_bytes_over_512_of_norm_one(extract: Extract, root: bool) -> None:
    descriptors = extract(noise_picture(), root=root).descriptors
    assert descriptors.dtype == np.float16
    assert descriptors.shape[1] == 128
    scaled = descriptors.astype(np.float64) * 512
    np.testing.assert_array_equal(scaled, scaled.round())
    assert 0 <= scaled.min() < scaled.max() <= 255
    norms = np.linalg.norm(scaled, axis=1) / 512
    assert np.abs(norms - 1).max() < 0.005


def test_root_descriptors_are_the_square_roots(extract: Extract) -> None:
    root, plain = (extract(noise_picture(), root=on) for on in (True, False))
    np.testing.assert_array_equal(root.keypoints, plain.keypoints)
    assert np.abs(root.descriptors.astype(np.float32) - plain.descriptors).max() > 0.05
    values = plain.descriptors.astype(np.float64)
    expected = np.sqrt(values / values.sum(axis=1, keepdims=True))
    # Both are rounded to 1/512, which the root magnifies where a value is small.
    errors = np.abs(root.descriptors - expected)
    assert np.median(errors) < 0.005
    assert np.quantile(errors[values > 0.05], 0.999) < 0.002


def test_resize_gives_the_features_of_the_small_picture_in_the_large_one(extract: Extract) -> None:
    image = noise_picture(160, 200)
    small = extract(np.asarray(cv2.resize(image, (100, 80), interpolation=cv2.INTER_AREA)))
    resized = extract(image, resize=100)
    assert small.scales is not None
    assert resized.scales is not None
    assert resized.image_size.tolist() == [200, 160]
    np.testing.assert_allclose(resized.keypoints, 2 * small.keypoints, rtol=1e-6)
    np.testing.assert_allclose(resized.scales, 2 * small.scales, rtol=1e-6)
    np.testing.assert_array_equal(resized.descriptors, small.descriptors)
    for limit in (0, 200, 1000):
        np.testing.assert_array_equal(
            extract(image, resize=limit).keypoints, extract(image).keypoints
        )


def test_the_largest_features_are_kept(extract: Extract) -> None:
    everything = extract(noise_picture())
    few = extract(noise_picture(), max_keypoints=100)
    assert 100 <= len(few) <= 250
    assert few.scales is not None
    assert everything.scales is not None
    np.testing.assert_array_equal(few.scores, few.scales)
    # Whole scale levels are kept, so that only the last ones are not the largest.
    largest, kept = (np.sort(scales)[::-1][:100] for scales in (everything.scales, few.scales))
    np.testing.assert_allclose(kept, largest, rtol=1e-6)


@pytest.mark.parametrize("most", [1, 20, 100, 400, 1000])
def test_as_many_features_as_colmap(most: int) -> None:
    image = noise_picture(300, 400)
    ours, colmap = (
        len(extract_with(name, image, max_keypoints=most)) for name in ("sift", "colmap_sift")
    )
    assert abs(ours - colmap) <= 1 + 0.01 * colmap


@pytest.mark.parametrize(
    ("options", "fewer"),
    [
        ({"peak_threshold": 0.03}, True),
        ({"edge_threshold": 3.0}, True),
        ({"first_octave": 0}, True),
        ({"affine": True}, None),
        ({"domain_size_pooling": True}, None),
    ],
    ids=str,
)
def test_every_option_has_an_effect(
    extract: Extract, options: dict[str, Any], fewer: bool | None
) -> None:
    image = noise_picture(100, 120)
    default = extract(image)
    if fewer is None and extract.args == ("sift",):
        with pytest.raises(ConfigError, match=f"{next(iter(options))}: no such option"):
            extract(image, **options)
        return
    changed = extract(image, **options)
    assert len(changed) > 20
    if fewer:
        assert len(changed) < 0.9 * len(default)
    same = changed.descriptors.shape == default.descriptors.shape and np.array_equal(
        changed.descriptors, default.descriptors
    )
    assert not same


@pytest.mark.parametrize("size", [(15, 400), (16, 16), (17, 300), (300, 16), (2000, 20)])
def test_narrow_pictures(extract: Extract, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    found = extract(image)
    assert (len(found) == 0) == ((min(size) <= 16 and max(size) < 300) or min(size) < 16)
    if size == (2000, 20):
        assert len(extract(image, resize=1000)) == 0
        assert extract(image, resize=1000).image_size.tolist() == [20, 2000]


def test_a_photograph(extract: Extract, test_data: Path) -> None:
    image = read_image(test_data / "fountain-P11" / "images" / "0003.jpg").pixels
    found = extract(image, resize=512)
    assert len(found) > 1500
    assert found.image_size.tolist() == [1024, 683]
    assert found.scales is not None
    assert found.scales.min() > 1
    assert (found.keypoints.max(axis=0) > [950, 600]).all()


def assert_same(ours: Features, colmap: Features) -> None:
    """Check that nearly each feature is one of the others, in place, size, angle and descriptor."""
    assert ours.scales is not None
    assert ours.orientations is not None
    assert colmap.scales is not None
    assert colmap.orientations is not None
    distances, near = map(np.asarray, cKDTree(colmap.keypoints).query(ours.keypoints, k=4))
    same_scale = np.abs(np.log(colmap.scales[near] / ours.scales[:, None])) < 0.01
    angles = np.abs(differences(colmap.orientations[near], ours.orientations[:, None]))
    same = (distances < 0.05) & same_scale & (angles < np.deg2rad(2))
    assert same.any(axis=1).mean() > 0.98
    rows = near[np.arange(len(near)), same.argmax(axis=1)][same.any(axis=1)]
    likeness = (
        ours.descriptors[same.any(axis=1)].astype(np.float32) * colmap.descriptors[rows]
    ).sum(axis=1)
    assert np.median(likeness) > 0.998
    assert np.quantile(likeness, 0.02) > 0.99
    back, _ = cKDTree(ours.keypoints).query(colmap.keypoints)
    assert (np.asarray(back) < 0.05).mean() > 0.98


@pytest.mark.parametrize(
    "options",
    [{}, {"root": False}, {"first_octave": 0}, {"upright": True}, {"edge_threshold": 5.0}],
    ids=str,
)
def test_the_features_are_those_of_colmap(options: dict[str, Any]) -> None:
    image = noise_picture(300, 400)
    assert_same(*(extract_with(name, image, **options) for name in ("sift", "colmap_sift")))


def test_the_features_of_photographs_are_those_of_colmap(test_data: Path) -> None:
    for path in (
        test_data / "fountain-P11" / "images" / "0000.jpg",
        test_data / "rotations" / "mascotte90.jpg",
    ):
        image = read_image(path).pixels
        assert_same(
            *(extract_with(name, image, max_keypoints=20000) for name in ("sift", "colmap_sift"))
        )
