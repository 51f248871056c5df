"""Render the sample scene `gallery`: 16 photographs of a room that does not exist.

    python datasets/gallery/make.py [FOLDER]

writes FOLDER/images and FOLDER/gt; FOLDER is this file's own if not given. Needs scikit-image,
whose wheel brings the photographs on the walls. The same versions give the same files.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sfm_match  # noqa: F401  # isort: skip  (before pycolmap: see sfm_match/__init__.py)

import cv2
import numpy as np
import pycolmap
import skimage
from PIL import Image as PillowImage

from sfm_match.synthetic.builders import BoxTextures, RoomTextures, box, picture, room
from sfm_match.synthetic.lighting import LitScene, illuminate
from sfm_match.synthetic.render import render
from sfm_match.synthetic.scene import Lamp, Scene, Surface, look_at
from sfm_match.synthetic.textures import Colour, canvas, fractal_noise, planks, plaster, tinted
from sfm_match.synthetic.textures import to_image
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

SEED = 20
SIZE = (8.0, 6.5, 3.2)
"""Extent of the room along x (west to east), y (south to north) and z (up), in metres."""

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
    ((5.4, 2.3, 1.20), (2.9, 5.6, 1.70), 3.5, 1.02),
)


def camera() -> pycolmap.Camera:
    """Return the one true camera."""
    return pycolmap.Camera(
        model="SIMPLE_RADIAL", width=960, height=720, params=[770.0, 480.0, 360.0, -0.03], camera_id=1
    )


def photograph(name: str) -> Image:
    path = Path(skimage.data_dir) / name
    with PillowImage.open(path) as image:
        return np.asarray(image.convert("RGB"))


def painting(rng: np.random.Generator, shape: tuple[int, int], num: int = 60) -> Image:
    """Return an abstract painting: discs, bars and polygons on a canvas."""
    height, width = shape
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[:] = rng.integers(60, 230, size=3)
    palette = rng.integers(10, 250, size=(7, 3))
    for _ in range(num):
        colour = tuple(int(c) for c in np.clip(palette[rng.integers(7)] + rng.normal(0, 14, 3), 0, 255))
        centre = rng.uniform(0, [width, height])
        radius = min(height, width) * rng.uniform(0.03, 0.16)
        kind = rng.integers(3)
        if kind == 0:
            axes = (int(radius), int(radius * rng.uniform(0.4, 1.0)))
            at = (int(centre[0]), int(centre[1]))
            cv2.ellipse(image, at, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 1:
            angles = np.sort(rng.uniform(0, 2 * np.pi, size=rng.integers(3, 6)))
            outline = centre + 1.4 * radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            cv2.fillPoly(image, [outline.astype(np.int32)], colour, cv2.LINE_AA)
        else:
            end = centre + 4.0 * radius * rng.uniform(-1, 1, size=2)
            points = [(int(p[0]), int(p[1])) for p in (centre, end)]
            cv2.line(image, points[0], points[1], colour, int(2 + radius / 6), cv2.LINE_AA)
    return canvas(rng, image, factor=1.0, contrast=0.09)


def wall(rng: np.random.Generator, width: float, colour: Colour, panelled: bool) -> Image:
    """Return a plastered wall with a skirting board, and wooden panels below if so wished."""
    density = 240
    rows, columns = int(SIZE[2] * density), int(width * density)
    image = plaster(rng, (rows, columns), colour, contrast=0.07)
    if panelled:
        tall = int(0.9 * density)
        boards = planks(rng, (columns, tall), (150, 118, 86), width=38, length=900)
        image[rows - tall :] = np.rot90(boards)
        image[rows - tall - 8 : rows - tall] = planks(rng, (8, columns), (96, 70, 48), width=8)
    image[rows - 26 :] = planks(rng, (26, columns), (92, 68, 50), width=26, length=500)
    return image


def rug(rng: np.random.Generator, shape: tuple[int, int]) -> Image:
    """Return a woven rug: patches of wool between borders."""
    image = painting(rng, shape, num=90).astype(np.float64)
    wool = fractal_noise(rng, shape, finest=1.0, coarsest=6.0, roughness=0.1)
    image *= 0.75 + 0.10 * wool[..., None]
    for inset, colour in ((0, (70, 30, 28)), (14, (190, 160, 110)), (22, (40, 46, 70))):
        for side in (image[inset : inset + 6], image[shape[0] - inset - 6 : shape[0] - inset]):
            side[:] = np.asarray(colour) * (1.0 + 0.1 * wool[:6, :, None])
    return to_image(image)


def pieces() -> dict[str, Image]:
    """Return the pictures to hang: no two show the same part of a photograph."""
    hubble, ihc = photograph("hubble_deep_field.jpg"), photograph("ihc.png")
    coins, grass, brick = (photograph(f"{name}.png") for name in ("coins", "grass", "brick"))
    return {
        "astronaut": photograph("astronaut.png"),
        "coffee": photograph("coffee.png"),
        "text": tinted(photograph("text.png"), (30, 40, 80), (250, 240, 215)),
        "stars": hubble[:, :600],
        "galaxies": hubble[:436, 600:],
        "nebula": hubble[436:, 600:],
        "tissue": ihc[:, :256],
        "cells": ihc[:, 256:],
        "silver": tinted(coins[:151], (24, 26, 34), (240, 238, 225)),
        "bronze": tinted(coins[151:], (40, 16, 20), (245, 205, 140)),
        "meadow": tinted(grass[:256, :256], (12, 34, 10), (214, 232, 150)),
        "hay": tinted(grass[:256, 256:], (60, 36, 8), (255, 230, 160)),
        "reeds": tinted(grass[256:, :256], (8, 30, 44), (190, 226, 220)),
        "heather": tinted(grass[256:, 256:], (44, 10, 40), (240, 200, 226)),
        "masonry": tinted(np.rot90(brick[:, :256]), (50, 14, 8), (255, 190, 150)),
        "pavement": tinted(brick[:, 256:], (16, 18, 22), (220, 215, 205)),
    }


def pictures(rng: np.random.Generator) -> list[Surface]:
    """Return what hangs on the four walls."""
    width, depth, _ = SIZE
    hung = pieces()
    north, east, south, west = (0, -1, 0), (-1, 0, 0), (0, 1, 0), (1, 0, 0)
    plan = (
        # what, its centre on the wall, the wall's normal, width
        ("stars", (1.35, depth, 1.75), north, 1.30),
        ("astronaut", (3.15, depth, 1.70), north, 1.25),
        ("text", (4.75, depth, 2.15), north, 1.35),
        ("bronze", (4.75, depth, 1.40), north, 1.30),
        ("painting", (6.60, depth, 1.75), north, 1.50),
        ("coffee", (width, 5.05, 1.80), east, 1.75),
        ("heather", (width, 3.35, 1.75), east, 1.00),
        ("painting", (width, 1.60, 1.75), east, 1.60),
        ("pavement", (6.95, 0, 1.70), south, 0.75),
        ("painting", (5.45, 0, 1.75), south, 1.35),
        ("nebula", (3.80, 0, 1.80), south, 1.20),
        ("silver", (2.30, 0, 2.05), south, 1.20),
        ("masonry", (2.30, 0, 1.28), south, 1.10),
        ("cells", (0.85, 0, 1.75), south, 0.85),
        ("galaxies", (0, 1.25, 1.75), west, 1.15),
        ("painting", (0, 2.95, 1.75), west, 1.50),
        ("tissue", (0, 4.35, 1.75), west, 0.80),
        ("meadow", (0, 5.55, 1.70), west, 1.00),
    )
    surfaces: list[Surface] = []
    for name, centre, normal, size in plan:
        image = (
            painting(rng, (640, 760), num=110)
            if name == "painting"
            else canvas(rng, hung[name], factor=max(1.0, 380 * size / hung[name].shape[1]))
        )
        tone = rng.uniform(25, 170)
        frame = planks(rng, (80, 400), (tone, 0.8 * tone, 0.58 * tone), width=80, length=300)
        surfaces += picture(
            centre,
            normal,
            image,
            width=size,
            frame=frame,
            border=float(rng.uniform(0.03, 0.08)),
            thickness=float(rng.uniform(0.025, 0.06)),
            specular=0.03,
        )
    return surfaces


def furniture(rng: np.random.Generator) -> list[Surface]:
    """Return the display wall, plinths, a bench, a rug, the ceiling's beams and the lamps' shades."""
    hung = pieces()

    def faces(size: tuple[float, float, float], *shown: Image) -> BoxTextures:
        wide, deep, tall = (max(8, int(330 * extent)) for extent in size)
        plain = [painting(rng, s, 70) for s in [(tall, wide), (tall, deep)] * 2 + [(deep, wide)] * 2]
        return BoxTextures(*shown, *plain[len(shown) :])

    def wooden(size: tuple[float, float, float], colour: Colour) -> BoxTextures:
        wide, deep, tall = (max(8, int(260 * extent)) for extent in size)
        shapes = [(tall, wide), (tall, deep)] * 2 + [(deep, wide)] * 2
        return BoxTextures(*(planks(rng, s, colour, width=22, length=300) for s in shapes))

    display, bench, beam = (1.9, 0.14, 1.95), (1.5, 0.42, 0.44), (SIZE[0], 0.16, 0.20)
    surfaces = list(box((4.05, 3.25, 0), display, faces(display), turn=24))
    plinths = (
        ((2.35, 3.75), (0.55, 0.55, 1.05), -18.0, "reeds"),
        ((5.75, 3.05), (0.60, 0.50, 0.80), 35.0, "hay"),
        ((6.60, 5.60), (0.50, 0.50, 1.25), 12.0, None),
        ((0.65, 0.60), (0.50, 0.60, 0.70), -30.0, None),
    )
    for (x, y), size, turn, name in plinths:
        shown = [canvas(rng, hung[name], factor=1.4)] if name else []
        surfaces += box((x, y, 0), size, faces(size, *shown), turn=turn)
    surfaces += box((3.3, 1.9, 0), bench, wooden(bench, (168, 120, 74)), turn=-12)
    woven = rug(rng, (540, 720))
    rug_size = (2.3, 1.7, 0.012)
    surfaces += box((4.9, 4.75, 0), rug_size, faces(rug_size)._replace(top=woven), turn=8)
    for y in (1.55, 3.20, 4.90):
        foot = (SIZE[0] / 2, y, SIZE[2] - beam[2])
        surfaces += box(foot, beam, wooden(beam, (118, 84, 58)))
    shade = BoxTextures(*[plaster(rng, (48, 48), (235, 232, 225), 0.05)] * 6)
    for x, y in LAMPS:
        surfaces += box((x, y, SIZE[2] - 0.06), (0.30, 0.30, 0.06), shade)
    return surfaces


LAMPS = ((1.4, 2.4), (1.5, 4.1), (4.0, 0.8), (4.0, 5.6), (6.5, 2.3), (6.4, 4.1))
"""Where the lamps hang, x and y."""


def gallery() -> Scene:
    """Return the scene."""
    rng = np.random.default_rng(SEED)
    width, depth, height = SIZE
    shell = RoomTextures(
        north=wall(rng, width, (214, 206, 190), panelled=False),
        east=wall(rng, depth, (190, 152, 128), panelled=True),
        south=wall(rng, width, (172, 186, 164), panelled=True),
        west=wall(rng, depth, (160, 174, 190), panelled=False),
        floor=planks(rng, (int(depth * 240), int(width * 240)), (172, 130, 88), width=30),
        ceiling=plaster(rng, (int(depth * 160), int(width * 160)), (226, 222, 212)),
    )
    surfaces = [*room(SIZE, shell, specular=0.05), *pictures(rng), *furniture(rng)]
    lamps = tuple(Lamp((x, y, height - 0.22), (2.3, 2.15, 1.9), radius=0.10) for x, y in LAMPS)
    return Scene(tuple(surfaces), lamps, ambient=(0.34, 0.35, 0.38))


def poses() -> list[pycolmap.Rigid3d]:
    """Return cam_from_world of every view."""
    return [look_at(eye, target, roll) for eye, target, roll, _ in VIEWS]


def view(scene: LitScene, index: int) -> Image:
    """Return the picture of one view."""
    exposure = VIEWS[index][3]
    rendering = render(
        scene, camera(), poses()[index], samples=8, exposure=exposure, noise=0.006, seed=index
    )
    return rendering.image


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


def main(folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "gt").mkdir(exist_ok=True)
    ground_truth().write_text(folder / "gt")
    scene = illuminate(gallery(), spacing=0.05, shadow_samples=24, ambient_samples=64)
    for index in range(len(VIEWS)):
        save_jpeg(folder / "images" / f"{index:02}.jpg", view(scene, index))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
