"""Small pictures of large image files, for looking at them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from sfm_match.io.exif import check_file, read_header
from sfm_match.io.images import LoadedImage, read_image
from sfm_match.types import Image

_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4}
_JPEG = (".jpg", ".jpeg")


def read_reduced(path: Path, long_side: int) -> LoadedImage:
    """Decode an image file to at least `long_side` pixels on its longer side, where it has them.

    As `read_image`, in colour; but a large JPEG is reduced as it is decoded, which is several
    times faster. Of a JPEG that is cut off the missing part is grey.

    Raises:
        ImageError: as `read_image`.
    """
    check_file(path)
    header = read_header(path)
    longest = max(header.width, header.height)
    factor = next((f for f in _REDUCED if longest >= f * long_side), 1)
    if path.suffix.lower() in _JPEG and factor > 1:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        pixels = cv2.imdecode(data, _REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is not None:
            return LoadedImage(np.asarray(pixels[..., ::-1], np.uint8), header)
    return read_image(path)


def encode_jpeg(pixels: Image, quality: int) -> bytes:
    """Return the JPEG file of a picture, uint8 (H, W, 3) RGB."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), settings)
    return data.tobytes()
