"""Whether the files of a binary COLMAP model hold all that they say.

pycolmap reads on behind the end of a file, for ever and into all memory where what it finds there
is a large number, and does not say when the disk was too full for a file. The layouts are those of
COLMAP's documentation of its output format; numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pycolmap

_COUNT = struct.Struct("<Q")
_POSE = 7 * 8
_SENSOR = 4 + 4


class _EndOfFileError(Exception):
    """A part of a file lies behind its end."""


def incomplete_file(folder: Path) -> Path | None:
    """Return the first file of a binary model that ends before its content does, or None.

    Rigs and frames count where they are there: models from before COLMAP 3.12 have none.
    """
    for name, skip in _PARTS.items():
        path = folder / f"{name}.bin"
        if path.is_file() and not _is_whole(path.read_bytes(), skip):
            return path
    return None


def _is_whole(data: bytes, skip: Callable[[bytes, int], int]) -> bool:
    position = _COUNT.size
    try:
        for _ in range(_number(data, 0, "<Q")):
            position = skip(data, position)
            if position > len(data):
                return False
    except _EndOfFileError:
        return False
    return True


def _number(data: bytes, position: int, layout: str) -> int:
    if position + struct.calcsize(layout) > len(data):
        raise _EndOfFileError
    number: int = struct.unpack_from(layout, data, position)[0]
    return number


@cache
def _num_params(model_id: int) -> int:
    try:
        model = pycolmap.CameraModelId(model_id)
        return len(pycolmap.Camera.create_from_model_id(1, model, 1.0, 1, 1).params)
    except ValueError:  # there is no such model, so the file is not what it seems
        raise _EndOfFileError from None


def _after_camera(data: bytes, start: int) -> int:
    """Id, model, width, height, parameters."""
    return start + 4 + 4 + 8 + 8 + 8 * _num_params(_number(data, start + 4, "<i"))


def _after_image(data: bytes, start: int) -> int:
    """Id, pose, camera, name with a zero behind it; each point is x, y and a 3D point's id."""
    end_of_name = data.find(0, start + 4 + _POSE + 4)
    if end_of_name < 0:
        raise _EndOfFileError
    return end_of_name + 1 + 8 + 24 * _number(data, end_of_name + 1, "<Q")


def _after_point(data: bytes, start: int) -> int:
    """Id, position, colour, error; each element of the track is an image's id and a point's row."""
    length = start + 8 + 24 + 3 + 8
    return length + 8 + 8 * _number(data, length, "<Q")


def _after_rig(data: bytes, start: int) -> int:
    """Id; the reference sensor; each other sensor has a pose if the byte behind it is set."""
    num_sensors = _number(data, start + 4, "<I")
    position = start + 8 + _SENSOR * min(num_sensors, 1)
    for _ in range(num_sensors - 1):
        position += _SENSOR + 1 + _POSE * bool(_number(data, position + _SENSOR, "<B"))
    return position


def _after_frame(data: bytes, start: int) -> int:
    """Id, rig, pose; each part is a sensor and an image's id."""
    num_parts = start + 4 + 4 + _POSE
    return num_parts + 4 + (_SENSOR + 8) * _number(data, num_parts, "<I")


_PARTS: Mapping[str, Callable[[bytes, int], int]] = {
    "cameras": _after_camera,
    "images": _after_image,
    "points3D": _after_point,
    "rigs": _after_rig,
    "frames": _after_frame,
}
