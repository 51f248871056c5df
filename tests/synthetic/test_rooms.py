from itertools import pairwise

import numpy as np
import pycolmap
import pytest

from sfm_match.synthetic.render import render_depth
from sfm_match.synthetic.rooms import random_room, random_walk, room_size
from sfm_match.synthetic.scene import Scene
from sfm_match.types import Image


def photographs() -> list[Image]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((20, 30), (48, 30))]


def make(seed: int) -> Scene:
    return random_room(np.random.default_rng(seed), photographs(), texels_per_metre=20.0)


def test_the_seed_decides_the_room() -> None:
    first, again, other = make(1), make(1), make(2)
    for a, b in zip(first.surfaces, again.surfaces, strict=True):
        assert (a.corner == b.corner).all()
        assert (a.texture == b.texture).all()
    assert [lamp.power.tolist() for lamp in first.lamps] == [
        lamp.power.tolist() for lamp in again.lamps
    ]
    assert (room_size(first) != room_size(other)).all()


def test_a_room_holds_as_much_as_asked_for() -> None:
    bare, full = (
        random_room(
            np.random.default_rng(0),
            photographs(),
            texels_per_metre=20.0,
            num_boxes=num,
            num_pictures=0,
        )
        for num in (0, 4)
    )
    assert len(bare.surfaces) == 6
    assert len(full.surfaces) == 6 + 4 * 6


@pytest.mark.parametrize("seed", range(6))
def test_everything_stays_inside_and_the_walk_finds_the_way_free(seed: int) -> None:
    scene = make(seed)
    size = room_size(scene)
    shell = scene.surfaces[:6]
    assert np.max([s.corner for s in shell], axis=0) == pytest.approx(size)
    for surface in scene.surfaces:
        for corner in (surface.corner, surface.corner + surface.right + surface.down):
            assert (corner >= -1e-9).all()
            assert (corner <= size + 1e-9).all()
    view = pycolmap.Camera(model="PINHOLE", width=48, height=36, params=[40.0, 40.0, 24.0, 18.0])
    for pose in random_walk(np.random.default_rng(seed), size, 8):
        eye = pose.inverse().translation
        assert (eye > 0.9).all()
        assert (eye < size - 0.4).all()
        depth = render_depth(scene, view, pose)
        # A closed room leaves no gap, and an eye inside a box would see its far side from behind.
        assert (depth > 0).all()
        assert depth.min() > 0.05


def test_neighbouring_views_of_a_walk_are_neighbours() -> None:
    poses = random_walk(np.random.default_rng(0), np.array([7.0, 7.0, 3.0]), 200, step=0.4)
    eyes = np.array([pose.inverse().translation for pose in poses])
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    assert 0.2 < np.median(steps) < 0.5
    turns = [np.degrees((b * a.inverse()).rotation.angle()) for a, b in pairwise(poses)]
    assert 5 < np.median(turns) < 20
