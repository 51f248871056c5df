"""Changes of a COLMAP database, as somebody else would make them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

FACTOR = 2147483647
Connection = sqlite3.Connection
Change = Callable[[Connection], object]


def pair_id(a: int, b: int) -> int:
    """Return COLMAP's number of a pair of ids."""
    return FACTOR * a + b


def edit(path: Path, *changes: Change | str) -> None:
    """Change a database, by statements or functions; nothing of it is checked."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for change in changes:
            if isinstance(change, str):
                connection.execute(change)
            else:
                change(connection)
