import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfm_match.geometry import poses
from sfm_match.types import ArrayF64

seeds = st.integers(0, 2**32 - 1)


def random_poses(seed: int, *shape: int) -> ArrayF64:
    rng = np.random.default_rng(seed)
    num = int(np.prod(shape))
    rotations = Rotation.random(num, random_state=rng).as_matrix()
    translations = rng.normal(size=(num, 3, 1)) * 3
    return np.concatenate([rotations, translations], axis=-1).reshape(*shape, 3, 4)


def about_z(degrees: float) -> ArrayF64:
    return Rotation.from_euler("z", degrees, degrees=True).as_matrix()


def pose(rotation: ArrayF64, *translation: float) -> ArrayF64:
    return np.column_stack([rotation, translation])


def apply(b_from_a: ArrayF64, point: ArrayF64) -> ArrayF64:
    return b_from_a[:, :3] @ point + b_from_a[:, 3]


# --- poses ----------------------------------------------------------------------------------------


@given(seeds)
def test_compose_maps_points_like_one_pose_after_the_other(seed: int) -> None:
    b_from_a, c_from_b = random_poses(seed, 2)
    point = np.array([0.3, -2.0, 5.0])
    mapped = apply(poses.compose(c_from_b, b_from_a), point)
    np.testing.assert_allclose(mapped, apply(c_from_b, apply(b_from_a, point)), atol=1e-12)


@given(seeds)
def test_a_pose_and_its_inverse_cancel_on_either_side(seed: int) -> None:
    some = random_poses(seed, 2, 3)
    identity = np.broadcast_to(np.eye(3, 4), some.shape)
    np.testing.assert_allclose(poses.compose(some, poses.inverse(some)), identity, atol=1e-12)
    np.testing.assert_allclose(poses.compose(poses.inverse(some), some), identity, atol=1e-12)


@given(seeds)
def test_composition_is_associative(seed: int) -> None:
    a, b, c = random_poses(seed, 3)
    left = poses.compose(poses.compose(a, b), c)
    np.testing.assert_allclose(left, poses.compose(a, poses.compose(b, c)), atol=1e-11)


@given(seeds)
def test_relative_pose_agrees_with_pycolmap(seed: int) -> None:
    a, b = random_poses(seed, 2)
    expected = pycolmap.Rigid3d(b) * pycolmap.Rigid3d(a).inverse()
    np.testing.assert_allclose(poses.relative_pose(a, b), expected.matrix(), atol=1e-12)


@given(seeds)
def test_relative_poses_compose_along_a_chain_of_cameras(seed: int) -> None:
    a, b, c = random_poses(seed, 3)
    chained = poses.compose(poses.relative_pose(b, c), poses.relative_pose(a, b))
    np.testing.assert_allclose(chained, poses.relative_pose(a, c), atol=1e-11)
    back = poses.inverse(poses.relative_pose(a, b))
    np.testing.assert_allclose(poses.relative_pose(b, a), back, atol=1e-11)


@given(seeds)
def test_the_projection_center_is_the_camera_origin_in_the_world(seed: int) -> None:
    some = random_poses(seed, 4)
    for one, center in zip(some, poses.projection_centers(some), strict=True):
        np.testing.assert_allclose(apply(one, center), 0, atol=1e-12)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "degrees", [0, 1e-12, 1e-7, 1e-3, 1, 45, 90, 135, 179, 180 - 1e-3, 180 - 1e-7, 180 - 1e-10, 180]
)
@pytest.mark.parametrize("seed", range(3))
def test_rotation_error_is_exact_from_0_to_180_degrees(degrees: float, seed: int) -> None:
    rotation, axis = random_poses(seed, 2)[..., :3]
    turn = axis @ about_z(degrees) @ axis.T
    error = float(poses.rotation_error(turn @ rotation, rotation))
    assert error == pytest.approx(degrees, abs=1e-13, rel=1e-13)


def test_rotation_error_resolves_a_nanodegree_at_both_ends() -> None:
    ends = np.stack([about_z(1e-9), about_z(180 - 1e-9)])
    errors = poses.rotation_error(ends, np.eye(3))
    assert errors[0] == pytest.approx(1e-9, rel=1e-6)
    assert 180 - errors[1] == pytest.approx(1e-9, rel=1e-3)


@given(seeds)
def test_rotation_error_is_symmetric_and_the_same_after_a_common_rotation(seed: int) -> None:
    r0, r1, turn = random_poses(seed, 3)[..., :3]
    error = poses.rotation_error(r0, r1)
    assert poses.rotation_error(r1, r0) == pytest.approx(float(error), abs=1e-10)
    assert poses.rotation_error(turn @ r0, turn @ r1) == pytest.approx(float(error), abs=1e-10)
    assert poses.rotation_error(r0 @ turn, r1 @ turn) == pytest.approx(float(error), abs=1e-10)


@pytest.mark.parametrize(
    ("direction", "signed", "unsigned"),
    [
        ((5, 0, 0), 0, 0),
        ((1, 1, 0), 45, 45),
        ((0, 0, 2), 90, 90),
        ((-1, 1, 0), 135, 45),
        ((-3, 0, 0), 180, 0),
        ((1, np.deg2rad(1e-9), 0), 1e-9, 1e-9),
        ((-1, np.deg2rad(1e-9), 0), 180 - 1e-9, 1e-9),
    ],
)
def test_direction_error(
    direction: tuple[float, float, float], signed: float, unsigned: float
) -> None:
    x, other = np.array([1e-3, 0, 0]), np.array(direction, dtype=np.float64)
    assert poses.direction_error(x, other) == pytest.approx(signed, rel=1e-12)
    assert poses.direction_error(x, other, sign_ambiguous=True) == pytest.approx(unsigned, rel=1e-6)


def test_pose_error_is_the_larger_of_the_two_errors() -> None:
    true = pose(np.eye(3), 1, 0, 0)
    estimated = np.stack(
        [
            pose(about_z(10), *(7 * about_z(3)[:, 0])),
            pose(about_z(2), *(0.1 * about_z(30)[:, 0])),
            pose(about_z(2), *-about_z(30)[:, 0]),
        ]
    )
    np.testing.assert_allclose(poses.pose_error(estimated, true), [10, 30, 150], rtol=1e-12)
    ambiguous = poses.pose_error(estimated, true, sign_ambiguous=True)
    np.testing.assert_allclose(ambiguous, [10, 30, 30], rtol=1e-12)


def test_pose_error_without_a_baseline() -> None:
    still, moved = pose(np.eye(3), 0, 0, 0), pose(about_z(4), 1, 2, 3)
    assert poses.pose_error(moved, still) == pytest.approx(4, rel=1e-12)
    assert poses.pose_error(still, moved) == 180
    assert poses.pose_error(still, moved, sign_ambiguous=True) == 90
    assert poses.pose_error(pose(about_z(4), 0, 0, 0), still) == pytest.approx(4, rel=1e-12)


@given(seeds, st.floats(1e-3, 1e3))
def test_relative_pose_errors_do_not_change_under_a_similarity_of_the_world(
    seed: int, scale: float
) -> None:
    estimated, true = random_poses(seed, 2, 2)
    move = random_poses(seed + 1, 1)[0]
    world2_from_world = poses.Similarity(scale, move[:, :3], move[:, 3])
    moved = poses.transform_poses(world2_from_world, estimated)
    relative_true = poses.relative_pose(true[0], true[1])
    before = poses.pose_error(poses.relative_pose(estimated[0], estimated[1]), relative_true)
    after = poses.pose_error(poses.relative_pose(moved[0], moved[1]), relative_true)
    assert after == pytest.approx(float(before), abs=1e-6)


# --- area under the recall curve ------------------------------------------------------------------


def brute_force_auc(errors: list[float], threshold: float) -> float:
    """Sum the area piece by piece: a trapezoid between errors, a rectangle after the last."""
    area, x, height = 0.0, 0.0, 0.0
    for rank, error in enumerate(sorted(errors), start=1):
        if error >= threshold:
            break
        area += (error - x) * (height + rank / len(errors)) / 2
        x, height = error, rank / len(errors)
    return 100 * (area + (threshold - x) * height) / threshold


@given(
    st.lists(
        st.one_of(st.floats(0, 40), st.just(np.inf), st.sampled_from([0.0, 5.0, 10.0, 180.0])),
        min_size=1,
        max_size=30,
    ),
    st.lists(st.one_of(st.floats(0.01, 50), st.sampled_from([5.0, 10.0])), max_size=4),
)
@settings(max_examples=300)
def test_auc_is_the_integral_of_the_recall_curve(
    errors: list[float], thresholds: list[float]
) -> None:
    expected = [brute_force_auc(errors, threshold) for threshold in thresholds]
    result = poses.auc(errors, thresholds)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9)
    assert ((result >= 0) & (result <= 100 + 1e-9)).all()


def test_auc_by_a_dense_numerical_integral() -> None:
    errors = np.array([1.0, 2.0, 2.5, 7.0, np.inf])
    step = 1e-5
    x = np.arange(step / 2, 5, step)
    below = errors[errors < 5]
    recall = np.interp(x, np.r_[0, below], np.arange(len(below) + 1) / len(errors))
    assert poses.auc(errors, [5])[0] == pytest.approx(100 * recall.mean(), abs=1e-6)


def test_auc_of_known_curves() -> None:
    np.testing.assert_array_equal(poses.auc([0, 0, 0], [1, 5]), [100, 100])
    np.testing.assert_array_equal(poses.auc([180, np.inf], [1, 5]), [0, 0])
    # One error e < T of one: a triangle e / 2, then recall 1 from e to T.
    assert poses.auc([4], [10])[0] == pytest.approx(100 * (2 + 6) / 10, abs=1e-12)
    # Half of the pairs failed: half the area.
    assert poses.auc([4, 180], [10])[0] == pytest.approx(100 * (1 + 3) / 10, abs=1e-12)
    # An error exactly at the threshold does not count.
    assert poses.auc([10], [10])[0] == 0


@given(st.lists(st.floats(0, 180), min_size=1, max_size=20), seeds)
def test_auc_does_not_depend_on_order_and_grows_when_an_error_shrinks(
    errors: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before = poses.auc(errors, [3, 20])
    shuffled = rng.permutation(errors)
    np.testing.assert_allclose(poses.auc(shuffled, [3, 20]), before, atol=1e-12)
    shuffled[0] /= 2
    assert (poses.auc(shuffled, [3, 20]) >= before - 1e-12).all()


@pytest.mark.parametrize(
    ("errors", "thresholds", "message"),
    [
        ([], [5], "at least one value"),
        ([1, np.nan], [5], "NaN, got nan"),
        ([-1.0], [5], "got -1.0"),
        ([1], [0], "positive and finite"),
        ([1], [np.inf], "positive and finite"),
    ],
)
def test_auc_names_what_is_wrong(
    errors: list[float], thresholds: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        poses.auc(errors, thresholds)
