from __future__ import annotations

from functools import cache

import numpy as np
import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.models.generative_graph_losses import UNKNOWN, UNMATCHED
from sfm_match.spec import Spec
from sfm_match.synthetic.builders import rectangle
from sfm_match.synthetic.lighting import LitScene, illuminate
from sfm_match.synthetic.scene import Lamp, Scene, look_at
from sfm_match.training.graph_pairs import (
    GraphPair,
    dropped_pair,
    limited_pair,
    moved_pair,
    partners_by_position,
    rendered_pair,
    rendered_view,
    warped_pair,
)
from sfm_match.types import Extractor, Features, Image
from tests.pictures import noise_picture


@cache
def sift() -> Extractor:
    built: Extractor = Spec.parse("extractors", "sift", {"max_keypoints": 600}).build()
    return built


@cache
def detected() -> Features:
    return sift()(noise_picture(200, 260))


def assert_consistent(pair: GraphPair) -> None:
    sides = ((pair.partners0, pair.partners1), (pair.partners1, pair.partners0))
    for own, other in sides:
        assert own.dtype == np.int64
        assert own.min(initial=0) >= UNKNOWN
        matched = np.flatnonzero(own >= 0)
        np.testing.assert_array_equal(other[own[matched]], matched)


@given(st.integers(0, 2**31 - 1), st.floats(0, 0.9))
def test_dropping_leaves_nodes_on_both_sides_on_one_and_on_none(seed: int, rate: float) -> None:
    features = detected()
    pair = dropped_pair(np.random.default_rng(seed), features, rate, jitter=0.0, noise=0.0)
    assert_consistent(pair)
    matched = np.flatnonzero(pair.partners0 >= 0)
    partners = pair.partners0[matched]
    np.testing.assert_array_equal(
        pair.features0.keypoints[matched], pair.features1.keypoints[partners]
    )
    np.testing.assert_array_equal(
        pair.features0.descriptors[matched], pair.features1.descriptors[partners]
    )
    assert not (pair.partners0 == UNKNOWN).any()
    num = len(features)
    for share, expected in (
        (len(pair.features0), 1 - rate),
        (len(pair.features1), 1 - rate),
        (len(matched), (1 - rate) ** 2),
    ):
        assert abs(share / num - expected) < 0.12
    if rate == 0:
        assert len(matched) == num


def test_the_second_side_is_disturbed_and_shuffled() -> None:
    pair = dropped_pair(np.random.default_rng(0), detected(), 0.2, jitter=2.0, noise=0.3)
    matched = np.flatnonzero(pair.partners0 >= 0)
    partners = pair.partners0[matched]
    assert (np.diff(partners) < 0).any()
    moved = pair.features1.keypoints[partners] - pair.features0.keypoints[matched]
    assert 1.8 < moved.std() < 2.2
    a, b = pair.features0.descriptors[matched], pair.features1.descriptors[partners]
    change = np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)
    assert 0.25 < change.mean() < 0.35
    with pytest.raises(ValueError, match="rate must be from 0 to below 1, got 1"):
        dropped_pair(np.random.default_rng(0), detected(), 1.0)


def test_limiting_keeps_the_strongest_and_the_truth() -> None:
    pair = dropped_pair(np.random.default_rng(0), detected(), 0.2, jitter=0.0, noise=0.0)
    some = limited_pair(np.random.default_rng(1), pair, 150, drop=0.0)
    assert some is not None
    assert len(some.features0) == len(some.features1) == 150
    assert_consistent(some)
    rest = np.sort(pair.features0.scores)[::-1]
    assert some.features0.scores.min() >= rest[150]
    matched = np.flatnonzero(some.partners0 >= 0)
    assert len(matched) > 60
    np.testing.assert_array_equal(
        some.features0.keypoints[matched], some.features1.keypoints[some.partners0[matched]]
    )
    assert limited_pair(np.random.default_rng(1), pair, len(detected()) + 1) is None


def test_a_keypoint_is_partner_unmatched_or_unknown() -> None:
    def at(*points: tuple[float, float]) -> Features:
        num = len(points)
        return Features(
            np.array(points, np.float32),
            np.ones(num, np.float32),
            np.ones((num, 4), np.float32),
            np.array([100, 100], np.int32),
        )

    # Found again; 4 px away; 20 px away; not seen; nearest to what is another one's partner.
    first = at((10, 10), (30, 30), (50, 50), (70, 70), (12, 10))
    second = at((11, 10), (34, 30), (50, 70))
    seen = np.array([True, True, True, False, True])
    pair = partners_by_position(
        first,
        second,
        first.keypoints.astype(np.float64),
        seen,
        second.keypoints.astype(np.float64),
        np.ones(3, np.bool_),
    )
    assert pair.partners0.tolist()[1:4] == [UNKNOWN, UNMATCHED, UNMATCHED]
    assert pair.partners1.tolist()[1:] == [UNKNOWN, UNMATCHED]
    assert sorted(pair.partners0[[0, 4]].tolist()) == [UNKNOWN, 0]
    assert_consistent(pair)


def test_keypoints_are_found_again_under_a_warp() -> None:
    image = noise_picture(240, 320, seed=3)
    pair = warped_pair(np.random.default_rng(0), image, sift(), turn=10.0, zoom=0.1, tilt=0.05)
    assert_consistent(pair)
    assert (pair.partners0 >= 0).sum() > 80
    # What their descriptors say agrees with where they are, but for look-alikes.
    matched = np.flatnonzero(pair.partners0 >= 0)
    cosines = pair.features0.descriptors[matched] @ pair.features1.descriptors.T
    assert (cosines.argmax(axis=1) == pair.partners0[matched]).mean() > 0.8
    again = warped_pair(np.random.default_rng(0), image, sift(), turn=10.0, zoom=0.1, tilt=0.05)
    np.testing.assert_array_equal(again.partners0, pair.partners0)


def wall_and_pillar() -> LitScene:
    """Return a textured wall at y = 4 m, and a pillar's front before it, at y = 3 m."""
    textures: list[Image] = [
        np.repeat(noise_picture(300, 400, seed)[..., None], 3, axis=2) for seed in (1, 2)
    ]
    wall = rectangle((0, 4, 0), (5, 0, 0), (0, 0, -4), textures[0])
    pillar = rectangle((0, 3, 0), (0.8, 0, 0), (0, 0, -4), textures[1])
    lamp = Lamp(np.array([0.0, -2.0, 2.0]), np.full(3, 20.0))
    return illuminate(Scene((wall, pillar), (lamp,), (0.5, 0.5, 0.5)), shadow_samples=0)


def test_two_rendered_views_have_parallax_and_occlusion() -> None:
    scene, rng = wall_and_pillar(), np.random.default_rng(0)
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 300.0, 320, 240)
    views = [
        rendered_view(rng, scene, camera, look_at((x, 0, 0), (0, 4, 0)), sift()) for x in (0, 0.5)
    ]
    pair = rendered_pair(views[0], views[1])
    assert_consistent(pair)
    matched = np.flatnonzero(pair.partners0 >= 0)
    assert len(matched) > 60
    # The pillar moves otherwise than the wall: no homography carries both.
    depth = views[0].depth[*pair.features0.keypoints[matched].astype(int).T[::-1]]
    moved = pair.features1.keypoints[pair.partners0[matched], 0]
    moved = moved - pair.features0.keypoints[matched, 0]
    near = depth < 3.5
    assert near.sum() > 5
    assert moved[near].mean() < moved[~near].mean() - 5
    cosines = pair.features0.descriptors[matched] @ pair.features1.descriptors.T
    assert (cosines.argmax(axis=1) == pair.partners0[matched]).mean() > 0.8


def test_moving_keeps_the_truth_and_turns_scales_and_orientations_along() -> None:
    pair = dropped_pair(np.random.default_rng(0), detected(), 0.2, jitter=0.0, noise=0.0)
    moved = moved_pair(np.random.default_rng(1), pair)
    np.testing.assert_array_equal(moved.partners0, pair.partners0)
    np.testing.assert_array_equal(moved.features0.keypoints, pair.features0.keypoints)
    before, after = pair.features1, moved.features1
    np.testing.assert_array_equal(after.descriptors, before.descriptors)
    # One affine map carries all keypoints, and short arrows in their directions too.
    assert before.orientations is not None
    assert after.orientations is not None
    assert before.scales is not None
    assert after.scales is not None
    lifted = np.c_[before.keypoints, np.ones(len(before))]
    affine, *_ = np.linalg.lstsq(lifted, after.keypoints, rcond=None)
    np.testing.assert_allclose(lifted @ affine, after.keypoints, atol=1e-2)
    arrows = np.stack([np.cos(before.orientations), np.sin(before.orientations)], 1) @ affine[:2]
    turned = np.stack([np.cos(after.orientations), np.sin(after.orientations)], 1)
    directions = arrows / np.linalg.norm(arrows, axis=1, keepdims=True)
    np.testing.assert_allclose(directions, turned, atol=1e-3)
    area = np.linalg.det(affine[:2])
    np.testing.assert_allclose(after.scales**2, area * before.scales**2, rtol=1e-3)
