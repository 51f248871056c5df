import cv2
import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.synthetic.builders import rectangle
from sfm_match.synthetic.flow import Flow, correspondences
from sfm_match.synthetic.lighting import illuminate
from sfm_match.synthetic.render import Rendering, render, render_depth
from sfm_match.synthetic.rooms import random_room
from sfm_match.synthetic.scene import Scene, Surface, look_at
from sfm_match.synthetic.textures import canvas
from sfm_match.types import ArrayF32, ArrayF64

X, Y, Z = np.eye(3)
GREY = np.full((8, 8, 3), 128, dtype=np.uint8)
MODELS = {
    "PINHOLE": [150.0, 155.0, 82.0, 58.0],
    "SIMPLE_RADIAL": [150.0, 80.0, 60.0, -0.1],
    "OPENCV": [150.0, 152.0, 80.0, 60.0, 0.08, -0.03, 0.004, -0.003],
    "OPENCV_FISHEYE": [100.0, 100.0, 80.0, 60.0, 0.03, -0.01, 0.0, 0.0],
}
UP = (0.0, -1.0, 0.0)


def camera(model: str = "PINHOLE") -> pycolmap.Camera:
    return pycolmap.Camera(model=model, width=160, height=120, params=MODELS[model])


def wall(z: float = 3.0, size: float = 40.0, centre: tuple[float, float] = (0, 0)) -> Surface:
    return rectangle((*centre, z), size * X, size * Y, GREY)


def flow_between(
    scene: Scene, view: pycolmap.Camera, pose0: pycolmap.Rigid3d, pose1: pycolmap.Rigid3d
) -> Flow:
    depth0, depth1 = (render_depth(scene, view, pose) for pose in (pose0, pose1))
    return correspondences(depth0, depth1, view, view, pose1 * pose0.inverse())


def centres(view: pycolmap.Camera) -> ArrayF64:
    y, x = np.mgrid[0 : view.height, 0 : view.width] + 0.5
    return np.stack([x, y], axis=-1)


def sample(values: ArrayF32 | npt.NDArray[np.uint8], points: ArrayF32) -> ArrayF32:
    """Bilinear, at corner-origin pixels."""
    x, y = points[..., 0] - np.float32(0.5), points[..., 1] - np.float32(0.5)
    sampled = cv2.remap(values.astype(np.float32), x, y, cv2.INTER_LINEAR)
    return np.asarray(sampled, dtype=np.float32)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(-0.5, 0.5)] * 3), st.tuples(*[st.floats(-0.3, 0.3)] * 3))
def test_the_flow_of_a_plane_is_its_homography(
    eye: tuple[float, ...], turn: tuple[float, ...]
) -> None:
    view, pose0 = camera(), pycolmap.Rigid3d()
    pose1 = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array(turn)), np.array(eye))
    flow = flow_between(Scene((wall(),)), view, pose0, pose1)
    # Hartley and Zisserman, section 13.1: H = K (R + t n^T / d) K^-1 for the plane n . X = d.
    k = view.calibration_matrix()
    h = k @ (pose1.rotation.matrix() + np.outer(pose1.translation, Z) / 3.0) @ np.linalg.inv(k)
    mapped = np.concatenate([centres(view), np.ones((120, 160, 1))], axis=-1) @ h.T
    expected = mapped[..., :2] / mapped[..., 2:]
    inside = ((expected > 0.01) & (expected < [159.99, 119.99])).all(axis=-1)
    assert flow.points1[inside] == pytest.approx(expected[inside], abs=1e-3)
    assert (flow.valid[inside]).all()
    outside = ((expected < -0.01) | (expected > [160.01, 120.01])).any(axis=-1)
    assert not flow.valid[outside].any()


@pytest.mark.parametrize("model", sorted(MODELS))
def test_no_motion_is_no_flow(model: str) -> None:
    view, pose = camera(model), look_at((0.3, 0.2, 0), (0.5, -0.4, 3), up=UP)
    flow = flow_between(Scene((wall(), wall(2.0, 0.6))), view, pose, pose)
    assert flow.points1 == pytest.approx(centres(view).astype(np.float32), abs=1e-4)
    assert flow.valid.all()


def test_what_is_hidden_in_the_other_image_is_invalid() -> None:
    screen, view = wall(2.0, 0.6), camera()
    pose1 = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([-0.5, 0.0, 0.0]))
    flow = flow_between(Scene((wall(3.0), screen)), view, pycolmap.Rigid3d(), pose1)
    points = (centres(view) - [82.0, 58.0]) / [150.0, 155.0]
    on_screen = (np.abs(points * 2.0) < 0.3).all(axis=-1)
    on_wall = ~(np.abs(points * 2.0) < 0.305).all(axis=-1)
    # From x = 0.5 a point x of the wall is seen through the screen's plane at 0.5 + 2/3 (x - 0.5).
    through = points * 3.0
    through[..., 0] = 0.5 + 2.0 / 3.0 * (through[..., 0] - 0.5)
    through[..., 1] *= 2.0 / 3.0
    edge = 0.6 * 3.0 / 150.0
    hidden = (np.abs(through) < 0.3 - edge).all(axis=-1)
    clear = (np.abs(through) > 0.3 + edge).any(axis=-1)
    within = ((flow.points1 > 1) & (flow.points1 < [159, 119])).all(axis=-1)
    assert np.count_nonzero(hidden & on_wall) > 400
    assert not flow.valid[hidden & on_wall].any()
    assert flow.valid[clear & on_wall & within].all()
    assert np.mean(flow.valid[on_screen & within]) > 0.9


def test_the_silhouette_itself_is_not_called_valid() -> None:
    view = camera()
    pose1 = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([-0.21, 0.107, 0.0]))
    scene = Scene((wall(3.0), wall(2.0, 0.6)))
    depth1 = render_depth(scene, view, pose1)
    flow = flow_between(scene, view, pycolmap.Rigid3d(), pose1)
    nearest = np.floor(flow.points1[flow.valid] - 0.5).astype(int)
    x, y = np.clip(nearest, 0, [158, 118]).T
    around = np.stack([depth1[y, x], depth1[y, x + 1], depth1[y + 1, x], depth1[y + 1, x + 1]])
    assert np.mean(np.ptp(around, axis=0) > 0.5) < 1e-3


@pytest.mark.parametrize("model", sorted(MODELS))
def test_there_and_back_again_returns_to_the_start(model: str) -> None:
    view = camera(model)
    pose0 = look_at((0.0, 0.0, 0.0), (0.1, 0.0, 3), roll=4, up=UP)
    pose1 = look_at((0.5, 0.2, -0.2), (0.0, 0.1, 3), roll=-9, up=UP)
    scene = Scene((wall(3.0), wall(2.2, 0.7, (0.3, 0.2))))
    there = flow_between(scene, view, pose0, pose1)
    back = flow_between(scene, view, pose1, pose0)
    home = np.stack([sample(back.points1[..., i], there.points1) for i in (0, 1)], axis=-1)
    seen = there.valid & (sample(back.valid.astype(np.uint8), there.points1) > 0.999)
    assert np.count_nonzero(seen) > 8000
    error = np.linalg.norm(home - centres(view), axis=-1)[seen]
    # remap rounds positions to 1/32 pixel.
    assert np.quantile(error, 0.99) < 0.06


def test_a_rooms_second_image_warps_onto_the_first() -> None:
    rng = np.random.default_rng(5)
    noise = [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(3)]
    photographs = [canvas(rng, n, factor=4.0) for n in noise]
    scene = illuminate(
        random_room(rng, photographs, texels_per_metre=60.0), spacing=0.4, ambient_samples=8
    )
    view = camera("SIMPLE_RADIAL")
    poses = [look_at((2.0, 2.2, 1.5), (4, 3.6, 1.2), 3), look_at((2.3, 1.9, 1.6), (4, 3.7, 1.3))]
    first, second = (render(scene, view, pose, samples=9) for pose in poses)
    flow = correspondences(first.depth, second.depth, view, view, poses[1] * poses[0].inverse())
    assert np.mean(flow.valid) > 0.5
    difference = photometric_error(first, second, flow)
    one_pixel_off = photometric_error(
        first, second, Flow(flow.points1 + np.array([1, 0], dtype=np.float32), flow.valid)
    )
    assert difference < 6.0
    assert one_pixel_off > 2.0 * difference


def photometric_error(first: Rendering, second: Rendering, flow: Flow) -> float:
    warped = sample(second.image, flow.points1)
    return float(np.abs(warped - first.image)[flow.valid].mean())


def test_points_behind_the_other_camera_are_nowhere() -> None:
    view = camera()
    behind = look_at((0, 0, 6), (0, 0, 9), up=UP)
    scene = Scene((wall(3.0), wall(9.0)))
    flow = flow_between(scene, view, pycolmap.Rigid3d(), behind)
    assert not flow.valid.any()
    assert np.isnan(flow.points1).all()


def test_points_that_the_distortion_folds_into_the_image_are_invalid() -> None:
    folding = pycolmap.Camera(
        model="SIMPLE_RADIAL", width=160, height=120, params=[150.0, 80.0, 60.0, -0.9]
    )
    wide = pycolmap.Camera(model="PINHOLE", width=160, height=120, params=[40.0, 40.0, 80.0, 60.0])
    scene = Scene((wall(),))
    identity = pycolmap.Rigid3d()
    depth = render_depth(scene, wide, identity)
    # The fold turns at r = 1 / sqrt(3 * 0.9) = 0.61; what lies farther out comes in again.
    flow = correspondences(
        depth, np.full((120, 160), 3.0, dtype=np.float32), wide, folding, identity
    )
    radius = np.linalg.norm((centres(wide) - [80.0, 60.0]) / 40.0, axis=-1)
    inside = ((flow.points1 >= 0) & (flow.points1 < [160, 120])).all(axis=-1)
    assert np.count_nonzero(inside & (radius > 0.62)) > 1000
    assert not flow.valid[radius > 0.62].any()
    assert flow.valid[radius < 0.3].all()


def test_unknown_depth_has_no_correspondence() -> None:
    view, identity = camera(), pycolmap.Rigid3d()
    depth = np.full((120, 160), 3.0, dtype=np.float32)
    hole = depth.copy()
    hole[:, :80] = 0
    assert not correspondences(hole, depth, view, view, identity).valid[:, :80].any()
    assert correspondences(hole, depth, view, view, identity).valid[:, 80:].all()
    assert not correspondences(depth, hole, view, view, identity).valid[:, :80].any()


def test_depth_of_the_wrong_size_is_refused() -> None:
    depth = np.ones((120, 160), dtype=np.float32)
    with pytest.raises(ValueError, match=r"depth1 must be .* \(120, 160\) .* got \(160, 120\)"):
        correspondences(depth, depth.T, camera(), camera(), pycolmap.Rigid3d())
