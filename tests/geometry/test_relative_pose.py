from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfm_match.geometry import epipolar, poses
from sfm_match.geometry.relative_pose import (
    ESTIMATORS,
    check_estimator,
    estimate_relative_pose,
    estimator_version,
)
from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64

FOCALS = (800.0, 1200.0)


class Scene(NamedTuple):
    pose: ArrayF64
    points0: ArrayF64
    points1: ArrayF64
    num_good: int


def scene(seed: int, noise: float = 0.5, num_good: int = 200, num_bad: int = 60) -> Scene:
    """Two views of a cloud of points, with noise in pixels; the bad matches come first."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_rotvec(rng.normal(size=3) * 0.15).as_matrix()
    pose = np.column_stack([rotation, rng.normal(size=3)])
    in_0 = rng.uniform([-3, -2, 6], [3, 2, 12], size=(num_good, 3))
    in_1 = in_0 @ rotation.T + pose[:, 3]
    sides = []
    for points, focal in ((in_0, FOCALS[0]), (in_1, FOCALS[1])):
        good = points[:, :2] / points[:, 2:] + rng.normal(size=(num_good, 2)) * noise / focal
        bad = rng.uniform(-0.5, 0.5, size=(num_bad, 2))
        sides.append(np.concatenate([bad, good]))
    return Scene(pose, sides[0], sides[1], num_good)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("seed", range(4))
def test_the_pose_and_the_inliers_of_a_known_scene(estimator: str, seed: int) -> None:
    pose, points0, points1, num_good = scene(seed, noise=0.1)
    found = estimate_relative_pose(points0, points1, FOCALS, estimator=estimator, seed=seed)
    assert found is not None
    assert poses.pose_error(found.cam1_from_cam0, pose) < 3
    rotation, translation = found.cam1_from_cam0[:, :3], found.cam1_from_cam0[:, 3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.norm(translation) == pytest.approx(1, abs=1e-12)
    assert found.inliers.shape == (len(points0),)
    # Chance puts some bad matches near their epipolar lines.
    assert np.count_nonzero(found.inliers[-num_good:]) > 0.75 * num_good
    assert np.count_nonzero(found.inliers[:-num_good]) < 0.25 * (len(points0) - num_good)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_inliers_are_within_the_threshold_in_pixels(estimator: str) -> None:
    _, points0, points1, _ = scene(5, noise=1e-3, num_bad=300)
    for threshold in (5.0, 20.0):
        found = estimate_relative_pose(
            points0, points1, FOCALS, estimator=estimator, threshold=threshold
        )
        assert found is not None
        E = epipolar.essential_from_pose(found.cam1_from_cam0)
        pixels = 1000 * np.sqrt(epipolar.squared_sampson_distance(points0, points1, E))
        # The bad matches have all distances, so that the worst inlier is near the threshold. The
        # estimators average the focal lengths 800 and 1200 in ways of their own.
        assert 0.6 * threshold < pixels[found.inliers].max() < 1.4 * threshold


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_seed_decides(estimator: str) -> None:
    _, points0, points1, _ = scene(1, noise=2)

    def run(seed: int) -> ArrayF64:
        found = estimate_relative_pose(points0, points1, FOCALS, estimator=estimator, seed=seed)
        assert found is not None
        return found.cam1_from_cam0

    np.testing.assert_array_equal(run(3), run(3))
    assert len({run(seed).tobytes() for seed in range(3)}) > 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(num=st.integers(0, 4), seed=st.integers(0, 99))
@settings(max_examples=10)
def test_fewer_than_five_points_have_no_pose(estimator: str, num: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(2, num, 2))
    assert estimate_relative_pose(points[0], points[1], FOCALS, estimator=estimator) is None


@pytest.mark.parametrize("estimator", ["poselib", "pycolmap"])
def test_points_that_coincide_have_no_pose(estimator: str) -> None:
    points = np.zeros((30, 2))
    assert estimate_relative_pose(points, points, FOCALS, estimator=estimator) is None


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("num", [5, 6, 7])
def test_the_fewest_points_never_fail_with_an_exception(estimator: str, num: int) -> None:
    _, points0, points1, _ = scene(2, noise=0, num_good=num, num_bad=0)
    found = estimate_relative_pose(points0, points1, FOCALS, estimator=estimator)
    if found is not None:
        assert found.inliers.sum() >= 5


@pytest.mark.parametrize(
    ("estimator", "threshold", "seed", "message"),
    [
        ("poslib", 1.0, 0, "no estimator named 'poslib'; did you mean 'poselib'"),
        ("opencv", 0.0, 0, "positive number of pixels, got 0.0"),
        ("opencv", np.nan, 0, "positive number of pixels, got nan"),
        ("poselib", 1.0, -1, "the seed must be from 0"),
        ("poselib", 1.0, 1 << 31, "the seed must be from 0"),
    ],
)
def test_wrong_settings_are_named(
    estimator: str, threshold: float, seed: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_estimator(estimator, threshold, seed)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_largest_seed_is_taken(estimator: str) -> None:
    _, points0, points1, _ = scene(0)
    found = estimate_relative_pose(
        points0, points1, FOCALS, estimator=estimator, seed=(1 << 31) - 1
    )
    assert found is not None
    assert estimator_version(estimator)[0].isdigit()
