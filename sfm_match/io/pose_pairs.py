"""Lists of image pairs with their true cameras and relative pose, in SuperGlue's format.

A line has 38 values: two image names; two rotations, from 0 to 3; K of the first and of the second
image, 9 values each; and T, 16 values, which takes points of the first camera to the second. All
matrices are row by row. K and T are of the image as its file holds it; a rotation r says that the
picture is upright once turned counter-clockwise by r quarter turns, and serves extraction only.
K has the centre of the first pixel at (0, 0), as is usual in such lists (ScanNet's).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfm_match.io.pairs import divide_names, read_lines
from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64

_NUM_VALUES = 38
_FORM = "name0 name1 rotation0 rotation1 K0 (9 values) K1 (9) T_0to1 (16)"
# How far the singular values of a rotation may be from 1: lists have few digits.
_MAX_SKEW = 1e-2


@dataclass(frozen=True, eq=False, slots=True)
class PosePair:
    """A line of a list.

    Attributes:
        names: the two images.
        turns: of each image, the quarter turns counter-clockwise that turn it upright, 0 to 3.
        calibrations: of each image, float64 (3, 3) in pixels with the origin at the corner of the
            image: half a pixel more than in the file.
        cam1_from_cam0: float64 (3, 4); the rotation is exactly one.
        where: the file and the line, for messages.
    """

    names: tuple[str, str]
    turns: tuple[int, int]
    calibrations: tuple[ArrayF64, ArrayF64]
    cam1_from_cam0: ArrayF64
    where: str


def read_pose_pairs(path: Path, names: Collection[str]) -> list[PosePair]:
    """Read a list of pairs with poses. Blank lines and lines that begin with ``#`` are left out.

    A pair that is listed twice counts twice, as in the lists of MegaDepth. Names with spaces need
    no quotes where only one way to divide them gives two known names.

    Args:
        path: the file, in UTF-8.
        names: the images that there are, which help to divide names with spaces; others may occur.

    Raises:
        ConfigError: the file cannot be read, it is empty, or a line is not of the form; the message
            says which line and what is wrong.
    """
    known = frozenset(names)
    found = [_pair(line, known, f"{path}, line {number}") for number, line in read_lines(path)]
    if not found:
        raise ConfigError(f"{path}: holds no pair; a line is {_FORM}")
    return found


def _pair(line: str, known: Collection[str], where: str) -> PosePair:
    num_values = len(line.split())
    if num_values < _NUM_VALUES:
        hint = "; pairs without cameras and poses are no truth" if num_values in (2, 4) else ""
        raise ConfigError(f"{where}: expected {_FORM}, got {num_values} values{hint}")
    head, *tail = line.rsplit(maxsplit=_NUM_VALUES - 2)
    names = divide_names(head, known)
    if isinstance(names, str):
        raise ConfigError(f"{where}: {head[:200]!r}: {names}")
    if names[0] == names[1]:
        raise ConfigError(f"{where}: {names[0]!r} is paired with itself")
    values = _numbers(tail[2:], where)
    return PosePair(
        names=names,
        turns=(_turn(tail[0], where), _turn(tail[1], where)),
        calibrations=(
            _calibration(values[:9], f"{where}: K0"),
            _calibration(values[9:18], f"{where}: K1"),
        ),
        cam1_from_cam0=_pose(values[18:], f"{where}: T_0to1"),
        where=where,
    )


def _turn(word: str, where: str) -> int:
    if word not in {"0", "1", "2", "3"}:
        raise ConfigError(f"{where}: a rotation is 0, 1, 2 or 3 quarter turns, got {word!r}")
    return int(word)


def _numbers(words: Sequence[str], where: str) -> ArrayF64:
    try:
        values = np.array([float(word) for word in words])
    except ValueError as error:
        raise ConfigError(f"{where}: expected {_FORM}: {error}") from None
    if not np.isfinite(values).all():
        raise ConfigError(f"{where}: not all numbers are finite")
    return values


def _calibration(values: ArrayF64, where: str) -> ArrayF64:
    K = values.reshape(3, 3)
    if K[0, 0] <= 0 or K[1, 1] <= 0 or K[1, 0] != 0 or (K[2] != (0, 0, 1)).any():
        raise ConfigError(
            f"{where}: must be fx 0 cx 0 fy cy 0 0 1 with positive fx and fy, got "
            f"{' '.join(f'{value:g}' for value in values)}"
        )
    if K[0, 1] != 0:
        raise ConfigError(f"{where}: has a skew of {K[0, 1]:g}, which no camera model here has")
    corner_from_centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return np.asarray(corner_from_centre @ K)


def _pose(values: ArrayF64, where: str) -> ArrayF64:
    T = values.reshape(4, 4)
    if (T[3] != (0, 0, 0, 1)).any():
        raise ConfigError(f"{where}: its last row must be 0 0 0 1")
    u, singular, vt = np.linalg.svd(T[:3, :3])
    if np.abs(singular - 1).max() > _MAX_SKEW or np.linalg.det(u) * np.linalg.det(vt) < 0:
        raise ConfigError(f"{where}: its upper left part is not a rotation")
    return np.column_stack([u @ vt, T[:3, 3]])
