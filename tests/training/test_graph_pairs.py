from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.models.generative_graph_losses import UNKNOWN, UNMATCHED
from sfm_match.spec import Spec
from sfm_match.training.graph_pairs import (
    GraphPair,
    dropped_pair,
    moved_pair,
    partners_by_position,
    redetected_pair,
    strongest_pair,
    swapped_pair,
    thinned_pair,
)
from sfm_match.training.pairs import DensePair
from sfm_match.training.warps import Warps, warping
from sfm_match.types import Extractor, Features, Image
from tests.pictures import noise_picture
from tests.training.test_warps import STILL


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


def test_the_strongest_keep_their_truth() -> None:
    pair = dropped_pair(np.random.default_rng(0), detected(), 0.2, jitter=0.0, noise=0.0)
    some = strongest_pair(pair, 150, 120)
    assert (len(some.features0), len(some.features1)) == (150, 120)
    assert_consistent(some)
    assert some.features0.scores.min() >= np.sort(pair.features0.scores)[::-1][150]
    matched = np.flatnonzero(some.partners0 >= 0)
    assert len(matched) > 50
    np.testing.assert_array_equal(
        some.features0.keypoints[matched], some.features1.keypoints[some.partners0[matched]]
    )
    everyone = strongest_pair(pair, 10_000, 10_000)
    assert (everyone.partners0 >= 0).sum() == (pair.partners0 >= 0).sum()


@given(st.integers(0, 2**31 - 1), st.floats(0, 0.9))
def test_thinning_drops_a_share_of_each_side(seed: int, drop: float) -> None:
    pair = dropped_pair(np.random.default_rng(0), detected(), 0.2, jitter=0.0, noise=0.0)
    thin = thinned_pair(np.random.default_rng(seed), pair, drop)
    assert_consistent(thin)
    assert len(thin.features0) == round((1 - drop) * len(pair.features0))
    assert len(thin.features1) == round((1 - drop) * len(pair.features1))
    matched = np.flatnonzero(thin.partners0 >= 0)
    np.testing.assert_array_equal(
        thin.features0.keypoints[matched], thin.features1.keypoints[thin.partners0[matched]]
    )
    swapped = swapped_pair(thin)
    np.testing.assert_array_equal(swapped.partners0, thin.partners1)
    np.testing.assert_array_equal(swapped.features1.keypoints, thin.features0.keypoints)


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


def test_of_keypoints_at_one_place_those_that_look_alike_are_partners() -> None:
    places = np.array([[10, 10], [10, 10], [60, 10], [60, 10]], np.float32)
    looks = np.eye(4, dtype=np.float32)
    first = Features(places, np.ones(4, np.float32), looks, np.array([100, 100], np.int32))
    order = np.array([3, 1, 0, 2])
    second = first.take(order)
    seen = np.ones(4, np.bool_)
    exact = (first.keypoints.astype(np.float64), second.keypoints.astype(np.float64))
    pair = partners_by_position(first, second, exact[0], seen, exact[1], seen)
    np.testing.assert_array_equal(order[pair.partners0], np.arange(4))
    np.testing.assert_array_equal(pair.partners1, order)


def found_alike(pair: GraphPair) -> float:
    """Share of the partners whose descriptors agree: all, but for look-alikes."""
    matched = np.flatnonzero(pair.partners0 >= 0)
    cosines = pair.features0.descriptors[matched] @ pair.features1.descriptors.T
    return float((cosines.argmax(axis=1) == pair.partners0[matched]).mean())


def test_keypoints_are_found_again_under_a_warp() -> None:
    picture = np.repeat(noise_picture(400, 400, seed=3)[..., None], 3, axis=2)
    warps = Warps(size=160, max_zoom=1.2, turn=10.0, tilt=0.05, max_shrink=1.2)
    source = warping([picture], warps, STILL)
    for seed in range(3):
        pair = redetected_pair(source(np.random.default_rng(seed)), sift())
        assert_consistent(pair)
        assert (pair.partners0 >= 0).sum() > 30
        assert found_alike(pair) > 0.7


def pillar_before_wall(near: int, far: int) -> DensePair:
    """Return a picture whose pillar, 80 px wide, moves by `near` px and its wall by `far` px."""
    wall = np.repeat(noise_picture(240, 420, 1)[..., None], 3, axis=2)
    pillar = np.repeat(noise_picture(240, 80, 2)[..., None], 3, axis=2)
    images: list[Image] = [wall[:, :320].copy(), wall[:, far : far + 320].copy()]
    images[0][:, 150:230], images[1][:, 150 - near : 230 - near] = pillar, pillar
    x, y = np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5)
    on_pillar = (x > 150) & (x < 230)
    there = np.where(on_pillar, x - near, x - far)
    hidden = ~on_pillar & (there > 150 - near) & (there < 230 - near)
    flow = np.stack([there, y], axis=2).astype(np.float32)
    flow[hidden | (there < 0)] = np.nan
    return DensePair(images[0], images[1], flow)


def test_what_is_hidden_is_unmatched() -> None:
    pair = redetected_pair(pillar_before_wall(near=60, far=10), sift())
    assert_consistent(pair)
    assert found_alike(pair) > 0.9
    x0, x1 = pair.features0.keypoints[:, 0], pair.features1.keypoints[:, 0]
    matched = np.flatnonzero(pair.partners0 >= 0)
    moved = x0[matched] - x1[pair.partners0[matched]]
    near = (x0[matched] > 155) & (x0[matched] < 225)
    far = (x0[matched] < 145) | (x0[matched] > 235)
    assert min(near.sum(), far.sum()) > 20
    assert np.abs(moved[near] - 60).max() < 3
    assert np.abs(moved[far] - 10).max() < 3
    # The second pillar hides this part of the first wall, and the first one this of the second.
    hidden0, hidden1 = (x0 > 103) & (x0 < 147), (x1 > 173) & (x1 < 217)
    assert min(hidden0.sum(), hidden1.sum()) > 10
    assert (pair.partners0[hidden0] == UNMATCHED).all()
    assert (pair.partners1[hidden1] == UNMATCHED).all()
    # Without flow nobody has a partner.
    nothing = pillar_before_wall(near=60, far=10)
    nothing.flow[:] = np.nan
    alone = redetected_pair(nothing, sift())
    assert (alone.partners0 == UNMATCHED).all()
    assert (alone.partners1 == UNMATCHED).all()


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
