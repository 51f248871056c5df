from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from sfm_match.geometry import epipolar, poses
from sfm_match.geometry.two_view import estimate_two_view
from sfm_match.types import ArrayF32, ArrayF64, Matches, TwoView, TwoViewConfig
from tests.colmap_scene import Scene, camera, project, same_rows, synthesize

OPTIONS = pycolmap.TwoViewGeometryOptions(compute_relative_pose=True, ransac={"random_seed": 7})
POSE = np.column_stack([Rotation.from_euler("y", 8, degrees=True).as_matrix(), [-0.6, 0.05, 0.1]])


def estimate(
    points0: ArrayF32, points1: ArrayF32, matches: Matches | None = None, *, prior: bool = True
) -> TwoView:
    matches = same_rows(len(points0)) if matches is None else matches
    cameras = camera(1, prior=prior), camera(2, prior=prior)
    return estimate_two_view(cameras[0], points0, cameras[1], points1, matches, OPTIONS)


def cloud(num: int = 300) -> ArrayF64:
    return np.random.default_rng(0).uniform([-1.5, -1, 4], [1.5, 1, 8], (num, 3))


def see(points: ArrayF64, pose: ArrayF64) -> tuple[ArrayF32, ArrayF32]:
    return project(points, np.eye(3, 4)), project(points, pose)


def test_a_known_pose_is_found_up_to_its_scale() -> None:
    found = estimate(*see(cloud(), POSE))
    assert found.config == TwoViewConfig.CALIBRATED
    assert found.inliers.all()
    assert found.cam1_from_cam0 is not None
    assert np.linalg.norm(found.cam1_from_cam0[:, 3]) == pytest.approx(1, abs=1e-12)
    assert float(poses.pose_error(found.cam1_from_cam0, POSE)) < 0.01


def test_matrices_fulfil_the_epipolar_equations() -> None:
    points0, points1 = see(cloud(), POSE)
    found = estimate(points0, points1)
    assert found.E is not None
    assert found.F is not None
    lines = np.column_stack([points0, np.ones(len(points0))]) @ found.F.T
    distance = np.sum(np.column_stack([points1, np.ones(len(points1))]) * lines, axis=1)
    assert np.abs(distance / np.hypot(lines[:, 0], lines[:, 1])).max() < 0.01
    true = epipolar.essential_from_pose(POSE)
    true, estimated = true / np.linalg.norm(true), found.E / np.linalg.norm(found.E)
    assert min(np.abs(true - estimated).max(), np.abs(true + estimated).max()) < 1e-3


def test_without_a_prior_the_geometry_is_uncalibrated() -> None:
    points0, points1 = see(cloud(), POSE)
    found = estimate(points0, points1, prior=False)
    assert found.config == TwoViewConfig.UNCALIBRATED
    assert found.F is not None
    assert found.inliers.all()
    # One prior is not enough for an essential matrix.
    mixed = estimate_two_view(
        camera(1), points0, camera(2, prior=False), points1, same_rows(300), OPTIONS
    )
    assert mixed.config == TwoViewConfig.UNCALIBRATED


def test_wrong_matches_are_outliers_and_rows_need_not_be_in_order() -> None:
    points0, points1 = see(cloud(), POSE)
    rng = np.random.default_rng(1)
    rows0 = rng.permutation(300).astype(np.int32)
    rows1 = rows0.copy()
    wrong = rng.permutation(300)[:90]
    rows1[wrong] = np.roll(rows1[wrong], 1)
    matches = Matches(np.stack([rows0, rows1], axis=1), np.ones(300, np.float32))
    found = estimate(points0, points1, matches)
    is_wrong = np.zeros(300, bool)
    is_wrong[wrong] = True
    assert found.inliers[~is_wrong].all()
    # A wrong match may lie near its epipolar line.
    assert found.inliers[is_wrong].mean() < 0.15
    assert found.cam1_from_cam0 is not None
    assert float(poses.pose_error(found.cam1_from_cam0, POSE)) < 2


def test_a_plane_is_kept_as_planar() -> None:
    rng = np.random.default_rng(2)
    plane = np.column_stack([rng.uniform(-1.5, 1.5, (300, 2)), np.zeros(300)])
    tilt = Rotation.from_euler("x", 30, degrees=True).as_matrix()
    found = estimate(*see(plane @ tilt.T + [0, 0, 6], POSE))
    assert found.config == TwoViewConfig.PLANAR
    assert found.inliers.all()
    assert found.H is not None
    # COLMAP gives the translation as a share of the distance of the plane.
    assert found.cam1_from_cam0 is not None
    assert np.linalg.norm(found.cam1_from_cam0[:, 3]) == pytest.approx(1, abs=1e-12)
    assert float(poses.pose_error(found.cam1_from_cam0, POSE)) < 0.1
    points0, points1 = see(plane @ tilt.T + [0, 0, 6], POSE)
    mapped = np.column_stack([points0, np.ones(300)]) @ found.H.T
    np.testing.assert_allclose(mapped[:, :2] / mapped[:, 2:], points1, atol=0.01)


def test_a_turn_on_the_spot_is_kept_as_panoramic() -> None:
    turn = np.column_stack([POSE[:, :3], np.zeros(3)])
    found = estimate(*see(cloud(), turn))
    assert found.config in (TwoViewConfig.PANORAMIC, TwoViewConfig.PLANAR_OR_PANORAMIC)
    assert found.inliers.all()
    assert found.cam1_from_cam0 is not None
    error = poses.rotation_error(found.cam1_from_cam0[:, :3], POSE[:, :3])
    assert float(error) < 0.05
    np.testing.assert_array_equal(found.cam1_from_cam0[:, 3], 0)


@pytest.mark.parametrize("num", [0, 1, 4, 14])
def test_too_few_matches_give_no_geometry(num: int) -> None:
    points0, points1 = see(cloud(), POSE)
    found = estimate(points0, points1, same_rows(num))
    assert found.config == TwoViewConfig.DEGENERATE
    assert found.inliers.shape == (num,)
    assert not found.inliers.any()
    assert found.cam1_from_cam0 is None


def test_images_without_keypoints() -> None:
    nothing = np.zeros((0, 2), np.float32)
    found = estimate(nothing, nothing)
    assert (found.config, len(found.inliers)) == (TwoViewConfig.DEGENERATE, 0)


def test_the_pose_of_a_synthetic_dataset(scene: Scene) -> None:
    for pair, matches in list(scene.matches.items())[:5]:
        found = estimate(scene.keypoints[pair.a], scene.keypoints[pair.b], matches)
        true = poses.relative_pose(scene.pose(pair.a), scene.pose(pair.b))
        assert found.config == TwoViewConfig.CALIBRATED
        assert found.cam1_from_cam0 is not None
        assert float(poses.pose_error(found.cam1_from_cam0, true)) < 0.01


def test_the_options_are_used() -> None:
    noisy = synthesize(2, noise=1.0)
    (pair, matches), *_ = noisy.matches.items()
    counts = []
    for max_error in (0.3, 4.0):
        options = pycolmap.TwoViewGeometryOptions(ransac={"random_seed": 7, "max_error": max_error})
        cameras = camera(1), camera(2)
        points = noisy.keypoints[pair.a], noisy.keypoints[pair.b]
        found = estimate_two_view(cameras[0], points[0], cameras[1], points[1], matches, options)
        counts.append(found.num_inliers)
    assert counts[0] < 0.6 * counts[1]
    assert counts[1] > 0.95 * len(matches)
