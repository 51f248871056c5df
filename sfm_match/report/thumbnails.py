"""Pictures small enough for a page that holds all of them."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sfm_match.geometry.raster import shrink, upright
from sfm_match.io.images import ImageError
from sfm_match.io.reduced import encode_jpeg, read_reduced

LONG_SIDES = (960, 800, 640, 480, 400, 320, 256, 200, 160, 128, 112, 96, 80, 64)
_QUALITIES = (80, 70, 60, 50)
# What JPEG takes at the quality of 70 and 400 pixels: 0.13 to 0.21 bytes for each pixel, seen on
# rendered rooms, a fountain and a cathedral.
_BYTES_PER_PIXEL = 0.2
_ASPECT = 0.7


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, turned upright.

    Attributes:
        jpeg: the file.
        size: its width and height in pixels.
        full_size: width and height of the image file's raster, not turned.
        orientation: the EXIF orientation of the image file, by which the picture was turned.
    """

    jpeg: bytes
    size: tuple[int, int]
    full_size: tuple[int, int]
    orientation: int


def make_thumbnail(path: Path, max_bytes: int, long_side: int = LONG_SIDES[0]) -> Thumbnail:
    """Return the largest picture of an image file that takes at most so many bytes.

    The smallest of the sizes at the lowest of the qualities is returned even where it takes more.

    Raises:
        ImageError: the file cannot be decoded.
    """
    estimated = (max_bytes / _BYTES_PER_PIXEL / _ASPECT) ** 0.5
    sides = [side for side in LONG_SIDES if side <= min(long_side, 1.5 * estimated)]
    sides = sides or [LONG_SIDES[-1]]
    loaded = read_reduced(path, sides[0])
    pixels = upright(loaded.pixels, loaded.header.orientation)
    for side in sides:
        pixels = shrink(pixels, side)
        for quality in _QUALITIES:
            jpeg = encode_jpeg(pixels, quality)
            if len(jpeg) <= max_bytes:
                break
        if len(jpeg) <= max_bytes:
            break
    height, width = pixels.shape[:2]
    header = loaded.header
    return Thumbnail(jpeg, (width, height), (header.width, header.height), header.orientation)


def make_thumbnails(
    paths: Mapping[str, Path], max_bytes: int, long_side: int, threads: int
) -> dict[str, Thumbnail]:
    """Return the pictures of many image files, by name; those that cannot be decoded are left out.

    Args:
        paths: the files by name.
        max_bytes: of all pictures together; each may take an equal share.
        long_side: the longest side that a picture may have, one of `LONG_SIDES`.
        threads: how many to decode at once.
    """

    def make(path: Path) -> Thumbnail | None:
        try:
            return make_thumbnail(path, max_bytes // max(len(paths), 1), long_side)
        except ImageError:  # the run has reported it
            return None

    with ThreadPoolExecutor(threads) as pool:
        made = list(pool.map(make, paths.values()))
    return {name: one for name, one in zip(paths, made, strict=True) if one is not None}
