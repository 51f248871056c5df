"""Annotated keypoints: Willow's MATLAB files, and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF32

_WILLOW_NAME = "pts_coord"
# MATLAB has the centre of the first pixel at (1, 1).
_FROM_MATLAB = -0.5


def read_points(path: Path) -> ArrayF32:
    """Read the annotated keypoints of one image.

    - `.mat`, as the Willow Object Class data set (Cho, Alahari, Ponce: "Learning Graphs to Match",
      ICCV 2013): `pts_coord` is 2 x N, x then y, in MATLAB's pixels.
    - Anything else is text: a line is x and y, with a space or comma between; the origin is at the
      image's top-left corner. Blank lines and lines that begin with ``#`` are left out.

    Returns:
        float32 (N, 2), in pixels with the origin at the corner.

    Raises:
        ConfigError: the file cannot be read, or holds no points; the message says where.
    """
    points = _read_mat(path) if path.suffix.lower() == ".mat" else _read_text(path)
    if len(points) == 0:
        raise ConfigError(f"{path}: holds no points")
    if not np.isfinite(points).all():
        raise ConfigError(f"{path}: not all coordinates are finite")
    return points.astype(np.float32)


def _read_mat(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    if not path.is_file():
        raise ConfigError(f"{path}: cannot be read: No such file")
    try:
        content = scipy.io.loadmat(str(path), variable_names=[_WILLOW_NAME])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: not a MATLAB file that can be read (save it with -v7): {error}"
        ) from None
    found = content.get(_WILLOW_NAME)
    if found is None or found.ndim != 2 or found.shape[0] != 2 or found.dtype.kind not in "fiu":
        got = "no such array" if found is None else f"{found.dtype} {found.shape}"
        raise ConfigError(f"{path}: {_WILLOW_NAME} must be numbers (2, N), x then y; got {got}")
    return np.asarray(found.T, np.float64) + _FROM_MATLAB


def _read_text(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: points are a .mat file or text in UTF-8") from None
    points = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            x, y = (float(word) for word in words)
        except ValueError:
            raise ConfigError(
                f"{path}, line {number}: must be x and y in pixels, got {line[:80]!r}"
            ) from None
        points.append((x, y))
    return np.array(points, np.float64).reshape(-1, 2)
