import numpy as np
import pytest

from sfm_match.synthetic.builders import rectangle
from sfm_match.synthetic.lighting import LitScene, illuminate, linear_to_srgb, srgb_to_linear
from sfm_match.synthetic.scene import Lamp, Scene, Surface
from sfm_match.types import ArrayF32

X, Y, Z = np.eye(3)
LAMP = Lamp(2.0 * Z, np.array([1.0, 0.5, 0.0]), radius=0.0)


def floor(size: float, texels: int = 81) -> Surface:
    texture = np.full((texels, texels, 3), 255, dtype=np.uint8)
    return rectangle((0, 0, 0), size * X, -size * Y, texture, reflectance=1.0)


def light_on(scene: LitScene, surface: int = 0) -> ArrayF32:
    rows, columns = scene.heights[surface, 0], scene.widths[surface, 0]
    start = scene.starts[surface, 0]
    return scene.texels[start : start + rows * columns].reshape(rows, columns, 3)


def test_srgb_codes_survive_the_way_to_linear_light_and_back() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (linear_to_srgb(srgb_to_linear(codes)) == codes).all()
    assert srgb_to_linear(codes)[11, 12] == pytest.approx(0.5028865, abs=1e-6)  # code 188


def test_a_lamp_obeys_the_inverse_square_and_lamberts_law() -> None:
    scene = Scene((floor(4.0),), (LAMP,), ambient=(0, 0, 0))
    light = light_on(illuminate(scene, spacing=4.0 / 81, ambient_samples=0))
    assert light[40, 40] == pytest.approx([0.25, 0.125, 0.0], rel=2e-3)
    # 40 texels to the side the lamp is 2 m above and 40 * 4 / 81 m away.
    aside = 40 * 4.0 / 81
    distance = np.hypot(2.0, aside)
    assert light[40, 80, 0] == pytest.approx(2.0 / distance / distance**2, rel=2e-3)


def test_what_stands_between_shades_and_what_does_not_does_not() -> None:
    screen = rectangle((0, 0, 1.0), 0.5 * X, 0.5 * Y, np.zeros((2, 2, 3), dtype=np.uint8))
    scene = Scene((floor(4.0), screen), (LAMP,), ambient=(0, 0, 0))
    light = light_on(illuminate(scene, spacing=4.0 / 81, ambient_samples=0))[..., 0]
    # The lamp is twice as high as the screen, so the shadow is twice the screen's size: 1 m.
    lit = light[40] > 0
    assert np.count_nonzero(~lit) * 4.0 / 81 == pytest.approx(1.0, abs=0.11)
    assert not lit[31:50].any()
    unshaded = light_on(illuminate(scene, shadow_samples=0, ambient_samples=0))
    assert (unshaded[..., 0] > 0).all()


def test_what_stands_beyond_the_lamp_does_not_shade() -> None:
    behind = rectangle((0.1, 0.1, 1.5), 2 * (X - Y), -3 * Z, np.zeros((2, 2, 3), dtype=np.uint8))
    scene = Scene((floor(4.0), behind), (LAMP,), ambient=(0, 0, 0))
    light = light_on(illuminate(scene, spacing=4.0 / 81, ambient_samples=0))[..., 0]
    # The screen stands along x + y = 0.2; rows go down towards -y.
    x, y = np.meshgrid(np.arange(81) - 40, 40 - np.arange(81))
    near, far = (x + y) * 4.0 / 81 < 0.1, (x + y) * 4.0 / 81 > 0.3
    middle = np.abs(x - y) < 20
    assert (light[near] > 0).all()
    assert (light[far & middle] == 0).all()


def test_the_edge_of_a_large_lamps_shadow_is_soft() -> None:
    screen = rectangle((0, 0, 1.0), 0.5 * X, 0.5 * Y, np.zeros((2, 2, 3), dtype=np.uint8))
    levels = []
    for radius in (0.0, 0.3):
        lamp = Lamp(LAMP.position, LAMP.power, radius)
        scene = Scene((floor(4.0), screen), (lamp,), ambient=(0, 0, 0))
        lit = illuminate(scene, spacing=4.0 / 81, shadow_samples=32, ambient_samples=0)
        middle = light_on(lit)[40, :, 0]
        levels.append(np.count_nonzero((middle > 0.02) & (middle < 0.15)))
    assert levels[1] >= levels[0] + 6


def test_ambient_light_is_whole_on_a_free_plane_and_weaker_in_a_corner() -> None:
    wall = rectangle((0, 2.0, 1.0), 4.0 * X, -2.0 * Z, np.full((2, 2, 3), 255, dtype=np.uint8))
    free = light_on(illuminate(Scene((floor(4.0),))))
    assert free == pytest.approx(1.0, abs=1e-6)
    cornered = light_on(illuminate(Scene((floor(4.0), wall)), ambient_range=1.0))[..., 0]
    assert cornered[0, 40] < 0.75
    assert cornered[40, 40] == pytest.approx(1.0, abs=1e-6)
    assert (np.diff(cornered[:20, 40]) > -1e-3).all()


def test_reflectance_scales_the_light() -> None:
    white = floor(1.0, 4)
    grey = Surface(white.corner, white.right, white.down, white.texture, reflectance=0.25)
    assert light_on(illuminate(Scene((grey,)))) == pytest.approx(0.25, abs=1e-6)


def test_pyramid_levels_are_means_of_their_texels() -> None:
    texture = np.random.default_rng(0).integers(0, 256, (5, 12, 3), dtype=np.uint8)
    plane = rectangle((0, 0, 0), 12 * X, -5 * Y, texture, reflectance=1.0)
    lit = illuminate(Scene((plane,)), ambient_samples=0)
    linear = srgb_to_linear(texture)
    assert list(lit.heights[0]) == [5, 3, 2, 1, 1]
    assert list(lit.widths[0]) == [12, 6, 3, 2, 1]
    second = lit.texels[lit.starts[0, 1] :][: 3 * 6].reshape(3, 6, 3)
    assert second[1, 2] == pytest.approx(linear[2:4, 4:6].mean(axis=(0, 1)), rel=1e-5)
    assert second[2, 2] == pytest.approx(linear[4, 4:6].mean(axis=0), rel=1e-5)
