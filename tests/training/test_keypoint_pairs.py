from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.spec import ConfigError
from sfm_match.training.keypoint_pairs import (
    KeypointBatch,
    KeypointPair,
    Keypoints,
    keypoint_pair,
    make_batch,
)
from sfm_match.training.pairs import DensePair
from sfm_match.training.warps import Warps, warping
from sfm_match.types import ArrayF32
from tests.pictures import noise_picture
from tests.training.test_warps import STILL, picture

SOURCE = warping([picture(0), picture(1)], Warps(size=96), STILL)


def found(seed: int, num: int, wanted: Keypoints) -> tuple[DensePair, KeypointPair]:
    rng = np.random.default_rng(seed)
    pair = SOURCE(rng)
    keypoints = keypoint_pair(rng, pair, num, wanted)
    assert keypoints is not None
    return pair, keypoints


def carried(pair: DensePair, points: ArrayF32) -> ArrayF32:
    """Where points lie in the second picture by the flow of the pixel that they are in."""
    columns, rows = np.floor(points).astype(int).T
    inside = points - np.floor(points) - np.float32(0.5)
    return np.asarray(pair.flow[rows, columns] + inside, np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 20), st.sampled_from([0.0, 1.0]), st.floats(0, 0.5))
def test_partners_lie_where_the_flow_says(
    seed: int, num: int, detected: float, unmatched: float
) -> None:
    wanted = Keypoints(detected=detected, jitter=0, unmatched=unmatched)
    pair, keypoints = found(seed, num, wanted)
    assert keypoints.points0.shape == keypoints.points1.shape == (num, 2)
    rows, columns = keypoints.partners.nonzero()
    assert len(set(rows)) == len(set(columns)) == len(rows) == num - round(unmatched * num)
    misses = np.linalg.norm(
        carried(pair, keypoints.points0[rows]) - keypoints.points1[columns], axis=1
    )
    # Corners are found in each picture by itself.
    assert misses.max() <= (3 if detected else 1e-3)
    # The others are truly without a partner.
    alone0 = np.setdiff1d(np.arange(num), rows)
    alone1 = np.setdiff1d(np.arange(num), columns)
    if len(alone0):
        there = carried(pair, keypoints.points0[alone0])
        apart = np.linalg.norm(there[:, None] - keypoints.points1[alone1], axis=2)
        assert apart.min() > 0.5


def test_errors_of_the_positions_are_as_large_as_asked_for() -> None:
    errors = []
    for seed in range(40):
        pair, keypoints = found(seed, 15, Keypoints(detected=0, jitter=1.5))
        rows, columns = keypoints.partners.nonzero()
        there = carried(pair, np.clip(keypoints.points0[rows], 0, 95.9))
        errors.append(there - keypoints.points1[columns])
    spread = np.concatenate(errors)
    middle = 1.4826 * np.nanmedian(np.abs(spread))
    # Those of both pictures, the first one's scaled by the warp.
    assert 1.5 < middle < 3.0


def test_keypoints_are_shuffled_and_far_from_each_other() -> None:
    orders, nearest = [], []
    for seed in range(20):
        _, keypoints = found(seed, 12, Keypoints(detected=0, jitter=0))
        orders.append(keypoints.partners.argmax(axis=1))
        apart = np.linalg.norm(keypoints.points0[:, None] - keypoints.points0, axis=2)
        nearest.append((apart + 1e3 * np.eye(12)).min())
    assert np.mean(np.array(orders) == np.arange(12)) < 0.2
    assert np.median(nearest) > 6


def test_a_batch_depends_on_its_number_only() -> None:
    def batch(number: int) -> KeypointBatch:
        return make_batch([(SOURCE, 1.0)], 3, number, 2, Keypoints(fewest=8, most=20))

    first, again, other = batch(4), batch(4), batch(5)
    for a, b in zip(first.sides, again.sides, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.points, b.points)
    assert torch.equal(first.partners, again.partners)
    assert first.sides[0].points.shape != other.sides[0].points.shape or not torch.equal(
        first.sides[0].points, other.sides[0].points
    )
    numbers = {batch(number).partners.shape[1] for number in range(12)}
    assert min(numbers) >= 8
    assert max(numbers) <= 20
    assert len(numbers) > 4
    side = first.sides[1]
    assert torch.equal(side.places, side.points * (256 / 96))
    assert torch.equal(side.linked, side.linked.mT)
    assert not side.linked.diagonal(dim1=1, dim2=2).any()
    assert 0 <= float(side.images.min()) < float(side.images.max()) < 1


def test_pictures_that_share_nothing_are_said_to() -> None:
    image = np.stack([noise_picture(64, 64)] * 3, axis=2)
    flow = np.full((64, 64, 2), np.nan, np.float32)
    blind = DensePair(image, image, flow)
    rng = np.random.default_rng(0)
    for detected in (0.0, 1.0):
        assert keypoint_pair(rng, blind, 8, Keypoints(detected=detected)) is None
    with pytest.raises(ConfigError, match="none of 100 pairs of pictures shares enough for"):
        make_batch([(lambda _: blind, 1.0)], 0, 0, 1, Keypoints(detected=0))


def test_a_picture_without_corners_has_keypoints_too() -> None:
    flat = np.full((64, 64, 3), 90, np.uint8)
    axis = np.arange(64, dtype=np.float32) + 0.5
    same = DensePair(flat, flat, np.stack(np.meshgrid(axis, axis), axis=2))
    keypoints = keypoint_pair(np.random.default_rng(0), same, 9, Keypoints(detected=1, jitter=0))
    assert keypoints is not None
    order = keypoints.partners.argmax(axis=1)
    np.testing.assert_array_equal(keypoints.points0, keypoints.points1[order])
