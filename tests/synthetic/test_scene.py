import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.synthetic.builders import BoxTextures, RoomTextures, box, picture, room
from sfm_match.synthetic.scene import Scene, Surface, look_at
from sfm_match.types import Image

GREY: Image = np.full((4, 4, 3), 128, dtype=np.uint8)
coordinate = st.floats(-5, 5)


@given(st.tuples(*[coordinate] * 3), st.tuples(*[coordinate] * 3), st.floats(-180, 180))
def test_look_at_puts_the_target_on_the_axis_and_keeps_the_distance(
    eye: tuple[float, ...], target: tuple[float, ...], roll: float
) -> None:
    offset = np.subtract(target, eye)
    if np.hypot(offset[0], offset[1]) < 1e-3:
        return
    pose = look_at(eye, target, roll)
    assert pose * np.asarray(target) == pytest.approx([0, 0, np.linalg.norm(offset)], abs=1e-9)
    assert pose * np.asarray(eye) == pytest.approx([0, 0, 0], abs=1e-9)
    assert np.linalg.det(pose.rotation.matrix()) == pytest.approx(1.0)


def test_look_at_has_the_sky_above_and_the_right_hand_to_the_right() -> None:
    pose = look_at((0, 0, 1), (0, 5, 1))
    assert pose * np.array([0.0, 5.0, 2.0]) == pytest.approx([0, -1, 5])
    assert pose * np.array([1.0, 5.0, 1.0]) == pytest.approx([1, 0, 5])


def test_a_clockwise_roll_turns_the_picture_anticlockwise() -> None:
    upward = look_at((0, 0, 0), (0, 5, 0), roll=90.0) * np.array([0.0, 5.0, 1.0])
    assert upward == pytest.approx([-1, 0, 5])


def test_look_at_refuses_to_look_straight_up() -> None:
    with pytest.raises(ValueError, match="parallel to up"):
        look_at((1, 2, 0), (1, 2, 3))


@pytest.mark.parametrize("turn", [0.0, 30.0, -100.0])
def test_a_box_is_closed_and_faces_outwards(turn: float) -> None:
    surfaces = box((1, 2, 3), (0.4, 0.6, 1.0), BoxTextures(*[GREY] * 6), turn=turn)
    centre = np.array([1, 2, 3.5])
    areas = np.array([np.linalg.norm(np.cross(s.down, s.right)) for s in surfaces])
    normals = np.array([s.normal for s in surfaces])
    assert areas.sum() == pytest.approx(2 * (0.4 * 0.6 + 0.4 * 1.0 + 0.6 * 1.0))
    assert areas @ normals == pytest.approx(np.zeros(3), abs=1e-12)
    for surface in surfaces:
        middle = surface.corner + (surface.right + surface.down) / 2
        assert (middle - centre) @ surface.normal > 0.19
    assert surfaces[4].normal == pytest.approx([0, 0, 1])
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    assert surfaces[1].normal == pytest.approx([cos, sin, 0])


def test_a_room_faces_inwards_and_its_walls_stand_upright() -> None:
    surfaces = room((4, 5, 3), RoomTextures(*[GREY] * 6))
    for surface in surfaces:
        middle = surface.corner + (surface.right + surface.down) / 2
        assert (np.array([2, 2.5, 1.5]) - middle) @ surface.normal > 1.4
    for wall in surfaces[:4]:
        assert wall.down == pytest.approx([0, 0, -3])
    assert surfaces[0].normal == pytest.approx([0, -1, 0])
    assert surfaces[1].normal == pytest.approx([-1, 0, 0])
    assert surfaces[4].normal == pytest.approx([0, 0, 1])


def test_a_picture_keeps_its_proportions_and_hangs_in_front_of_its_frame() -> None:
    image = np.zeros((30, 60, 3), dtype=np.uint8)
    surfaces = picture((2, 4, 1.5), (0, -1, 0), image, width=1.0, frame=GREY, thickness=0.03)
    canvas, frame = surfaces[-1], surfaces[-2]
    assert canvas.right == pytest.approx([1, 0, 0])
    assert canvas.down == pytest.approx([0, 0, -0.5])
    assert canvas.corner[1] < frame.corner[1] < 4.0
    assert np.ptp([s.corner[1] + (s.right + s.down)[1] for s in surfaces]) < 0.04


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texture": GREY[..., 0]}, r"texture must be \(h, w, 3\), got \(4, 4\)"),
        ({"right": (1, 2)}, "right must be three finite numbers"),
        ({"right": (0, 2, 0)}, "span no area"),
        ({"reflectance": 1.5}, "reflectance must be in 0..1, got 1.5"),
        ({"specular": -0.1}, "specular must not be negative"),
    ],
)
def test_a_wrong_surface_says_what_is_wrong(change: dict[str, object], message: str) -> None:
    fields = {"corner": (0, 0, 0), "right": (1, 0, 0), "down": (0, 1, 0), "texture": GREY}
    with pytest.raises(ValueError, match=message):
        Surface(**{**fields, **change})  # type: ignore[arg-type]


def test_an_empty_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one surface"):
        Scene(())
