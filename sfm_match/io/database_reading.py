"""Reading a COLMAP database row by row, whoever made it, and without changing it.

Damaged rows are told and passed over, so that one of them hides nothing else.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.io.database_access import (
    Connection,
    ContentError,
    DatabaseError,
    array_of,
    check_schema,
    ids_of_pair,
    reason_of,
    values_of,
)
from sfm_match.io.database_images import ImageRow, camera_of_row
from sfm_match.io.database_pairs import matrix_columns
from sfm_match.types import ArrayF32, ArrayF64

Indices = npt.NDArray[np.uint32]

_LOCK_SECONDS = 5.0
_SIZES = {"F": 9, "E": 9, "H": 9, "qvec": 4, "tvec": 3}
_NO_LOCKS = "unix-none" if os.name == "posix" else "win32-none"


@dataclass(frozen=True, eq=False, slots=True)
class GeometryRow:
    """The two-view geometry of a pair, as COLMAP stores it.

    Attributes:
        pair_id: the number of the pair.
        config: COLMAP's class of the geometry.
        inliers: uint32 (N, 2), rows of keypoints, of the image with the smaller id first.
        matrices: float64, by column: those there are of `F`, `E` and `H` (row by row), `qvec`
            (w, x, y, z) and `tvec`.
    """

    pair_id: int
    config: int
    inliers: Indices
    matrices: Mapping[str, ArrayF64]


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """Open a COLMAP database to read it; neither it nor anything beside it is changed.

    A write-ahead log beside it is read too, whether or not the program that wrote it still runs. In
    the same process the file must not be open with pycolmap meanwhile.

    Raises:
        DatabaseError: there is no such file, it is not a COLMAP database, it is damaged, or
            another program holds it; every error of SQLite becomes one.
    """
    if not path.is_file():
        raise DatabaseError(f"{path}: {'is not a file' if path.exists() else 'no such database'}")
    try:
        options, first = _way_to_open(path)
        uri = f"{path.absolute().as_uri()}?mode=ro{options}"
        with closing(sqlite3.connect(uri, uri=True, timeout=_LOCK_SECONDS)) as connection:
            connection.execute(first)
            check_schema(connection)
            yield connection
    except ContentError as error:
        raise DatabaseError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        raise DatabaseError(f"{path}: {reason_of(error)}") from error


def _way_to_open(path: Path) -> tuple[str, str]:
    """Return the options and the first statement with which SQLite makes no file beside it."""
    there = {suffix for suffix in ("-wal", "-shm", "-journal") if _beside(path, suffix).is_file()}
    if not there:
        return "&immutable=1", "PRAGMA query_only = ON"
    if there == {"-wal"}:  # of a program that was killed; what it wrote last is in there alone
        return f"&vfs={_NO_LOCKS}", "PRAGMA locking_mode = EXCLUSIVE"
    return "", "PRAGMA query_only = ON"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def read_cameras(connection: Connection, damages: list[str]) -> dict[int, pycolmap.Camera]:
    """Return the cameras by their id; what is wrong with others is added to `damages`."""
    cameras = {}
    for row in connection.execute(
        "SELECT camera_id, model, width, height, params, prior_focal_length FROM cameras"
    ):
        try:
            cameras[row[0]] = camera_of_row(*row)
        except ContentError as error:
            damages.append(str(error))
    return cameras


def read_images(connection: Connection) -> dict[str, ImageRow]:
    """Return the images by their name, in order of their ids."""
    rows = connection.execute("SELECT name, image_id, camera_id FROM images ORDER BY image_id")
    return {str(name): ImageRow(image_id, camera_id) for name, image_id, camera_id in rows}


def stream_keypoints(
    connection: Connection, damages: list[str]
) -> Iterator[tuple[int, int, ArrayF32 | None]]:
    """Yield the id of each image that has a row of keypoints, their number, and themselves.

    These are float32 (N, columns), or None where the row is damaged.
    """
    rows = connection.execute("SELECT image_id, rows, cols, data FROM keypoints")
    for image_id, *found in rows:
        points = None
        try:
            points = array_of(tuple(found), "<f4", f"the keypoints of image {image_id}")
        except ContentError as error:
            damages.append(str(error))
        yield image_id, found[0], points


def stream_matches(connection: Connection, damages: list[str]) -> Iterator[tuple[int, Indices]]:
    """Yield the number of each pair with a row of matches and these, uint32 (M, 2)."""
    for pair_id, *found in connection.execute("SELECT pair_id, rows, cols, data FROM matches"):
        try:
            yield pair_id, _indices(tuple(found), f"the matches {_of_pair(pair_id)}")
        except ContentError as error:
            damages.append(str(error))


def stream_geometries(
    connection: Connection, damages: list[str], pair_ids: Sequence[int] | None = None
) -> Iterator[GeometryRow]:
    """Yield the two-view geometries, of all pairs or of those given."""
    names = matrix_columns(connection)
    query = f"SELECT pair_id, rows, cols, data, config, {', '.join(names)} FROM two_view_geometries"
    if pair_ids is None:
        rows: Iterator[Any] = iter(connection.execute(query))
    else:
        one = f"{query} WHERE pair_id = ?"
        rows = (row for pair_id in pair_ids for row in connection.execute(one, (pair_id,)))
    for pair_id, num_rows, num_columns, data, config, *blobs in rows:
        where = _of_pair(pair_id)
        try:
            yield GeometryRow(
                pair_id,
                config,
                _indices((num_rows, num_columns, data), f"the inliers {where}"),
                {
                    name: _matrix(blob, name, where)
                    for name, blob in zip(names, blobs, strict=True)
                    if blob
                },
            )
        except ContentError as error:
            damages.append(str(error))


def read_pair_matches(connection: Connection, pair_id: int) -> Indices:
    """Return the matches of a pair, uint32 (M, 2).

    Raises:
        ContentError: the row is damaged.
    """
    row = connection.execute(
        "SELECT rows, cols, data FROM matches WHERE pair_id = ?", (pair_id,)
    ).fetchone()
    return _indices(row or (0, 2, None), f"the matches {_of_pair(pair_id)}")


def _indices(found: tuple[int, int, bytes | None], what: str) -> Indices:
    if found[0] == 0:
        return np.empty((0, 2), np.uint32)
    indices: Indices = array_of(found, "<u4", what)
    if indices.shape[1] != 2:
        raise ContentError(f"{what} have {indices.shape[1]} columns, not two")
    return indices


def _matrix(blob: bytes, name: str, where: str) -> ArrayF64:
    values: ArrayF64 = values_of(blob, "<f8", f"the matrix {name} {where}")
    if len(values) != _SIZES[name]:
        raise ContentError(f"{name} {where} has {len(values)} values, not {_SIZES[name]}")
    return values


def _of_pair(pair_id: int) -> str:
    return f"of images {' and '.join(map(str, ids_of_pair(pair_id)))}"
