"""Render the sample scene `gallery`: 16 photographs of a room that does not exist.

    python datasets/gallery/make.py [FOLDER]

writes FOLDER/images and FOLDER/gt; FOLDER is this file's own if not given. Needs scikit-image,
whose wheel brings the photographs on the walls. The same versions give the same files.
"""

from __future__ import annotations

# pycolmap corrupts zlib's compression when it is loaded first; see tests/test_imports.py.
import zlib  # noqa: F401  # isort: skip

import sys
from pathlib import Path

import numpy as np
import pycolmap
import skimage
from gallery_scene import gallery
from PIL import Image as PillowImage

from sfm_match.synthetic.lighting import LitScene, illuminate
from sfm_match.synthetic.render import render
from sfm_match.synthetic.scene import look_at
from sfm_match.types import Image

USED = (
    "astronaut.png",
    "brick.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "text.png",
)
"""Files of skimage/data whose pictures hang in the gallery."""

RESERVED = (
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "gravel.png",
    "microaneurysms.png",
    "retina.jpg",
    "rocket.jpg",
)
"""Files of skimage/data that are kept for training, so that the gallery stays unseen."""

FOCAL_LENGTH_35MM = 28
"""What the files' EXIF says; COLMAP makes 776.6 pixels of it, 0.9 percent more than is true."""

JPEG_QUALITY = 86

VIEWS = (
    # eye x, y, z; target x, y, z; roll in degrees; exposure
    ((1.3, 0.9, 1.60), (4.6, 3.9, 1.35), 1.5, 1.00),
    ((2.6, 0.7, 1.52), (4.5, 4.2, 1.40), -2.0, 1.04),
    ((3.9, 0.6, 1.68), (4.2, 4.4, 1.30), 3.0, 0.97),
    ((5.3, 0.8, 1.45), (3.9, 4.3, 1.45), -1.0, 1.02),
    ((6.5, 1.0, 1.75), (3.6, 4.0, 1.25), 4.0, 1.00),
    ((7.2, 2.1, 1.58), (3.4, 3.8, 1.35), -3.0, 0.95),
    ((7.3, 3.5, 1.40), (3.2, 3.2, 1.45), 2.0, 1.00),
    ((7.1, 4.8, 1.66), (3.5, 2.8, 1.30), -4.0, 1.05),
    ((6.0, 5.7, 1.80), (3.7, 2.4, 1.15), 1.0, 1.00),
    ((4.5, 5.9, 1.55), (4.0, 2.2, 1.35), 5.0, 0.98),
    ((3.0, 5.8, 1.42), (4.3, 2.3, 1.40), -2.5, 1.00),
    ((1.6, 5.5, 1.62), (4.5, 2.6, 1.30), 2.5, 1.03),
    ((0.8, 4.4, 1.72), (4.6, 3.0, 1.25), -1.5, 1.00),
    ((0.7, 2.9, 1.35), (4.7, 3.3, 1.50), 12.0, 0.96),
    ((2.1, 2.2, 1.95), (5.6, 4.6, 1.30), -8.0, 1.00),
    ((3.0, 2.3, 1.25), (1.9, 6.0, 1.65), 3.5, 1.02),
)


def camera() -> pycolmap.Camera:
    """Return the one true camera."""
    params = [770.0, 480.0, 360.0, -0.03]
    return pycolmap.Camera(model="SIMPLE_RADIAL", width=960, height=720, params=params, camera_id=1)


def poses() -> list[pycolmap.Rigid3d]:
    """Return cam_from_world of every view."""
    return [look_at(eye, target, roll) for eye, target, roll, _ in VIEWS]


def view(scene: LitScene, index: int) -> Image:
    """Return the picture of one view."""
    pose, exposure = poses()[index], VIEWS[index][3]
    return render(
        scene, camera(), pose, samples=8, exposure=exposure, noise=0.006, seed=index
    ).image


def ground_truth() -> pycolmap.Reconstruction:
    """Return the camera and the posed images, without points."""
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera())
    for index, pose in enumerate(poses()):
        image = pycolmap.Image(name=f"{index:02}.jpg", camera_id=1, image_id=index + 1)
        model.add_image_with_trivial_frame(image, pose)
    return model


def save_jpeg(path: Path, image: Image) -> None:
    exif = PillowImage.Exif()
    exif.get_ifd(0x8769)[0xA405] = FOCAL_LENGTH_35MM
    PillowImage.fromarray(image).save(
        path, quality=JPEG_QUALITY, subsampling="4:2:0", optimize=True, exif=exif
    )


def photograph(name: str) -> Image:
    with PillowImage.open(Path(skimage.__file__).parent / "data" / name) as image:
        return np.asarray(image.convert("RGB"))


def lit_gallery() -> LitScene:
    scene = gallery({Path(name).stem: photograph(name) for name in USED})
    return illuminate(scene, spacing=0.05, shadow_samples=24, ambient_samples=64)


def main(folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "gt").mkdir(exist_ok=True)
    ground_truth().write_text(folder / "gt")
    scene = lit_gallery()
    for index in range(len(VIEWS)):
        save_jpeg(folder / "images" / f"{index:02}.jpg", view(scene, index))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
