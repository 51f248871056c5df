import numpy as np
import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfm_match.geometry import epipolar
from sfm_match.types import ArrayF64

seeds = st.integers(0, 2**32 - 1)
K0 = np.array([[800.0, 0, 320.5], [0, 790, 240], [0, 0, 1]])
K1 = np.array([[1200.0, 0, 511], [0, 1210, 384.25], [0, 0, 1]])


def random_pose(rng: np.random.Generator) -> ArrayF64:
    rotation = Rotation.from_rotvec(rng.normal(size=3) * 0.3).as_matrix()
    return np.column_stack([rotation, rng.normal(size=3)])


def project(points: ArrayF64, K: ArrayF64) -> ArrayF64:
    homogeneous = points @ K.T
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:])


def scene(seed: int, num: int = 12) -> tuple[ArrayF64, ArrayF64, ArrayF64]:
    """Return a pose b_from_a, and points (N, 3) in a and in b, in front of both cameras."""
    rng = np.random.default_rng(seed)
    pose = random_pose(rng)
    in_a = rng.uniform([-3, -3, 8], [3, 3, 14], size=(num, 3))
    return pose, in_a, in_a @ pose[:, :3].T + pose[:, 3]


def homogeneous(point: ArrayF64) -> ArrayF64:
    return np.append(point, 1.0)


@given(seeds)
def test_exact_correspondences_have_no_distance(seed: int) -> None:
    pose, in_a, in_b = scene(seed)
    E = epipolar.essential_from_pose(pose)
    x0, x1 = project(in_a, np.eye(3)), project(in_b, np.eye(3))
    assert epipolar.squared_symmetric_epipolar_distance(x0, x1, E).max() < 1e-20
    F = epipolar.fundamental_from_essential(E, K0, K1)
    distances = epipolar.epipolar_line_distances(project(in_a, K0), project(in_b, K1), F)
    assert max(d.max() for d in distances) < 1e-7


@given(seeds)
def test_essential_matrix_agrees_with_pycolmap_up_to_scale(seed: int) -> None:
    pose = random_pose(np.random.default_rng(seed))
    expected = pycolmap.essential_matrix_from_pose(pycolmap.Rigid3d(pose))
    E = epipolar.essential_from_pose(pose)
    np.testing.assert_allclose(E / np.linalg.norm(pose[:, 3]), expected, atol=1e-12)


def test_essential_matrices_of_many_poses_at_once() -> None:
    rng = np.random.default_rng(0)
    poses = np.stack([random_pose(rng) for _ in range(6)]).reshape(2, 3, 3, 4)
    E = epipolar.essential_from_pose(poses)
    for index in np.ndindex(2, 3):
        R, t = poses[index][:, :3], poses[index][:, 3]
        for column in range(3):
            np.testing.assert_allclose(E[index][:, column], np.cross(t, R[:, column]), atol=1e-14)


@given(seeds)
def test_squared_sampson_distance_agrees_with_pycolmap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x0, x1 = rng.normal(size=(2, 20, 2))
    E = epipolar.essential_from_pose(random_pose(rng))
    expected = pycolmap.compute_squared_sampson_error(x0, x1, E)
    distances = epipolar.squared_sampson_distance(x0, x1, E)
    np.testing.assert_allclose(distances, expected, rtol=1e-9, atol=1e-14)


@given(seeds)
def test_distances_agree_with_the_formulas_point_by_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    F = rng.normal(size=(3, 3))
    points0, points1 = rng.normal(size=(2, 15, 2))
    d0, d1 = epipolar.epipolar_line_distances(points0, points1, F)
    symmetric = epipolar.squared_symmetric_epipolar_distance(points0, points1, F)
    sampson = epipolar.squared_sampson_distance(points0, points1, F)
    for i, (p0, p1) in enumerate(zip(points0, points1, strict=True)):
        x0, x1 = homogeneous(p0), homogeneous(p1)
        line0, line1 = F.T @ x1, F @ x0
        n0, n1 = np.hypot(line0[0], line0[1]), np.hypot(line1[0], line1[1])
        residual = float(x1 @ F @ x0)
        assert d0[i] == pytest.approx(abs(line0 @ x0) / n0, rel=1e-9, abs=1e-12)
        assert d1[i] == pytest.approx(abs(line1 @ x1) / n1, rel=1e-9, abs=1e-12)
        assert symmetric[i] == pytest.approx(residual**2 * (1 / n0**2 + 1 / n1**2), rel=1e-8)
        assert sampson[i] == pytest.approx(residual**2 / (n0**2 + n1**2), rel=1e-8)


@given(seeds, st.floats(1e-3, 1e3))
def test_distances_do_not_depend_on_the_scale_of_the_matrix(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    E = epipolar.essential_from_pose(random_pose(rng))
    points0, points1 = rng.normal(size=(2, 5, 2))
    for distance in (
        epipolar.squared_symmetric_epipolar_distance,
        epipolar.squared_sampson_distance,
    ):
        expected = distance(points0, points1, E)
        np.testing.assert_allclose(
            distance(points0, points1, -scale * E), expected, rtol=1e-9, atol=1e-14
        )


@given(seeds)
def test_exchanging_the_images_transposes_the_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    F = rng.normal(size=(3, 3))
    points0, points1 = rng.normal(size=(2, 5, 2))
    d0, d1 = epipolar.epipolar_line_distances(points0, points1, F)
    swapped1, swapped0 = epipolar.epipolar_line_distances(points1, points0, F.T)
    np.testing.assert_allclose([d0, d1], [swapped0, swapped1], rtol=1e-9, atol=1e-12)


def test_sideways_motion_has_horizontal_lines_so_distances_are_row_differences() -> None:
    # Two pinholes with focal length 500 side by side: epipolar lines are the image rows.
    K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    E = epipolar.essential_from_pose(np.column_stack([np.eye(3), [-1.0, 0, 0]]))
    F = epipolar.fundamental_from_essential(E, K, K)
    points0, points1 = np.array([[100.0, 50], [300, 200]]), np.array([[90.0, 53], [10, 200]])
    d0, d1 = epipolar.epipolar_line_distances(points0, points1, F)
    np.testing.assert_allclose(d0, [3, 0], atol=1e-10)
    np.testing.assert_allclose(d1, [3, 0], atol=1e-10)
    symmetric = epipolar.squared_symmetric_epipolar_distance(points0, points1, F)
    np.testing.assert_allclose(symmetric, [18, 0], atol=1e-10)
    sampson = epipolar.squared_sampson_distance(points0, points1, F)
    np.testing.assert_allclose(sampson, [4.5, 0], atol=1e-10)


def test_a_point_at_the_epipole_has_an_infinite_distance_and_no_warning() -> None:
    E = epipolar.essential_from_pose(np.column_stack([np.eye(3), [0.0, 0, 1]]))
    epipole, other = np.zeros((1, 2)), np.array([[0.1, 0.2]])
    with np.errstate(all="raise"):
        assert epipolar.squared_symmetric_epipolar_distance(epipole, other, E) == [np.inf]
        assert epipolar.squared_sampson_distance(epipole, epipole, E) == [np.inf]
        d0, d1 = epipolar.epipolar_line_distances(epipole, other, E)
    assert d0 == [0]
    assert d1 == [np.inf]


def test_no_correspondences() -> None:
    none = np.zeros((0, 2))
    assert epipolar.squared_symmetric_epipolar_distance(none, none, np.eye(3)).shape == (0,)
    assert epipolar.squared_sampson_distance(none, none, np.eye(3)).shape == (0,)
    assert [d.shape for d in epipolar.epipolar_line_distances(none, none, np.eye(3))] == [(0,)] * 2
