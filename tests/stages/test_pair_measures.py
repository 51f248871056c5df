from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from sfm_match.stages.pair_measures import measure_pair
from sfm_match.stages.pair_results import PairMatches, PairPose
from sfm_match.stages.pair_truth import TruePair
from sfm_match.types import ArrayF64

CAMERAS = (
    pycolmap.Camera(model="PINHOLE", width=640, height=480, params=[500, 510, 320, 240]),
    pycolmap.Camera(
        model="OPENCV", width=640, height=480, params=[600, 610, 310, 250, 0.1, 0, 0, 0]
    ),
)
NAMES = ("b.jpg", "a.jpg")
EXACT = [("poselib", 0.5), ("opencv", 2.0)]


def scene(translation: tuple[float, float, float] = (1, 0.2, 0.1)) -> tuple[TruePair, ArrayF64]:
    """A pair and 100 points (3,) in front of its first camera."""
    rotation = Rotation.from_euler("y", 8, degrees=True).as_matrix()
    pose = np.column_stack([rotation, translation])
    points = np.random.default_rng(0).uniform([-2, -1, 6], [2, 1, 9], size=(100, 3))
    return TruePair(NAMES, CAMERAS, pose), points


def seen(pair: TruePair, points: ArrayF64) -> tuple[ArrayF64, ArrayF64]:
    """Return where both cameras see some points, in pixels."""
    in_1 = points @ pair.cam1_from_cam0[:, :3].T + pair.cam1_from_cam0[:, 3]
    pixels = [camera.img_from_cam(p) for camera, p in zip(CAMERAS, (points, in_1), strict=True)]
    return np.asarray(pixels[0], np.float64), np.asarray(pixels[1], np.float64)


def measure(
    pair: TruePair, pixels: tuple[ArrayF64, ArrayF64], seed: int = 0
) -> tuple[PairMatches, list[PairPose]]:
    return measure_pair(pair, pixels, (400, 300), EXACT, seed)


def test_exact_matches_have_the_true_pose_and_are_all_correct() -> None:
    pair, points = scene()
    matches, found = measure(pair, seen(pair, points))
    assert matches == PairMatches(NAMES, (400, 300), 100, 100.0, 25.0)
    for pose in found:
        assert pose.error < 0.01
        assert pose.num_inliers == 100
        assert pose.error == max(pose.rotation_error or 0, pose.translation_error or 0)


def test_a_pose_is_measured_against_the_truth() -> None:
    pair, points = scene()
    turn = Rotation.from_euler("z", 3, degrees=True).as_matrix()
    wrong = TruePair(NAMES, CAMERAS, turn @ pair.cam1_from_cam0)
    _, found = measure(wrong, seen(pair, points))
    for pose in found:
        assert pose.rotation_error == pytest.approx(3, abs=0.02)
        # The translation of the truth is turned by 3 degrees about z too.
        x, y, z = pair.cam1_from_cam0[:, 3]
        side = np.hypot(x, y) / np.sqrt(x * x + y * y + z * z)
        assert pose.translation_error == pytest.approx(3 * side, abs=0.02)
        assert pose.error == pytest.approx(3, abs=0.02)


def test_a_translation_in_the_opposite_direction_counts_as_right() -> None:
    pair, points = scene()
    pose = pair.cam1_from_cam0.copy()
    pose[:, 3] *= -7
    _, (found, _) = measure(TruePair(NAMES, CAMERAS, pose), seen(pair, points))
    assert found.translation_error == pytest.approx(0, abs=0.01)
    assert found.error == pytest.approx(0, abs=0.01)


def test_precision_follows_the_distance_in_normalised_coordinates() -> None:
    _, points = scene()
    # Without a rotation the epipolar lines are rows: a shift by d in y is d from both lines.
    beside = np.array([1.0, 0, 0])
    pair = TruePair(NAMES, (CAMERAS[0], CAMERAS[0]), np.column_stack([np.eye(3), beside]))
    limit = np.sqrt(5e-4 / 2) * 510
    shifts = np.linspace(-2 * limit, 2 * limit, 100)
    pixels0 = np.asarray(CAMERAS[0].img_from_cam(points), np.float64)
    pixels1 = np.asarray(CAMERAS[0].img_from_cam(points + beside), np.float64)
    pixels1[:, 1] += shifts
    matches, _ = measure_pair(pair, (pixels0, pixels1), (400, 300), (), 0)
    num_correct = int(np.count_nonzero(np.abs(shifts) < limit))
    assert 40 < num_correct < 60
    assert matches.precision == pytest.approx(num_correct)
    assert matches.matching_score == pytest.approx(num_correct / 4)


def test_without_a_baseline_only_the_rotation_counts() -> None:
    pair, points = scene(translation=(0, 0, 0))
    pixels0, pixels1 = seen(pair, points)
    noisy = pixels1 + np.random.default_rng(1).normal(size=pixels1.shape) * 0.2
    matches, found = measure(pair, (pixels0, noisy))
    assert (matches.precision, matches.matching_score) == (None, None)
    for pose in found:
        assert pose.translation_error is None
        assert pose.error == pose.rotation_error
        assert pose.error < 1


@pytest.mark.parametrize("num", [0, 4])
def test_too_few_matches_have_no_pose(num: int) -> None:
    pair, points = scene()
    pixels = seen(pair, points)
    matches, found = measure(pair, (pixels[0][:num], pixels[1][:num]))
    assert matches.num_matches == num
    assert matches.precision == (100 if num else 0)
    for pose in found:
        assert (pose.rotation_error, pose.translation_error) == (None, None)
        assert (pose.error, pose.num_inliers) == (180, 0)


def test_pixels_without_a_direction_are_wrong_matches() -> None:
    lens = pycolmap.Camera(
        model="SIMPLE_RADIAL", width=640, height=480, params=[500, 320, 240, -0.9]
    )
    pair, points = scene()
    pixels0, pixels1 = seen(pair, points)
    assert np.isnan(np.asarray(lens.cam_from_img(np.array([[2000.0, 240]])))).any()
    pair = TruePair(NAMES, (lens, CAMERAS[1]), pair.cam1_from_cam0)
    in_0 = points[:, :2] / points[:, 2:]
    radial = 1 - 0.9 * (in_0**2).sum(axis=1, keepdims=True)
    pixels0 = in_0 * radial * 500 + (320, 240)
    pixels0[:10] = (2000, 240)
    matches, (found, _) = measure(pair, (pixels0, pixels1))
    assert matches.precision == pytest.approx(90)
    assert found.num_inliers == 90
    assert found.error < 0.01


def test_without_keypoints_there_is_no_matching_score() -> None:
    pair, points = scene()
    matches, _ = measure_pair(pair, seen(pair, points), None, EXACT, 0)
    assert (matches.precision, matches.matching_score) == (100, None)


def test_the_seed_belongs_to_the_pair() -> None:
    pair, points = scene()
    pixels0, pixels1 = seen(pair, points)
    pixels1 = pixels1 + np.random.default_rng(1).normal(size=pixels1.shape) * 3
    other = TruePair(("b.jpg", "c.jpg"), CAMERAS, pair.cam1_from_cam0)

    def errors(pair: TruePair, seed: int) -> list[float]:
        return [pose.error for pose in measure(pair, (pixels0, pixels1), seed)[1]]

    assert errors(pair, 0) == errors(pair, 0)
    assert errors(pair, 0) != errors(pair, 1)
    assert errors(pair, 0) != errors(other, 0)
