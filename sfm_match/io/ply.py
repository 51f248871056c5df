"""Points of PLY files (Turk, "The PLY Polygon File Format", 1994), as laser scanners' programs
write them: ASCII, or binary of either byte order.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64

_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER_LINES = 1000


def read_ply_points(path: Path) -> ArrayF64:
    """Return the vertices of a file, float64 (N, 3): x, y, z in the file's unit.

    The vertices must be the first element and have no lists; all else in the file is left unread.

    Raises:
        ConfigError: it is not such a file, or is cut off.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        order, num, fields = _read_header(file, path)
        if order == "ascii":
            return _read_ascii(file, num, [name for name, _ in fields], path)
        row = np.dtype([(name, _ORDERS[order] + kind) for name, kind in fields])
        data = file.read(num * row.itemsize)
    if len(data) < num * row.itemsize:
        raise ConfigError(f"{path}: is cut off: {len(data) // row.itemsize} of {num} vertices")
    rows: npt.NDArray[np.void] = np.frombuffer(data, row)
    return np.stack([rows[axis] for axis in "xyz"], axis=1).astype(np.float64)


def _read_header(file: BinaryIO, path: Path) -> tuple[str, int, list[tuple[str, str]]]:
    """Return the format, the number of vertices and their fields with numpy's types."""
    if file.readline(16).strip() != b"ply":
        raise ConfigError(f"{path}: is not a PLY file")
    order, num, fields, element = "", -1, [], ""
    for _ in range(_MAX_HEADER_LINES):
        line = file.readline(4096)
        words = line.decode("ascii", errors="replace").split()
        if words == ["end_header"]:
            break
        if not line:
            raise ConfigError(f"{path}: the header has no end")
        if words[:1] == ["format"] and len(words) == 3:
            order = words[1]
        elif words[:1] == ["element"] and len(words) == 3:
            if num < 0 and words[1] != "vertex":
                raise ConfigError(f"{path}: its first element is {words[1]!r}, not the vertices")
            element, num = words[1], int(words[2]) if num < 0 else num
        elif words[:1] == ["property"] and element == "vertex":
            if len(words) != 3 or words[1] not in _TYPES:
                raise ConfigError(f"{path}: a vertex has the property {' '.join(words[1:])!r}")
            fields.append((words[2], _TYPES[words[1]]))
    else:
        raise ConfigError(f"{path}: the header has no end")
    if order not in _ORDERS:
        raise ConfigError(f"{path}: its format is {order!r}, not one of {', '.join(_ORDERS)}")
    if num < 0 or not {"x", "y", "z"} <= {name for name, _ in fields}:
        raise ConfigError(f"{path}: has no vertices with x, y and z")
    return order, num, fields


def _read_ascii(file: BinaryIO, num: int, names: list[str], path: Path) -> ArrayF64:
    columns = [names.index(axis) for axis in "xyz"]
    lines = [file.readline() for _ in range(num)]
    try:
        rows = [[float(line.split()[c]) for c in columns] for line in lines]
    except (ValueError, IndexError):
        raise ConfigError(f"{path}: is cut off or has a line that is no vertex") from None
    return np.array(rows, np.float64).reshape(-1, 3)


def write_ply_points(path: Path, points: ArrayF64) -> None:
    """Write points (N, 3) as a binary file of doubles."""
    fields = "".join(f"property double {axis}\n" for axis in "xyz")
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{fields}"
    path.write_bytes(f"{header}end_header\n".encode() + np.asarray(points, "<f8").tobytes())
