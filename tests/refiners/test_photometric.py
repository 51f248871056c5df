from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.models.photometric import Motion, pyramid, sample, similarity
from sfm_match.models.photometric_start import anchors, corners, motion_around
from sfm_match.spec import Spec
from sfm_match.types import ArrayF32, ArrayF64, Correspondences, Image, View
from tests.loftr_matching import build, run
from tests.photographs import fountain, sampson_pixels
from tests.pictures import blob_picture, noise_picture

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (220, 260)
# x1 = LINEAR @ x0 + SHIFT, in pixels with the first one's centre at (0.5, 0.5).
LINEAR = np.array([[1.05, 0.06], [-0.03, 0.96]])
SHIFT = np.array([-6.3, 4.7])


def texture(points: ArrayF64) -> ArrayF64:
    """Return grey values of a texture that is known everywhere, from 0 to 255."""
    rng = np.random.default_rng(1)
    waves = rng.normal(size=(80, 2)) * rng.choice([0.05, 0.15, 0.4], 80)[:, None]
    phases = rng.uniform(0, 2 * np.pi, 80)
    total = np.cos(points @ waves.T + phases).sum(axis=-1)
    return np.asarray(np.clip(127 + 6 * total, 0, 255))


def warped_pair(linear: ArrayF64 = LINEAR, gain: float = 0.8, bias: float = 20) -> list[Image]:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    centres = np.stack([columns, rows], axis=-1) + 0.5
    back = (centres - SHIFT) @ np.linalg.inv(linear).T
    images = [texture(centres), gain * texture(back) + bias]
    return [np.asarray(image.round(), np.uint8) for image in images]


def true_partners(points0: ArrayF32, linear: ArrayF64 = LINEAR) -> ArrayF64:
    return np.asarray(points0 @ linear.T + SHIFT)


def grid_correspondences(error: float, linear: ArrayF64 = LINEAR) -> Correspondences:
    rng = np.random.default_rng(2)
    x, y = np.meshgrid(np.arange(48, 200, 16), np.arange(48, 170, 16))
    points0 = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    points1 = true_partners(points0, linear) + rng.uniform(-error, error, points0.shape)
    return Correspondences(points0, points1.astype(np.float32), np.ones(len(points0), np.float32))


def refine(images: list[Image], given_ones: Correspondences, **options: Any) -> Correspondences:
    refiner = Spec.parse("refiners", "photometric", options).build()
    a, b = (refiner.encode(View(image, None)) for image in images)
    (found,) = refiner.refine([(a, b, given_ones)])
    assert isinstance(found, Correspondences)
    return found


def errors(found: Correspondences, linear: ArrayF64 = LINEAR) -> ArrayF64:
    return np.asarray(np.linalg.norm(found.points1 - true_partners(found.points0, linear), axis=1))


@pytest.mark.parametrize("num_corners", [0, 3])
@pytest.mark.parametrize("neighbours", [True, False])
def test_it_finds_the_true_place_under_gain_and_bias(num_corners: int, neighbours: bool) -> None:
    coarse = grid_correspondences(6.0 if neighbours else 3.0)
    assert np.median(errors(coarse)) > 2
    options = {"corners": num_corners, "neighbours": neighbours}
    found = refine(warped_pair(), coarse, **options)
    assert len(found) > 0.7 * len(coarse)
    assert np.median(errors(found)) < 0.03
    assert np.mean(errors(found) < 0.2) > 0.97
    assert found.scores.min() >= 0.8
    assert found.scores.max() <= 1
    if not num_corners:
        assert {tuple(p) for p in found.points0} <= {tuple(p) for p in coarse.points0}
    else:
        assert len(found) > len(coarse)


def test_translation_only() -> None:
    identity = np.eye(2)
    coarse = grid_correspondences(5.0, identity)
    found = refine(warped_pair(identity), coarse, motion="translation")
    assert np.median(errors(found, identity)) < 0.02
    # It does not fit what has turned and grown, and finds less alike there.
    affine, translation = (
        refine(warped_pair(), grid_correspondences(3.0), motion=motion, radius=10)
        for motion in ("affine", "translation")
    )
    assert np.median(errors(affine)) < 0.5 * np.median(errors(translation))
    assert affine.scores.mean() > translation.scores.mean()


def test_both_images_play_the_same_part() -> None:
    images, coarse = warped_pair(), grid_correspondences(4.0)
    there = refine(images, coarse, corners=3)
    back = refine(images[::-1], coarse.flipped(), corners=3).flipped()
    assert len(there) == len(back)
    for points in ("points0", "points1"):
        a, b = (np.array(sorted(map(tuple, getattr(c, points)))) for c in (there, back))
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_corners_lie_at_the_same_places_for_all_partners() -> None:
    images = warped_pair()
    other = warped_pair(np.array([[0.97, -0.05], [0.04, 1.03]]), gain=1.0, bias=0)[1]
    second = grid_correspondences(3.0, np.array([[0.97, -0.05], [0.04, 1.03]]))
    found = [
        refine(images, grid_correspondences(3.0), corners=3).points0,
        refine([images[0], other], second, corners=3).points0,
    ]
    distances = np.linalg.norm(found[0][:, None] - found[1], axis=2).min(axis=1)
    assert np.median(distances) < 0.5
    assert np.mean(distances < 1) > 0.6


def test_what_does_not_fit_is_dropped_or_kept_as_it_was() -> None:
    images = warped_pair()
    images[1][:, 130:] = noise_picture(SHAPE[0], SHAPE[1] - 130, seed=7)
    coarse = grid_correspondences(2.0)
    wrong = coarse.points1[:, 0] > 140
    found = refine(images, coarse)
    assert len(found) > 20
    assert (found.points1[:, 0] < 140).all()
    every = refine(images, coarse, keep_failed=True)
    assert len(every) == len(coarse)
    assert (every.scores[wrong] == 0).all()
    np.testing.assert_array_equal(every.points1[wrong], coarse.points1[wrong])
    assert np.count_nonzero(every.scores) == len(found)


def test_flat_tiny_and_empty() -> None:
    images, coarse = warped_pair(), grid_correspondences(2.0)
    nothing = Correspondences(coarse.points0[:0], coarse.points1[:0], coarse.scores[:0])
    blank = np.full(SHAPE, 99, np.uint8)
    for num in (0, 2):
        assert len(refine([images[0], blank], coarse, corners=num)) == 0
        assert len(refine([blank, blank], coarse, corners=num, min_similarity=-1.0)) == 0
        assert len(refine(images, nothing, corners=num)) == 0
        for size in ((1, 1), (3, 2), (1, 90)):
            tiny = np.zeros(size, np.uint8)
            assert len(refine([images[0], tiny], coarse, corners=num)) == 0
    one = Correspondences(coarse.points0[:1], coarse.points1[:1], coarse.scores[:1])
    assert errors(refine(images, one))[0] < 0.1


# --- parts ----------------------------------------------------------------------------------------


def test_samples_and_pyramids_keep_the_frame() -> None:
    rows, columns = np.mgrid[:40, :52]
    ramp = torch.from_numpy(np.asarray(3 * columns + 2 * rows, np.uint8)).float()
    for level, image in enumerate(pyramid(ramp, 3).levels):
        points = torch.tensor([[16.0, 12.0], [24.25, 20.5], [30.0, 17.75]])
        # The value at a pixel's centre is the pixel's.
        expected = 3 * (points[:, 0] - 0.5) + 2 * (points[:, 1] - 0.5)
        torch.testing.assert_close(sample(image, points / 2**level), expected)


def test_a_corner_is_found_where_it_is() -> None:
    image = torch.from_numpy(blob_picture(70, 50, sigma=1.5)).float()[None, None]
    points, strengths = corners(image, 4)
    np.testing.assert_allclose(points[0], [70.5, 50.5], atol=0.01)
    assert (strengths[:-1] >= strengths[1:]).all()
    apart = torch.cdist(points, points, p=torch.inf) + 99 * torch.eye(len(points))
    assert apart.min() > 3
    assert len(corners(torch.full((1, 1, 60, 60), 7.0), 4)[0]) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(1, 4), st.floats(1, 20))
def test_anchors_belong_to_the_nearest_point(seed: int, num: int, reach: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = 100 * torch.rand(7, 2, generator=generator)
    candidates = 100 * torch.rand(60, 2, generator=generator)
    rows, owners = anchors(points, candidates, reach, num)
    distances = torch.cdist(candidates, points, p=torch.inf)
    expected = set()
    for point in range(7):
        own = [
            i for i in range(60) if distances[i].argmin() == point and distances[i, point] <= reach
        ]
        expected |= {(i, point) for i in own[:num]}
    assert set(zip(rows.tolist(), owners.tolist(), strict=True)) == expected


def test_the_motion_of_neighbours_survives_outliers() -> None:
    coarse = grid_correspondences(2.0)
    points0, points1 = torch.from_numpy(coarse.points0), torch.from_numpy(coarse.points1).clone()
    points1[::5] += torch.tensor([60.0, -45.0])
    at = torch.tensor([[100.0, 100.0], [131.0, 84.0]])
    motion = motion_around(points0, points1, at, 2.0)
    expected = true_partners(at.numpy())
    assert np.linalg.norm(motion.points1.numpy() - expected, axis=1).max() < 1.5
    assert np.abs(motion.linear.numpy() - LINEAR).max() < 0.12
    # One correspondence says nothing about the linear part.
    alone = motion_around(points0[1:2], points1[1:2], at, 2.0)
    torch.testing.assert_close(alone.linear, torch.eye(2).expand(2, 2, 2))


def test_similarity_is_that_of_the_patches() -> None:
    first, second = (pyramid(torch.from_numpy(image), 1) for image in warped_pair())
    points0 = torch.tensor([[90.0, 80.0], [150.0, 120.0]])
    right = Motion(
        torch.from_numpy(true_partners(points0.numpy())).float(),
        torch.from_numpy(LINEAR).float().expand(2, 2, 2),
    )
    assert similarity(first, second, points0, right, 7).min() > 0.99
    wrong = Motion(right.points1 + 9, right.linear)
    assert similarity(first, second, points0, wrong, 7).max() < 0.8


def test_coarse_matches_of_photographs_become_precise(test_data: Path) -> None:
    folder = test_data / "fountain-P11"
    images = fountain(folder, 0, 1)
    coarse = run(build("coarse-16", threshold=0.1), *images)
    before = sampson_pixels(folder, coarse, 0, 1)
    assert np.median(before) > 2
    after = sampson_pixels(folder, refine(images, coarse), 0, 1)
    assert len(after) > 0.75 * len(before)
    assert np.median(after) < 0.1
    assert np.mean(after < 1) > 0.97
    dense = sampson_pixels(folder, refine(images, coarse, corners=2), 0, 1)
    assert len(dense) > 1.5 * len(before)
    assert np.median(dense) < 0.1
    assert np.mean(dense < 1) > 0.97
