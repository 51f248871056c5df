from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sfm_match.geometry.epipolar import essential_from_pose, fundamental_from_essential
from sfm_match.geometry.focal_votes import FACTORS, estimate_fundamental, vote_focals

STEP = FACTORS[1] / FACTORS[0]


def calibration(focal: float) -> np.ndarray:
    return np.array([[focal, 0, 320], [0, focal, 240], [0, 0, 1.0]])


def pairs_of(focals: list[float], num: int) -> tuple[np.ndarray, np.ndarray]:
    """Return true fundamental matrices of random poses, and the cameras of the pairs."""
    rng = np.random.default_rng(0)
    cameras = rng.integers(0, len(focals), (num, 2))
    rotations = Rotation.from_rotvec(rng.normal(0, 0.3, (num, 3))).as_matrix()
    E = essential_from_pose(np.concatenate([rotations, rng.normal(size=(num, 3, 1))], axis=2))
    K = np.array([calibration(focal) for focal in focals])
    return fundamental_from_essential(E, K[cameras[:, 0]], K[cameras[:, 1]]), cameras


@pytest.mark.parametrize("said", [300.0, 500.0, 600.0, 1400.0])
def test_the_focal_length_of_one_camera(said: float) -> None:
    F, cameras = pairs_of([600.0], 12)
    votes = vote_focals(F, calibration(said)[None], cameras)
    assert votes.factors[0] * said == pytest.approx(600, rel=STEP - 1)
    assert votes.residuals[0] < 0.02
    assert votes.near_residuals[0] > 3 * votes.residuals[0]
    assert votes.num_pairs.tolist() == [12]


def test_one_wrong_focal_length_among_right_ones() -> None:
    true = [600.0, 700.0, 800.0, 900.0]
    F, cameras = pairs_of(true, 40)
    said = [600.0, 700.0, 1400.0, 900.0]
    votes = vote_focals(F, np.array([calibration(f) for f in said]), cameras)
    np.testing.assert_allclose(votes.factors * said, true, rtol=1.5 * (STEP - 1))
    assert votes.prior_residuals[2] > 5 * votes.residuals[2]


def test_false_pairs_are_outvoted() -> None:
    F, cameras = pairs_of([600.0], 12)
    F[:3] = np.random.default_rng(1).normal(size=(3, 3, 3))
    votes = vote_focals(F, calibration(1000.0)[None], cameras)
    assert votes.factors[0] * 1000 == pytest.approx(600, rel=2 * (STEP - 1))


def test_axes_that_meet_in_one_point_say_nothing() -> None:
    """Two cameras of one kind at the same distance from it: the classical degenerate pair."""
    angle = np.radians(40)
    rotation = Rotation.from_rotvec([0, angle, 0]).as_matrix()
    pose = np.c_[rotation, [0, 0, 5] - rotation @ [0, 0, 5]]
    K = calibration(600.0)
    F = fundamental_from_essential(essential_from_pose(pose), K, K)
    votes = vote_focals(F[None], K[None], np.zeros((1, 2), np.int64))
    assert votes.near_residuals[0] < 1e-6


def test_a_fundamental_matrix_from_points_with_outliers() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -1, 4], [1, 1, 8], (200, 3))
    rotation = Rotation.from_rotvec([0.05, 0.2, 0.1]).as_matrix()
    K = calibration(600.0)
    in_b = points @ rotation.T + [1.0, 0.1, 0.2]
    points0, points1 = ((p @ K.T)[:, :2] / p[:, 2:] for p in (points, in_b))
    points1[:60] = rng.uniform(0, 480, (60, 2))
    F = estimate_fundamental(points0, points1)
    assert F is not None
    expected = fundamental_from_essential(
        essential_from_pose(np.c_[rotation, [1.0, 0.1, 0.2]]), K, K
    )
    scaled = F / np.linalg.norm(F), expected / np.linalg.norm(expected)
    assert abs(np.sum(scaled[0] * scaled[1])) == pytest.approx(1, abs=1e-5)


def test_too_few_points_have_no_fundamental_matrix() -> None:
    assert estimate_fundamental(np.zeros((3, 2)), np.zeros((3, 2))) is None
