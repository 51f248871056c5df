import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.synthetic.builders import rectangle
from sfm_match.synthetic.lighting import LitScene, illuminate
from sfm_match.synthetic.render import _sample_offsets, render, render_depth
from sfm_match.synthetic.scene import Lamp, Scene, Surface, look_at
from sfm_match.types import Image

X, Y, Z = np.eye(3)
IDENTITY = pycolmap.Rigid3d()
CAMERAS = {
    "PINHOLE": [70.0, 75.0, 41.0, 29.0],
    "SIMPLE_RADIAL": [70.0, 40.0, 30.0, -0.15],
    "OPENCV": [70.0, 72.0, 40.0, 30.0, 0.08, -0.03, 0.004, -0.003],
    "OPENCV_FISHEYE": [45.0, 45.0, 40.0, 30.0, 0.03, -0.01, 0.0, 0.0],
}


def camera(model: str = "PINHOLE", params: list[float] | None = None) -> pycolmap.Camera:
    return pycolmap.Camera(model=model, width=80, height=60, params=params or CAMERAS[model])


def lit(*surfaces: Surface) -> LitScene:
    return illuminate(Scene(surfaces), ambient_samples=0)


def noise_texture(height: int, width: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def facing(z: float, width: float, height: float, texture: Image) -> Surface:
    """A plane across the optical axis of the camera at the origin."""
    return rectangle((0, 0, z), width * X, height * Y, texture, reflectance=1.0)


def test_a_texture_that_fits_the_pixels_comes_out_as_it_is() -> None:
    texture = noise_texture(60, 80)
    plane = facing(2.0, 2.0 * 80 / 70, 2.0 * 60 / 70, texture)
    seen = render(lit(plane), camera("PINHOLE", [70.0, 70.0, 40.0, 30.0]), IDENTITY, samples=1)
    difference = np.abs(seen.image.astype(int) - texture)
    assert difference.max() <= 1
    assert (seen.depth == np.float32(2.0)).all()


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.floats(-1, 1)] * 3), st.floats(1.0, 4.0), st.sampled_from(sorted(CAMERAS)))
def test_the_depth_of_a_plane_is_exact(
    tilt: tuple[float, float, float], distance: float, model: str
) -> None:
    normal = np.array([0.4 * tilt[0], 0.4 * tilt[1], -1.0])
    right = np.cross(normal, Y)
    foot = np.array([0.0, 0.0, distance])
    plane = rectangle(foot, 300 * right, 300 * np.cross(right, normal), noise_texture(4, 4))
    assert plane.normal @ normal > 0
    pose = pycolmap.Rigid3d(
        pycolmap.Rotation3d(np.array([0.1 * tilt[2], 0.0, 0.1 * tilt[0]])), 0.1 * np.array(tilt)
    )
    view = camera(model)
    depth = render_depth(Scene((plane,)), view, pose)
    y, x = np.mgrid[0:60, 0:80] + 0.5
    rays = view.cam_from_img(np.stack([x, y], axis=-1).reshape(-1, 2))
    assert isinstance(rays, np.ndarray)
    ahead = np.column_stack([rays, np.ones(len(rays))])
    n = pose.rotation.matrix() @ plane.normal
    expected = (n @ (pose * foot)) / (ahead @ n)
    sees = (expected > 0) & (expected < 20)
    assert np.count_nonzero(sees) > 2000
    assert depth.reshape(-1)[sees] == pytest.approx(expected[sees], rel=2e-7)


@pytest.mark.parametrize("model", sorted(CAMERAS))
def test_a_drawn_point_is_seen_where_colmap_projects_it(model: str) -> None:
    texture = np.full((400, 400, 3), 255, dtype=np.uint8)
    spots = np.array([[100, 120], [310, 90], [200, 300], [60, 330]])
    for x, y in spots:
        texture[y - 3 : y + 3, x - 3 : x + 3] = 0  # its centre is the texture point (x, y)
    plane = facing(2.0, 1.4, 1.4, texture)
    pose = look_at((0.2, 0.1, 0.0), (0.05, -0.05, 2.0), roll=10.0, up=(0, -1, 0))
    view = camera(model)
    view.rescale(4.0)
    image = render(lit(plane), view, pose, samples=16).image.astype(np.float64)[..., 0]
    for x, y in spots:
        point = plane.corner + x / 400 * plane.right + y / 400 * plane.down
        expected = view.img_from_cam(pose * point)
        assert expected is not None
        column, row = np.floor(expected).astype(int)
        weights = 255.0 - image[row - 6 : row + 7, column - 6 : column + 7]
        dy, dx = np.mgrid[-6:7, -6:7] + 0.5
        found = np.array([(weights * dx).sum(), (weights * dy).sum()]) / weights.sum()
        assert found + np.array([column, row]) == pytest.approx(expected, abs=0.06)


@given(st.integers(1, 40))
def test_sample_offsets_leave_no_bias(num: int) -> None:
    offsets = _sample_offsets(num)
    assert offsets.mean(axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert np.abs(offsets).max() < 0.5
    assert len({tuple(o) for o in offsets}) == num


def test_the_nearer_surface_hides_the_farther_in_any_order() -> None:
    near = facing(2.0, 0.8, 0.8, np.full((8, 8, 3), 40, dtype=np.uint8))
    far = facing(4.0, 9.0, 9.0, np.full((8, 8, 3), 200, dtype=np.uint8))
    for surfaces in ((near, far), (far, near)):
        seen = render(lit(*surfaces), camera(), IDENTITY)
        assert seen.depth[29, 41] == 2.0
        assert seen.depth[0, 0] == 4.0
        assert (seen.image[29, 41] == 40).all()
        assert (seen.image[0, 0] == 200).all()
        assert np.count_nonzero(seen.depth == 2.0) == pytest.approx(28.0 * 30.0, abs=60)


def test_a_surface_has_no_back() -> None:
    plane = facing(2.0, 9.0, 9.0, noise_texture(8, 8))
    behind = look_at((0, 0, 4), (0, 0, 0), up=(0, -1, 0))
    seen = render(lit(plane), camera(), behind)
    assert not seen.depth.any()
    assert not seen.image.any()


def test_what_is_far_away_is_the_mean_in_linear_light() -> None:
    board = (np.indices((512, 512)).sum(axis=0) % 2 * 255).astype(np.uint8)
    plane = facing(20.0, 20.0, 20.0, np.repeat(board[..., None], 3, axis=2))
    image = render(lit(plane), camera(), IDENTITY).image
    # Half the light is code 188 in sRGB; the mean of the codes would be 128.
    assert np.abs(image[8:52, 8:72].astype(int) - 188).max() <= 1


def test_noise_has_the_strength_and_the_seed_asked_for() -> None:
    plane = facing(2.0, 9.0, 9.0, np.full((8, 8, 3), 188, dtype=np.uint8))
    scene, view = lit(plane), camera()
    first, again, other = (
        render(scene, view, IDENTITY, noise=0.02, seed=seed).image for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()
    # At half the light the deviation is 0.02 * sqrt(0.51), and the slope of sRGB there 186 codes.
    slope = 255 * 1.055 / 2.4 * 0.5029 ** (1 / 2.4 - 1)
    assert first.std() == pytest.approx(0.02 * np.sqrt(0.5129) * slope, rel=0.05)


def test_exposure_scales_linear_light() -> None:
    scene = lit(facing(2.0, 9.0, 9.0, np.full((8, 8, 3), 255, dtype=np.uint8)))
    half = render(scene, camera(), IDENTITY, exposure=0.5).image
    assert (half == 188).all()


def test_an_omnidirectional_camera_sees_behind_itself_but_has_depth_only_in_front() -> None:
    back = rectangle(
        (0, 0, -2.0), -9 * X, 9 * Y, np.full((8, 8, 3), 90, dtype=np.uint8), reflectance=1.0
    )
    front = facing(2.0, 9.0, 9.0, np.full((8, 8, 3), 200, dtype=np.uint8))
    view = pycolmap.Camera(model="EQUIRECTANGULAR", width=80, height=40, params=[80.0, 40.0])
    seen = render(lit(front, back), view, IDENTITY)
    assert (seen.image[20, 40] == 200).all()
    assert (seen.image[20, 0] == 90).all()
    assert seen.depth[20, 40] == pytest.approx(2.0)
    assert seen.depth[20, 0] == 0


def test_a_highlight_lies_where_the_mirror_would_show_the_lamp() -> None:
    black = np.zeros((8, 8, 3), dtype=np.uint8)
    plane = rectangle((0, 0, 2.0), 9 * X, 9 * Y, black, specular=1.0)
    lamp = Lamp(np.array([0.6, 0.4, 0.0]), np.ones(3))
    scene = illuminate(Scene((plane,), (lamp,)), shadow_samples=0)
    view = camera()
    image = render(scene, view, IDENTITY).image[..., 0].astype(np.float64)
    # Lamp and camera are equally far from the plane, so the mirror point is half-way between.
    expected = view.img_from_cam(np.array([0.3, 0.2, 2.0]))
    row, column = np.unravel_index(int(image.argmax()), image.shape)
    assert image.max() > 100
    assert [column + 0.5, row + 0.5] == pytest.approx(expected, abs=2.0)
