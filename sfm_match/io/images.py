"""Image files: which there are, their pixels, their masks.

Every function is safe to call from several threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

import cv2
import numpy as np

from sfm_match.io.decode import decode, to_uint8
from sfm_match.io.exif import ImageError, ImageHeader, read_header
from sfm_match.types import ArrayBool, Image

__all__ = [
    "SUFFIXES",
    "ImageError",
    "ImageHeader",
    "LoadedImage",
    "find_mask",
    "list_images",
    "list_others",
    "read_header",
    "read_image",
    "read_mask",
]

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".webp")
"""The suffixes of image files, in any letter case."""


@dataclass(frozen=True, eq=False, slots=True)
class LoadedImage:
    """A decoded image.

    Attributes:
        pixels: the raster of the file, not turned, uint8 (H, W, 3) RGB or (H, W) grey.
        header: its size and EXIF orientation, with which `geometry.raster.upright` turns the
            picture and `geometry.raster.to_file_raster` maps features back.
    """

    pixels: Image
    header: ImageHeader


def list_images(root: Path) -> list[str]:
    """Return the names of all images below a folder, sorted, relative to it, with `/` between.

    Files and folders whose names begin with a dot are left out. Symbolic links are followed, and
    no folder is listed twice.

    Raises:
        ImageError: no such folder, a folder that cannot be listed, no image in it, or a name
            that is not valid Unicode.
    """
    if not root.is_dir():
        raise ImageError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    names = [name for name in _list_files(root) if _is_image(name)]
    if not names:
        raise ImageError(f"{root}: holds no image (looked for {', '.join(SUFFIXES)})")
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise ImageError(f"{root}: rename {name!r}, it is not valid Unicode") from error
    return sorted(names)


def list_others(root: Path) -> list[str]:
    """Return the names of the files below a folder that are no images by their suffix, sorted.

    Raises:
        ImageError: a folder that cannot be listed.
    """
    return sorted(name for name in _list_files(root) if not _is_image(name))


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _list_files(root: Path) -> Iterator[str]:
    def fail(error: OSError) -> NoReturn:
        raise ImageError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    def is_new(folder: Path) -> bool:
        status = folder.stat()
        key = (status.st_dev, status.st_ino)
        known = key in visited
        visited.add(key)
        return not known

    visited: set[tuple[int, int]] = set()
    is_new(root)
    for folder, subfolders, files in os.walk(root, onerror=fail, followlinks=True):
        here = Path(folder)
        subfolders[:] = [s for s in sorted(subfolders) if s[0] != "." and is_new(here / s)]
        yield from ((here / file).relative_to(root).as_posix() for file in files if file[0] != ".")


def read_image(path: Path, grey: bool = False) -> LoadedImage:
    """Decode an image file as it lies there, not turned; of several pages or frames, the first.

    - 16-bit values are divided by 2**b - 1 and multiplied by 255, where b is the number of bits of
      the largest value in the image, at least 8. Files do not say that they hold 10, 12 or 14-bit
      data; so those fill the 8 bits too, full-range data is divided by 257, and the gain depends
      on the contents by powers of two only. Data that fill a small part of their range, as
      thermal images do, should be stretched before.
    - Floating point must lie in [0, 1].
    - Transparent pixels are blended over black: what hides under them is arbitrary.
    - With `grey`, colour is weighted by Rec. 601. JPEG gives its luma directly, which is faster
      and the same up to rounding, but for colours outside of RGB's range.

    Raises:
        ImageError: the file is missing, empty, not an image, damaged, truncated, above
            `MAX_PIXELS`, or holds pixels of an unsupported kind.
    """
    pixels, header = decode(path, grey)
    image = to_uint8(pixels, path)
    if grey and image.ndim == 3:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    elif not grey and image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    return LoadedImage(pixels=np.require(image, requirements=["C", "W"]), header=header)


def read_mask(path: Path) -> ArrayBool:
    """Read a mask: bool (H, W) in the file's raster, False where the pixel is black (all zeros).

    As COLMAP does, the EXIF orientation is ignored: a mask has the raster of its image. Save masks
    without loss; JPEG leaves pixels beside an edge that are nearly but not quite black.

    Raises:
        ImageError: as `read_image`.
    """
    pixels, _ = decode(path, grey=False)
    return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0, np.bool_)


def find_mask(masks: Path, name: str, image: Path | None = None) -> Path | None:
    """Return the file of an image's mask, or None where the image has none.

    Args:
        masks: one file, the mask of all images; or a folder that has, for the image `a/b/c.jpg`,
            COLMAP's `a/b/c.jpg.png`, or else `a/b/c.png`, or else the mask of all images in its
            folder, `a/b.png` or `a.png`: one for each camera where cameras have folders.
        name: the image's name.
        image: its file, which is not its mask where the folders are the same.

    Raises:
        ImageError: `masks` does not exist.
    """
    if masks.is_file():
        return masks
    if not masks.is_dir():
        raise ImageError(f"{masks}: no such mask file or folder of masks")
    plain = PurePosixPath(name)
    folders = (f"{folder}.png" for folder in plain.parents if folder.name)
    candidates = (f"{name}.png", str(plain.with_suffix(".png")), *folders)
    paths = (masks / candidate for candidate in candidates)
    return next((path for path in paths if path.is_file() and path != image), None)
