"""What the headers of image files say: size, EXIF orientation, camera, place. Nothing is decoded.

The formats are JPEG, PNG, TIFF, BMP and WebP, recognised by their contents. Pillow's plugins read
the headers; they are called directly because `PIL.Image.open` warns and raises by a limit that is
global to the process and belongs to the program that uses this package.
"""

from __future__ import annotations

import math
import os
import struct
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import PIL.Image
import pycolmap
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import IFD, Base
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import IFDRational, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sfm_match.io.gps import GpsPosition, gps_position

MAX_PIXELS = 500_000_000
"""Images above this number of pixels are refused before they are decoded."""

DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    EOFError,
    struct.error,
    PIL.Image.DecompressionBombError,
)
"""What Pillow raises over damaged files, by format and kind of damage."""

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DIAGONAL_35MM = 43.27
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}


class ImageError(ValueError):
    """An image file that cannot be used; the message names the file and says why."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The raster as the file holds it.

    Attributes:
        width: pixels per row, before any turning.
        height: rows, before any turning.
        orientation: EXIF orientation from 1 to 8; 1 where the file says nothing valid.
    """

    width: int
    height: int
    orientation: int


@dataclass(frozen=True, slots=True)
class CameraTags:
    """What EXIF says of the camera that took an image.

    Attributes:
        focal: focal length in pixels of the file's raster, or None.
        body: maker, model, lens and focal length, equal for images of one camera and zoom, or
            None where the file names no model.
        position: where it stood, by GPS, or None.
    """

    focal: float | None
    body: tuple[object, ...] | None
    position: GpsPosition | None = None


def check_file(path: Path) -> None:
    """Raise ImageError unless the path is an existing file that is not empty."""
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, not an image file")
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)  # noqa: PTH115  (pathlib would normalise it)
        raise ImageError(f"{path}: is a symbolic link to {target!r}, which leads to no file")
    if not path.exists():
        raise ImageError(f"{path}: no such file")
    if not path.is_file():
        raise ImageError(f"{path}: is not a regular file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes)")


def open_image(file: BinaryIO, path: Path) -> ImageFile:
    """Read an image's header from an open file; the path is for messages only.

    Raises:
        ImageError: not one of the formats, a damaged header, or more than MAX_PIXELS.
    """
    plugin = _plugin(file.read(12), path)
    file.seek(0)
    try:
        image = plugin(file)
    except DAMAGE as error:
        raise ImageError(f"{path}: the header cannot be read: {error}") from error
    width, height = raster_size(image)
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{path}: {width} x {height} pixels is more than the {MAX_PIXELS // 10**6} megapixels "
            "that are supported; cut or reduce it first"
        )
    return image


def _plugin(start: bytes, path: Path) -> type[ImageFile]:
    if start[:3] == b"\xff\xd8\xff":
        return JpegImageFile
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        return PngImageFile
    if start[:4] in _TIFF_STARTS:
        return TiffImageFile
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return WebPImageFile
    if start[:2] == b"BM":
        return BmpImageFile
    if start[:2] in (b"P5", b"P6"):
        return PpmImageFile
    raise ImageError(
        f"{path}: is not a JPEG, PNG, TIFF, BMP, PPM or WebP file (it starts with {start[:8]!r})"
    )


def raster_size(image: ImageFile) -> tuple[int, int]:
    """Return the width and height of the raster as the file holds it."""
    if isinstance(image, TiffImageFile):  # its `size` is already that of the upright picture
        return int(image.tag_v2[Base.ImageWidth]), int(image.tag_v2[Base.ImageLength])
    return image.size


def orientation_of(image: ImageFile) -> int:
    """Return the EXIF orientation from 1 to 8, 1 where there is none or an invalid one."""
    value = exif_tags(image).get(Base.Orientation, 1)
    return int(value) if value in range(1, 9) else 1


def exif_tags(image: ImageFile) -> dict[int, Any]:
    """Return the tags of the main and of the EXIF directory of an image that is open."""
    tags: dict[int, Any] = {}
    # A picture is as good without its metadata: damaged EXIF counts as far as it can be read.
    with suppress(*DAMAGE):
        exif = _exif(image)
        tags.update(exif)
        tags.update(exif.get_ifd(IFD.Exif))
    return tags


def gps_tags(image: ImageFile) -> dict[int, Any]:
    """Return the tags of the GPS directory of an image that is open."""
    with suppress(*DAMAGE):
        return dict(_exif(image).get_ifd(IFD.GPSInfo))
    return {}


def _exif(image: ImageFile) -> PIL.Image.Exif:
    if isinstance(image, PngImageFile) and "exif" not in image.info and image.fp is not None:
        late = _png_exif(image.fp)
        if late is not None:
            image.info["exif"] = late
    # The base class's method: PngImageFile's own decodes all pixels to look behind them.
    return PIL.Image.Image.getexif(image)


def _png_exif(file: Any) -> bytes | None:
    """Return a PNG file's eXIf chunk from anywhere in the file; the file's position is kept."""
    position = file.tell()
    file.seek(8)
    found: bytes | None = None
    while found is None and len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"eXIf":
            found = file.read(length)
        file.seek(length + 4, 1)
    file.seek(position)
    return found


def read_header(path: Path) -> ImageHeader:
    """Read the size and the orientation of an image file without decoding it.

    Raises:
        ImageError: the file is missing, empty, not an image, damaged, or above MAX_PIXELS.
    """
    check_file(path)
    with path.open("rb") as file:
        image = open_image(file, path)
        width, height = raster_size(image)
        return ImageHeader(width=width, height=height, orientation=orientation_of(image))


def camera_tags(path: Path) -> CameraTags:
    """Return what EXIF says of the camera.

    The rules for the focal length, their order and the results are those of
    `pycolmap.infer_camera_from_image`, which decodes all pixels to apply them, and to JPEG and
    TIFF only:

    1. the focal length in 35 mm film, relative to the diagonal of 43.27 mm;
    2. the focal length and the resolution of the focal plane;
    3. the focal length and the width of the sensor from COLMAP's list of cameras.

    Raises:
        ImageError: as `read_header`.
    """
    check_file(path)
    with path.open("rb") as file:
        image = open_image(file, path)
        size = raster_size(image)
        tags = exif_tags(image)
        position = gps_position(gps_tags(image))
    make, model = (str(tags.get(tag, "")).strip(" \0") for tag in (Base.Make, Base.Model))
    lens = _positive(tags.get(Base.FocalLength)), _positive(tags.get(Base.FocalLengthIn35mmFilm))
    body = (make, model, str(tags.get(Base.LensModel, "")), *lens) if model else None
    return CameraTags(focal=_focal_length(tags, size), body=body, position=position)


def _focal_length(tags: dict[int, Any], size: tuple[int, int]) -> float | None:
    film = _positive(tags.get(Base.FocalLengthIn35mmFilm))
    if film is not None:
        return film * math.hypot(*size) / _DIAGONAL_35MM
    focal = _positive(tags.get(Base.FocalLength))
    if focal is None:
        return None
    resolution = _positive(tags.get(Base.FocalPlaneXResolution))
    unit = tags.get(Base.FocalPlaneResolutionUnit)
    if resolution is not None and unit in _MM_PER_UNIT:
        return focal * resolution / _MM_PER_UNIT[unit]
    sensor = _sensor_width(str(tags.get(Base.Make, "")), str(tags.get(Base.Model, "")))
    return None if sensor is None else focal / sensor * max(size)


def _positive(value: object) -> float | None:
    """Return an EXIF number as a float if it is positive and finite."""
    if not isinstance(value, int | float | IFDRational):
        return None
    number = float(value)
    return number if math.isfinite(number) and number > 0 else None


@lru_cache(maxsize=256)
def _sensor_width(make: str, model: str) -> float | None:
    """Return the sensor width in mm of a camera in COLMAP's list.

    pycolmap has no call for it, but it infers a camera from a file: one row of pixels, said to be
    taken by that camera with a focal length of 1 mm, gives the width for all its images.
    """
    if not make or not model:
        return None
    exif = PIL.Image.Exif()
    exif[Base.Make], exif[Base.Model] = make, model
    exif.get_ifd(IFD.Exif)[Base.FocalLength] = IFDRational(1)
    pixels = 1000
    with tempfile.TemporaryDirectory() as folder:
        row = Path(folder) / "row.jpg"
        PIL.Image.new("L", (pixels, 1)).save(row, exif=exif)
        camera = pycolmap.infer_camera_from_image(row)
    return pixels / float(camera.params[0]) if camera.has_prior_focal_length else None
