"""Kills an import into a database before each of its SQL statements, and checks what is left.

    python -m tests.kill_import STORES DATABASE STRIDE

STORES are those of the scene of six images, DATABASE has its images. Kills before every
STRIDE-th statement. Every import is a fork of this process, which starts no threads, on a copy of
DATABASE. Prints how many were killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from sfm_match.logs import quiet_colmap
from tests.colmap_scene import synthesize
from tests.import_scene import Made, open_stores
from tests.scenes import database_rows

_connect = sqlite3.connect


def killed_before(step: int) -> Any:
    """Return a `sqlite3.connect` of which the n-th statement of all kills the process."""
    left = step

    def count(statement: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = _connect(*arguments, **options)
        connection.execute("PRAGMA cache_size = 2")  # pages are written long before the end
        connection.set_trace_callback(count)
        return connection

    return connect


def run(made: Made, path: Path, step: int) -> int:
    """Import in a fork that is killed before a statement; return its exit code."""
    child = os.fork()
    if child == 0:
        with mock.patch.object(sqlite3, "connect", killed_before(step)):
            made.import_into(path)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(stores: Path, database: Path, stride: int) -> int:
    """Kill before every n-th statement until there is none left; return how many times."""
    quiet_colmap()
    made = open_stores(synthesize(6), stores)
    before = database_rows(database)
    path = database.with_name("copy.db")
    step = 0
    while True:
        shutil.copy(database, path)
        code = run(made, path, step)
        if code == 0:
            assert len(database_rows(path)["two_view_geometries"]) == 15
            return step // stride
        assert code == -signal.SIGKILL, code
        assert database_rows(path) == before, step
        for left in path.parent.glob("copy.db*"):
            left.unlink()
        step += stride


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
