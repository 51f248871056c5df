"""A room seen by a rig of two cameras, as photographs and as COLMAP's own database of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pycolmap

from sfm_match.synthetic.lighting import illuminate
from sfm_match.synthetic.render import render
from sfm_match.synthetic.rooms import random_room, room_size
from sfm_match.synthetic.scene import look_at
from sfm_match.synthetic.textures import painting

NUM_FRAMES = 6
SIDES = ("left", "right")
NAMES = [f"{side}/{i:02}.png" for side in SIDES for i in range(NUM_FRAMES)]
FOCAL = {"left": 380.0, "right": 400.0}
WIDTH, HEIGHT = 480, 360
RIGHT_FROM_LEFT = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([-0.4, 0.0, 0.0]))


def camera(side: str) -> pycolmap.Camera:
    """Return the true camera of a side."""
    return pycolmap.Camera(
        model="SIMPLE_PINHOLE",
        width=WIDTH,
        height=HEIGHT,
        params=[FOCAL[side], WIDTH / 2, HEIGHT / 2],
    )


def make_photographs(folder: Path) -> pycolmap.Reconstruction:
    """Write the photographs `NAMES` below a folder; return their true poses, each its own frame."""
    rng = np.random.default_rng(3)
    pictures = [painting(rng, (240, 320)) for _ in range(8)]
    room = random_room(rng, pictures, texels_per_metre=120)
    lit, size = illuminate(room), room_size(room)
    truth = pycolmap.Reconstruction()
    image_id = 0
    for number, side in enumerate(SIDES, start=1):
        (folder / side).mkdir(parents=True)
        made = camera(side)
        made.camera_id = number
        truth.add_camera_with_trivial_rig(made)
        for i in range(NUM_FRAMES):
            eye = np.array([1.5 + 0.35 * i, 1.5 + 0.1 * i, 1.5 + 0.05 * i])
            pose = look_at(eye, np.array([size[0] * 0.55, size[1] - 0.3, 1.4]), roll=0.0)
            if side == "right":
                pose = RIGHT_FROM_LEFT * pose
            seen = render(lit, made, pose, samples=2, exposure=1.0, noise=0.004, seed=image_id)
            PIL.Image.fromarray(seen.image).save(folder / side / f"{i:02}.png")
            image_id += 1
            image = pycolmap.Image(name=f"{side}/{i:02}.png", camera_id=number, image_id=image_id)
            truth.add_image_with_trivial_frame(image, pose)
    return truth


def apply_rig(database: Path) -> None:
    """Make the two cameras of a database a rig, whose pictures of one number are one frame."""
    cameras = [
        pycolmap.RigConfigCamera(
            ref_sensor=side == "left",
            image_prefix=f"{side}/",
            cam_from_rig=None if side == "left" else RIGHT_FROM_LEFT,
            camera=_known(side),
        )
        for side in SIDES
    ]
    with pycolmap.Database.open(database) as opened:
        pycolmap.apply_rig_config([pycolmap.RigConfig(cameras=cameras)], opened)


def _known(side: str) -> pycolmap.Camera:
    known = camera(side)
    known.has_prior_focal_length = True
    return known
