"""Opening a COLMAP database that somebody else made, to add to it in one transaction.

Through Python's SQLite and not pycolmap, whose transaction commits on an error, and which converts
the database of an older COLMAP as soon as it opens it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sfm_match.io.files import FileError

Connection = sqlite3.Connection

_LOCK_SECONDS = 5.0
_PAIR_FACTOR = 2147483647
_NEEDED = {
    "cameras": "camera_id model width height params prior_focal_length",
    "images": "image_id name camera_id",
    "keypoints": "image_id rows cols data",
    "descriptors": "image_id rows",
    "matches": "pair_id rows cols data",
    "two_view_geometries": "pair_id rows cols data config F E H",
}
_NEEDED_OF_RIGS = {
    "rigs": "rig_id ref_sensor_id ref_sensor_type",
    "rig_sensors": "rig_id sensor_id sensor_type",
    "frames": "frame_id rig_id",
    "frame_data": "frame_id data_id sensor_id sensor_type",
}
_REASONS = {
    "SQLITE_READONLY_ROLLBACK": "was left in the middle of a change; open it once with the program "
    "that wrote to it",
    "SQLITE_CORRUPT": "is damaged; put back a copy, or make it again",
    "SQLITE_BUSY": "another program is using it; let that finish, or close it",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_NOTADB": "is not an SQLite database",
    "SQLITE_CANTOPEN": "cannot be opened, or no files can be written beside it",
    "SQLITE_READONLY_DIRECTORY": "its folder is read-only",
    "SQLITE_READONLY": "is read-only",
}


class DatabaseError(FileError):
    """A database that cannot be used; the message names it and says why."""


class ContentError(ValueError):
    """Something in a database that is wrong; `transaction` makes it a `DatabaseError`."""


@contextmanager
def transaction(path: Path) -> Iterator[Connection]:
    """Open a COLMAP database for one transaction, alone: other programs wait or are waited for.

    It is committed at the end. After an exception, a full disk or a kill the database is as it
    was: SQLite rolls back what was not committed, at the latest when the file is opened again. The
    schema of an older COLMAP is kept.

    In the same process the file must not be open with pycolmap meanwhile: that is another copy of
    SQLite, and the two do not see each other's locks.

    Raises:
        DatabaseError: there is no such file, it is not a COLMAP database, another program is using
            it, or it cannot be written to; every error of SQLite becomes one.
    """
    if not path.is_file():
        raise DatabaseError(f"{path}: {'is not a file' if path.exists() else 'no such database'}")
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_LOCK_SECONDS,
            isolation_level=None,
        )
        with closing(connection):
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("BEGIN EXCLUSIVE")
            check_schema(connection)
            yield connection
            connection.execute("COMMIT")
    except ContentError as error:
        raise DatabaseError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        raise DatabaseError(f"{path}: {reason_of(error)}; nothing was changed") from error


def reason_of(error: sqlite3.Error) -> str:
    """Return what an error of SQLite means for its user."""
    name = getattr(error, "sqlite_errorname", "")
    return next((why for code, why in _REASONS.items() if name.startswith(code)), str(error))


def columns(connection: Connection, table: str) -> set[str]:
    """Return the names of a table's columns; none if there is no such table."""
    return {str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")}


def has_rig_tables(connection: Connection) -> bool:
    """Return whether the schema has rigs and frames: it is that of COLMAP 3.12 or later."""
    return bool(columns(connection, "rigs"))


def check_schema(connection: Connection) -> None:
    """Raise ContentError unless the tables and columns are those of COLMAP's that are used here."""
    needed = _NEEDED | (_NEEDED_OF_RIGS if has_rig_tables(connection) else {})
    for table, names in needed.items():
        there = columns(connection, table)
        missing = [name for name in names.split() if name not in there]
        if missing:
            lacks = f"no column {missing[0]} in its table {table}" if there else f"no table {table}"
            found = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            empty = "" if found else "is empty and "
            raise ContentError(f"{empty}is not a COLMAP database known here: it has {lacks}")


def ids_of_pair(pair_id: int) -> tuple[int, int]:
    """Return the ids of the images of a pair, the smaller one first."""
    return divmod(pair_id, _PAIR_FACTOR)


def values_of(blob: bytes | None, dtype: str, what: str) -> npt.NDArray[Any]:
    """Return the values of a blob, flat.

    Raises:
        ContentError: its length does not fit; the message names `what`.
    """
    if blob and len(blob) % np.dtype(dtype).itemsize:
        raise ContentError(
            f"{what} are damaged: {len(blob)} bytes are no whole number of {np.dtype(dtype)} values"
        )
    return np.frombuffer(blob or b"", dtype)


def array_of(found: tuple[int, int, bytes | None], dtype: str, what: str) -> npt.NDArray[Any]:
    """Return the array of a row's columns `rows`, `cols` and `data`.

    Raises:
        ContentError: the sizes do not fit; the message names `what`.
    """
    num_rows, num_columns, blob = found
    flat = values_of(blob, dtype, what)
    if len(flat) != num_rows * num_columns:
        raise ContentError(
            f"{what} are damaged: {num_rows} x {num_columns} values, of which {len(flat)} are there"
        )
    return flat.reshape(num_rows, num_columns)


def shape_and_blob(array: npt.NDArray[Any], dtype: str) -> tuple[int, int, bytes | None]:
    """Return what a row holds of an array: `rows`, `cols` and `data`, null for an empty one."""
    return array.shape[0], array.shape[1], array.astype(dtype).tobytes("C") or None
