"""Decoding image files, by OpenCV and Pillow, each where it is right.

- 8-bit grey and colour JPEG: OpenCV, several times faster than Pillow, after a look whether the
  file is complete, because OpenCV returns half a picture for half a file.
- 16-bit PNG and 16-bit colour TIFF: OpenCV, because Pillow keeps only the upper 8 bits.
- TIFF above `PIL.Image.MAX_IMAGE_PIXELS`: OpenCV, because Pillow would warn or refuse by a limit
  that is global to the process.
- All else: Pillow, because OpenCV ignores the alpha of grey TIFF, and writes to stderr about
  damage and about every tag that it does not know.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL.ExifTags import Base
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from sfm_match.io.exif import (
    DAMAGE,
    ImageError,
    ImageHeader,
    check_file,
    open_image,
    orientation_of,
    raster_size,
)

Pixels = npt.NDArray[Any]

# Markers that begin a segment or end the file; not stuffed zeros, fill bytes and restarts.
_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
_EXTRA_SAMPLES = 338
_STRIP_PIXELS = 1 << 22


def decode(path: Path, grey: bool) -> tuple[Pixels, ImageHeader]:
    """Return the raster as the file holds it, not turned, and the file's header.

    The pixels are uint8, uint16, int32 or float32, (H, W) grey or (H, W, 3) RGB, with transparent
    pixels blended over black. `grey` permits a grey result where that is cheaper.

    Raises:
        ImageError: the file is missing, empty, not an image, damaged, truncated, too large, or
            holds pixels of an unsupported kind.
    """
    check_file(path)
    data = path.read_bytes()
    image = open_image(io.BytesIO(data), path)
    width, height = raster_size(image)
    header = ImageHeader(width=width, height=height, orientation=orientation_of(image))
    if isinstance(image, TiffImageFile) and header.orientation != 1:
        # Neither decoder can be told to leave a TIFF as it is.
        try:
            data = _without_orientation(data)
        except struct.error as error:
            raise ImageError(f"{path}: the TIFF directory is damaged: {error}") from error
        image = open_image(io.BytesIO(data), path)
    if isinstance(image, TiffImageFile) and _tiff_bits(image) == 16 and _is_negative(image):
        raise ImageError(f"{path}: 16-bit TIFF with white as zero is not supported; invert it")
    try:
        pixels = _decode(image, data, grey, path)
    except MemoryError:
        raise ImageError(f"{path}: {width} x {height} pixels do not fit into memory") from None
    if pixels.shape[:2] != (height, width):
        raise ImageError(
            f"{path}: holds {pixels.shape[1]} x {pixels.shape[0]} pixels, "
            f"but its header says {width} x {height}"
        )
    return pixels, header


def _decode(image: ImageFile, data: bytes, grey: bool, path: Path) -> Pixels:
    if isinstance(image, JpegImageFile) and image.mode in ("L", "RGB"):
        return _decode_jpeg(data, grey, path)
    if _is_for_opencv(image, data):
        return _decode_opencv(image, data, path)
    return _decode_pillow(image, path)


def _decode_jpeg(data: bytes, grey: bool, path: Path) -> Pixels:
    if not _is_complete_jpeg(data):
        raise ImageError(f"{path}: the JPEG file is truncated")
    return _opencv(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB, path)


def _is_complete_jpeg(data: bytes) -> bool:
    """Follow the segments from marker to marker; whether the end of the image is there."""
    position = 2
    while marker := _JPEG_MARKER.search(data, position):
        if data[marker.start() + 1] == 0xD9:
            return True
        position = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return False


def _is_for_opencv(image: ImageFile, data: bytes) -> bool:
    if isinstance(image, PngImageFile):
        return data[24] == 16  # the bit depth, in IHDR
    if not isinstance(image, TiffImageFile):
        return False
    limit = PIL.Image.MAX_IMAGE_PIXELS
    is_large = limit is not None and image.width * image.height > limit
    return (is_large and image.mode != "LA") or (
        _tiff_bits(image) == 16 and image.mode in ("RGB", "RGBA")
    )


def _tiff_bits(image: TiffImageFile) -> int:
    return int(max(image.tag_v2.get(Base.BitsPerSample, (1,))))


def _is_negative(image: TiffImageFile) -> bool:
    return bool(image.tag_v2.get(Base.PhotometricInterpretation) == 0)


def _without_orientation(data: bytes) -> bytes:
    """Return a TIFF file with the orientation in its first directory set to 1 (TIFF 6.0, §2)."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in data[2:4]
    offset, count, entry, value = ("Q", "Q", 20, 12) if is_big else ("I", "H", 12, 8)
    (directory,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
    (num_entries,) = struct.unpack_from(order + count, data, directory)
    first = directory + struct.calcsize(order + count)
    patched = bytearray(data)
    for position in range(first, first + num_entries * entry, entry):
        if struct.unpack_from(order + "H", data, position)[0] == Base.Orientation:
            struct.pack_into(order + "H", patched, position + value, 1)
    return bytes(patched)


def _decode_opencv(image: ImageFile, data: bytes, path: Path) -> Pixels:
    if isinstance(image, PngImageFile) and b"IEND" not in data:
        raise ImageError(f"{path}: the PNG file is truncated")
    if isinstance(image, TiffImageFile) and _tiff_bits(image) <= 8:
        return _opencv(data, cv2.IMREAD_COLOR_RGB, path)  # alpha is multiplied in by libtiff
    pixels = _opencv(data, cv2.IMREAD_UNCHANGED, path)
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    rgba = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA))
    # TIFF's fourth sample: 2 is alpha, 1 is alpha already multiplied in, 0 is anything.
    is_alpha = (
        not isinstance(image, TiffImageFile) or image.tag_v2.get(_EXTRA_SAMPLES, (0,))[0] == 2
    )
    return _over_black(rgba) if is_alpha else rgba[..., :3]


def _opencv(data: bytes, flags: int, path: Path) -> Pixels:
    buffer = np.frombuffer(data, np.uint8)
    decoded: Pixels | None = None
    try:
        decoded = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise MemoryError from error
        # All else is the same as None: OpenCV reports some damage so, some so.
    if decoded is None:
        raise ImageError(f"{path}: cannot be decoded: damaged, or of an unsupported kind")
    return decoded


def _decode_pillow(image: ImageFile, path: Path) -> Pixels:
    # Pillow turns TIFF while it loads, if not by EXIF then by XMP.
    if isinstance(image, TiffImageFile):
        image.getexif()[Base.Orientation] = 1
    try:
        if image.mode == "F":
            return np.asarray(image, np.float32)
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)
        if image.mode == "I":
            pixels = np.asarray(image, np.int32)
            return pixels.astype(np.uint16) if isinstance(image, PpmImageFile) else pixels
        if image.has_transparency_data:
            return _in_strips(image, "RGBA", _over_black)
        return _in_strips(image, "L" if image.mode in ("1", "L") else "RGB", np.asarray)
    except DAMAGE as error:
        raise ImageError(f"{path}: cannot be decoded: {error}") from error


def _in_strips(
    image: ImageFile, mode: str, finish: Callable[[Pixels], Pixels]
) -> npt.NDArray[np.uint8]:
    """Return the pixels in a mode, strip by strip: Pillow holds the whole of them once already."""
    width, height = image.size
    channels = () if mode == "L" else (3,)
    pixels = np.empty((height, width, *channels), np.uint8)
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        strip = image.crop((0, top, width, min(top + step, height)))
        pixels[top : top + step] = finish(np.asarray(strip.convert(mode)))
    return pixels


def _over_black(rgba: Pixels) -> Pixels:
    """Blend (H, W, 4), of which the last is alpha, over black."""
    opaque = np.iinfo(rgba.dtype).max
    colour, alpha = np.ascontiguousarray(rgba[..., :3]), rgba[..., 3]
    if alpha.min() == opaque:
        return colour
    return np.asarray(cv2.multiply(colour, cv2.merge([alpha] * 3), scale=1 / opaque))


def to_uint8(pixels: Pixels, path: Path) -> npt.NDArray[np.uint8]:
    """Scale decoded pixels to 8 bits by the rules of `images.read_image`.

    Raises:
        ImageError: floating point outside of [0, 1], or 32-bit integers.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        largest = 2 ** max(8, int(pixels.max()).bit_length()) - 1
    elif pixels.dtype == np.float32:
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):  # so written, it is true of NaN
            raise ImageError(
                f"{path}: has values from {low:g} to {high:g}; floats must be in [0, 1]"
            )
        largest = 1
    else:
        raise ImageError(
            f"{path}: has {pixels.dtype} pixels; use 8 or 16 bits, or floats in [0, 1]"
        )
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255 / largest), np.uint8)
