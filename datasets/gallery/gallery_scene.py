"""The room that `make.py` photographs: its walls, what hangs on them, its furniture and lamps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sfm_match.synthetic.builders import BoxTextures, RoomTextures, box, picture, room, wall_axes
from sfm_match.synthetic.scene import Lamp, Scene, Surface, Vector
from sfm_match.synthetic.textures import (
    Colour,
    canvas,
    fractal_noise,
    painting,
    planks,
    plaster,
    tinted,
    to_image,
)
from sfm_match.types import ArrayF64, Image

Size = tuple[float, float, float]

SEED = 20
SIZE = (8.0, 6.5, 3.2)
"""Extent of the room along x (west to east), y (south to north) and z (up), in metres."""

LAMPS = ((1.6, 2.4), (1.7, 4.2), (3.9, 1.0), (4.1, 5.3), (6.4, 2.4), (6.2, 4.1))
"""Where the lamps hang, x and y."""

LAMP_HEIGHT = 2.5

DISPLAY_FOOT = np.array([4.05, 3.25, 0.0])
DISPLAY_TURN = np.radians(24)
"""The free-standing display wall in the middle: where it stands, and its anticlockwise turn."""


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
    image = painting(rng, shape, 90).astype(np.float64)
    wool = fractal_noise(rng, shape, finest=1.0, coarsest=6.0, roughness=0.1)
    image *= 0.75 + 0.10 * wool[..., None]
    for inset, colour in ((0, (70, 30, 28)), (14, (190, 160, 110)), (22, (40, 46, 70))):
        for side in (image[inset : inset + 6], image[shape[0] - inset - 6 : shape[0] - inset]):
            side[:] = np.asarray(colour) * (1.0 + 0.1 * wool[:6, :, None])
    return to_image(image)


def pieces(photographs: Mapping[str, Image]) -> dict[str, Image]:
    """Return the pictures to hang: no two show the same part of a photograph."""
    hubble, ihc = photographs["hubble_deep_field"], photographs["ihc"]
    coins, grass, brick = (photographs[name] for name in ("coins", "grass", "brick"))
    return {
        "astronaut": photographs["astronaut"],
        "coffee": photographs["coffee"],
        "text": tinted(photographs["text"], (30, 40, 80), (250, 240, 215)),
        "stars": hubble[:, :600],
        "galaxies": hubble[:436, 600:],
        "cluster": hubble[436:, 600:],
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


def on_display(side: int, shift: float, height: float) -> tuple[ArrayF64, ArrayF64]:
    """Return a place on the display wall and its normal; side 1 is the front, -1 the back."""
    right, down = wall_axes((np.sin(DISPLAY_TURN), -np.cos(DISPLAY_TURN), 0.0))
    normal = side * np.cross(down, right)
    return DISPLAY_FOOT + [0, 0, height] + 0.07 * normal + side * shift * right, normal


def pictures(rng: np.random.Generator, prints: dict[str, Image]) -> list[Surface]:
    """Return what hangs on the walls and on the display wall."""
    width, depth, _ = SIZE
    north, east, south, west = (0, -1, 0), (-1, 0, 0), (0, 1, 0), (1, 0, 0)
    plan: tuple[tuple[str, float, tuple[Vector, Vector]], ...] = (
        # what, its width, its centre and the wall's normal
        ("stars", 1.30, ((1.35, depth, 1.75), north)),
        ("astronaut", 1.25, ((3.15, depth, 1.70), north)),
        ("text", 1.35, ((4.75, depth, 2.15), north)),
        ("bronze", 1.30, ((4.75, depth, 1.40), north)),
        ("painting", 1.50, ((6.60, depth, 1.75), north)),
        ("coffee", 1.75, ((width, 5.05, 1.80), east)),
        ("painting", 1.00, ((width, 3.35, 1.75), east)),
        ("painting", 1.60, ((width, 1.60, 1.75), east)),
        ("pavement", 0.75, ((6.95, 0, 1.70), south)),
        ("painting", 1.35, ((5.45, 0, 1.75), south)),
        ("painting", 1.20, ((3.80, 0, 1.80), south)),
        ("silver", 1.35, ((2.25, 0, 1.80), south)),
        ("cells", 0.85, ((0.85, 0, 1.75), south)),
        ("galaxies", 1.15, ((0, 1.25, 1.75), west)),
        ("painting", 1.50, ((0, 2.95, 1.75), west)),
        ("tissue", 0.80, ((0, 4.35, 1.75), west)),
        ("meadow", 1.00, ((0, 5.55, 1.70), west)),
        ("cluster", 0.62, on_display(1, -0.42, 1.20)),
        ("heather", 0.56, on_display(1, 0.42, 1.30)),
        ("painting", 0.64, on_display(-1, -0.42, 1.22)),
        ("masonry", 0.60, on_display(-1, 0.42, 1.30)),
    )
    surfaces: list[Surface] = []
    for name, size, (centre, normal) in plan:
        if name == "painting":
            image = painting(rng, (640, 760), 110)
        else:
            image = canvas(rng, prints[name], max(1.0, 380 * size / prints[name].shape[1]))
        tone = rng.uniform(25, 170)
        surfaces += picture(
            centre,
            normal,
            image,
            width=size,
            frame=planks(rng, (80, 400), (tone, 0.8 * tone, 0.58 * tone), width=80, length=300),
            border=float(rng.uniform(0.03, 0.08)),
            thickness=float(rng.uniform(0.025, 0.06)),
            specular=0.03,
        )
    return surfaces


def faces(size: Size, paint: Callable[[tuple[int, int]], Image]) -> BoxTextures:
    """Return a box's textures, each painted at 300 texels per metre."""
    wide, deep, tall = (max(8, int(300 * extent)) for extent in size)
    sides, lids = [(tall, wide), (tall, deep)] * 2, [(deep, wide)] * 2
    return BoxTextures(*(paint(shape) for shape in sides + lids))


def furniture(rng: np.random.Generator, prints: dict[str, Image]) -> list[Surface]:
    """Return the display wall, plinths, a bench, a rug, the ceiling's beams, the lamps' shades."""

    def painted(shape: tuple[int, int]) -> Image:
        return painting(rng, shape, 70)

    def plastered(shape: tuple[int, int]) -> Image:
        return plaster(rng, shape, (206, 198, 182), 0.09)

    def wooden(shape: tuple[int, int]) -> Image:
        return planks(rng, shape, (150, 106, 66), width=24, length=300)

    def shade(shape: tuple[int, int]) -> Image:
        return plaster(rng, shape, (70, 66, 62), 0.1)

    turn = float(np.degrees(DISPLAY_TURN))
    display = (1.7, 0.14, 1.9)
    surfaces = list(box(DISPLAY_FOOT, display, faces(display, plastered), turn=turn))
    plinths: tuple[tuple[tuple[float, float], Size, float, str], ...] = (
        ((2.35, 3.75), (0.55, 0.55, 1.05), -18.0, "reeds"),
        ((5.75, 3.05), (0.60, 0.50, 0.80), 35.0, "hay"),
        ((6.60, 5.60), (0.50, 0.50, 1.25), 12.0, ""),
        ((0.65, 0.60), (0.50, 0.60, 0.70), -30.0, ""),
    )
    for (x, y), size, angle, name in plinths:
        textures = faces(size, painted)
        if name:
            textures = textures._replace(front=canvas(rng, prints[name], 1.4))
        surfaces += box((x, y, 0), size, textures, turn=angle)
    bench, beam, carpet = (1.5, 0.42, 0.44), (SIZE[0], 0.16, 0.20), (2.3, 1.7, 0.012)
    surfaces += box((3.3, 1.9, 0), bench, faces(bench, wooden), turn=-12)
    woven = faces(carpet, painted)._replace(top=rug(rng, (540, 720)))
    surfaces += box((4.9, 4.75, 0), carpet, woven, turn=8)
    for y in (1.55, 3.20, 4.90):
        surfaces += box(
            (SIZE[0] / 2, y, SIZE[2] - beam[2]), beam, faces(beam, wooden), reflectance=0.6
        )
    hood, cord = (0.34, 0.34, 0.10), (0.02, 0.02, SIZE[2] - LAMP_HEIGHT - 0.20)
    for x, y in LAMPS:
        surfaces += box((x, y, LAMP_HEIGHT + 0.10), hood, faces(hood, shade))
        surfaces += box((x, y, LAMP_HEIGHT + 0.20), cord, faces(cord, shade))
    return surfaces


def gallery(photographs: Mapping[str, Image]) -> Scene:
    """Return the scene.

    Args:
        photographs: uint8 (h, w, 3), by the names of skimage/data without their endings.
    """
    rng = np.random.default_rng(SEED)
    width, depth, _ = SIZE
    shell = RoomTextures(
        north=wall(rng, width, (214, 206, 190), panelled=False),
        east=wall(rng, depth, (190, 152, 128), panelled=True),
        south=wall(rng, width, (172, 186, 164), panelled=True),
        west=wall(rng, depth, (160, 174, 190), panelled=False),
        floor=planks(rng, (int(depth * 240), int(width * 240)), (172, 130, 88), width=30),
        ceiling=plaster(rng, (int(depth * 160), int(width * 160)), (226, 222, 212)),
    )
    prints = pieces(photographs)
    surfaces = [*room(SIZE, shell, specular=0.05)]
    surfaces += pictures(rng, prints) + furniture(rng, prints)
    white = np.array([1.35, 1.27, 1.13])
    lamps = tuple(Lamp(np.array([x, y, LAMP_HEIGHT]), white, 0.09) for x, y in LAMPS)
    return Scene(tuple(surfaces), lamps, ambient=(0.48, 0.48, 0.50))
