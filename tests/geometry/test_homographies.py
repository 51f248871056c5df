from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.geometry.homographies import (
    corner_error,
    corner_from_centre,
    matching_accuracies,
    repeatability,
    rescale,
    transfer_errors,
    warp,
)
from sfm_match.types import ArrayF64

SHIFT = np.array([[1.0, 0, 3], [0, 1, -4], [0, 0, 1]])


def some_homography(rng: np.random.Generator) -> ArrayF64:
    noise = rng.normal(size=(3, 3)) * [[0.1, 0.1, 20], [0.1, 0.1, 20], [1e-4, 1e-4, 0]]
    return np.asarray(np.eye(3) + noise)


@given(st.integers(0, 10_000))
def test_warp_and_corner_error_are_opencv_s(seed: int) -> None:
    rng = np.random.default_rng(seed)
    H, true = some_homography(rng), some_homography(rng)
    points = rng.uniform(0, 500, (20, 2))
    expected = cv2.perspectiveTransform(points[None], H)[0]
    np.testing.assert_allclose(warp(points, H), expected, rtol=1e-9, atol=1e-9)
    corners = np.array([[[0.0, 0], [640, 0], [640, 480], [0, 480]]])
    moved = [cv2.perspectiveTransform(corners, one)[0] for one in (H, true)]
    mean = float(np.mean(np.hypot(*(moved[0] - moved[1]).T)))
    assert corner_error(H, true, (640, 480)) == pytest.approx(mean, abs=1e-9, rel=1e-9)


def test_a_shift_by_three_and_four_moves_corners_by_five() -> None:
    assert corner_error(SHIFT, np.eye(3), (100, 50)) == pytest.approx(5, abs=1e-12)


def test_a_corner_at_infinity_is_an_infinite_error() -> None:
    H = np.eye(3)
    H[2] = [-1 / 100, 0, 1]  # x = 100 is mapped to infinity
    assert corner_error(H, np.eye(3), (100, 50)) == np.inf


def test_half_a_pixel_is_part_of_the_frame() -> None:
    # About the centre of the first pixel doubled: that centre, (0.5, 0.5), stays.
    H = corner_from_centre(np.diag([2.0, 2.0, 1.0]))
    np.testing.assert_allclose(
        warp(np.array([[0.5, 0.5], [1.5, 2.5]]), H), [[0.5, 0.5], [2.5, 4.5]]
    )


def test_resizing_either_image_is_a_multiplication() -> None:
    rng = np.random.default_rng(0)
    H, points = some_homography(rng), rng.uniform(0, 300, (9, 2))
    scale0, scale1 = np.array([0.5, 0.25]), np.array([2.0, 3.0])
    np.testing.assert_allclose(
        warp(points * scale0, rescale(H, scale0, scale1)), warp(points, H) * scale1
    )


def test_matching_accuracy_by_hand() -> None:
    errors = transfer_errors(
        np.zeros((4, 2)), np.array([[3.0, -4], [0, 0], [3, 0], [13, -4]]), SHIFT
    )
    np.testing.assert_allclose(errors, [0, 5, 4, 10])
    np.testing.assert_array_equal(matching_accuracies(errors, (1, 4, 5, 9)), [25, 50, 75, 75])
    np.testing.assert_array_equal(matching_accuracies(np.empty(0), (1, 4)), [0, 0])


def test_repeatability_by_hand() -> None:
    keypoints0 = np.array(
        [[10.0, 10], [50, 20], [99, 49], [20, 2]]
    )  # moved: (13, 6), (53, 16), out
    keypoints1 = np.array([[13.0, 7], [57, 16], [80, 40], [1, 20]])  # the last is not seen in 0
    found = repeatability(keypoints0, keypoints1, SHIFT, ((100, 50), (100, 50)), threshold=3)
    # Of 2 + 3 that count, (13, 6) and (13, 7) are one pixel apart, (53, 16) and (57, 16) four.
    assert found.percent == pytest.approx(100 * 2 / 5)
    assert found.localization_error == pytest.approx(1)
    wider = repeatability(keypoints0, keypoints1, SHIFT, ((100, 50), (100, 50)), threshold=4)
    assert wider.percent == pytest.approx(100 * 4 / 5)
    assert wider.localization_error == pytest.approx((1 + 1 + 4 + 4) / 4)
    best = repeatability(
        keypoints0, keypoints1, SHIFT, ((100, 50), (100, 50)), threshold=3, max_keypoints=1
    )
    assert best.percent == 100


def test_repeatability_where_nothing_is_seen() -> None:
    sizes = (100, 50), (100, 50)
    none = np.empty((0, 2))
    assert repeatability(none, none, np.eye(3), sizes, 3) == (None, None)
    assert repeatability(np.array([[5.0, 5]]), none, np.eye(3), sizes, 3) == (0.0, None)


@given(st.integers(0, 1000))
def test_repeatability_is_that_of_all_distances(seed: int) -> None:
    rng = np.random.default_rng(seed)
    H = some_homography(rng)
    k0, k1 = rng.uniform(0, 300, (30, 2)), rng.uniform(0, 300, (40, 2))
    found = repeatability(k0, k1, H, ((300, 300), (300, 300)), 5)
    moved = cv2.perspectiveTransform(k0[None], H)[0]
    back = cv2.perspectiveTransform(k1[None], np.linalg.inv(H))[0]
    a = moved[((moved >= 0) & (moved < 300)).all(axis=1)]
    b = k1[((back >= 0) & (back < 300)).all(axis=1)]
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    nearest = np.concatenate([distances.min(axis=1), distances.min(axis=0)])
    near = nearest[nearest <= 5]
    assert found.percent == pytest.approx(100 * len(near) / (len(a) + len(b)), abs=1e-9)
    assert found.localization_error == (pytest.approx(near.mean(), abs=1e-9) if len(near) else None)
