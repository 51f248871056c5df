import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfm_match.geometry import poses
from sfm_match.types import ArrayF64
from tests.geometry.test_poses import apply, random_poses, seeds


def transform(similarity: poses.Similarity, points: ArrayF64) -> ArrayF64:
    return similarity.scale * points @ similarity.rotation.T + similarity.translation


@given(seeds, st.floats(-4, 4), st.integers(3, 20))
def test_alignment_recovers_the_similarity(seed: int, log_scale: float, num: int) -> None:
    rng = np.random.default_rng(seed)
    move = random_poses(seed, 1)[0]
    true = poses.Similarity(float(10**log_scale), move[:, :3], 100 * move[:, 3])
    source = rng.normal(size=(num, 3))
    found = poses.align_points(source, transform(true, source))
    assert found.scale == pytest.approx(true.scale, rel=1e-6)
    np.testing.assert_allclose(found.rotation, true.rotation, atol=1e-5)
    np.testing.assert_allclose(found.translation, true.translation, atol=1e-4 * true.scale + 1e-6)


@given(seeds)
def test_alignment_is_a_rotation_even_of_a_mirrored_set(seed: int) -> None:
    source = np.random.default_rng(seed).normal(size=(8, 3))
    found = poses.align_points(source, source * [1, 1, -1])
    assert np.linalg.det(found.rotation) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found.rotation @ found.rotation.T, np.eye(3), atol=1e-9)


@given(seeds)
def test_no_nearby_similarity_has_a_smaller_sum_of_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(2, 10, 3))
    target += 2 * source
    found = poses.align_points(source, target)
    least = np.sum((transform(found, source) - target) ** 2)
    for _ in range(20):
        turn = Rotation.from_rotvec(rng.normal(size=3) * 1e-2).as_matrix()
        other = poses.Similarity(
            found.scale * float(1 + rng.normal() * 1e-2),
            turn @ found.rotation,
            found.translation + rng.normal(size=3) * 1e-2,
        )
        assert np.sum((transform(other, source) - target) ** 2) >= least


def test_alignment_keeps_its_precision_far_from_the_origin() -> None:
    # Millimetres at map coordinates of thousands of kilometres.
    rng = np.random.default_rng(0)
    source = rng.normal(size=(10, 3))
    target = 25.0 * source + np.array([500_000.0, 5_400_000.0, 300.0])
    found = poses.align_points(source, target)
    assert found.scale == pytest.approx(25, rel=1e-10)
    np.testing.assert_allclose(transform(found, source), target, rtol=0, atol=1e-7)


def test_planar_centers_are_enough() -> None:
    source = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    turn = random_poses(3, 1)[0, :, :3]
    found = poses.align_points(source, 2 * source @ turn.T)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-12)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([[0, 0, 0], [1, 0, 0]], "at least 3 points in common, got 2"),
        ([[0, 0, 0], [1, 2, 3], [2, 4, 6], [-3, -6, -9]], "on a line"),
        ([[0.1, 0.2, 0.3]] * 4, "all 4 points of the source coincide"),
        # The same place up to the rounding of map coordinates.
        (
            [[5e6, 3e5, 70], [5e6 + 1e-9, 3e5, 70], [5e6, 3e5 + 6e-11, 70], [5e6, 3e5, 70 + 1e-13]],
            "all 4 points of the source coincide",
        ),
    ],
)
def test_degenerate_alignments_say_why(source: list[list[float]], message: str) -> None:
    points = np.array(source, dtype=np.float64)
    rng = np.random.default_rng(1)
    with pytest.raises(poses.DegenerateAlignmentError, match=message):
        poses.align_points(points, rng.normal(size=points.shape))
    with pytest.raises(
        poses.DegenerateAlignmentError, match=message.replace("the source", "the target")
    ):
        poses.align_points(rng.normal(size=points.shape), points)


@given(seeds, st.floats(0.01, 100))
def test_transformed_poses_see_transformed_points(seed: int, scale: float) -> None:
    cam, move = random_poses(seed, 2)
    similarity = poses.Similarity(scale, move[:, :3], move[:, 3])
    point = np.array([1.0, -2.0, 3.0])
    seen = apply(poses.transform_poses(similarity, cam), transform(similarity, point))
    np.testing.assert_allclose(seen, scale * apply(cam, point), atol=1e-10 * max(scale, 1))
