"""Changes of a database of somebody else are made in one transaction, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pycolmap
import pytest

from sfm_match.io import database_access
from sfm_match.io.database_access import DatabaseError, transaction
from sfm_match.io.database_images import add_image
from tests.databases import edit
from tests.io.small_database import refused, write_with_pycolmap
from tests.scenes import database_rows


def test_files_that_are_no_colmap_database(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.db") == f"{tmp_path / 'no.db'}: no such database"
    assert refused(tmp_path) == f"{tmp_path}: is not a file"
    text = tmp_path / "text.db"
    text.write_text("not a database " * 100)
    assert "is not an SQLite database" in refused(text)
    empty = tmp_path / "empty.db"
    empty.touch()
    assert "not a COLMAP database known here: it has no table cameras" in refused(empty)
    assert empty.stat().st_size == 0
    other = tmp_path / "other.db"
    pycolmap.Database.open(other).close()
    edit(other, "ALTER TABLE frame_data RENAME COLUMN sensor_id TO sensor")
    assert "it has no column sensor_id in its table frame_data" in refused(other)


OTHER_PROGRAM = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("SELECT count(*) FROM images").fetchone()
print("ready", flush=True)
sys.stdin.read()
"""


def other_program(path: Path, statement: str) -> subprocess.Popen[bytes]:
    """Start a program that has a database open in a transaction, or not."""
    child = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROGRAM, str(path), statement],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def test_another_program_that_writes_is_not_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_access, "_LOCK_SECONDS", 0.1)
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    with other_program(path, "BEGIN IMMEDIATE") as child:
        assert "another program is using it" in refused(path)
        child.kill()
    # One that only has it open, as COLMAP's window does:
    with other_program(path, "SELECT 1"), transaction(path) as connection:
        add_image(connection, "new.jpg", 9, 7)
    assert "new.jpg" in "".join(database_rows(path)["images"])


READ_ONLY = """
import os, sys
from pathlib import Path
from sfm_match.io.database_access import DatabaseError, transaction
from sfm_match.io.database_images import add_image
if os.geteuid() == 0:
    os.setuid(65534)
try:
    with transaction(Path(sys.argv[1])) as connection:
        add_image(connection, "new.jpg", 9, 7)
except DatabaseError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="users and modes are POSIX")
@pytest.mark.parametrize(
    ("journal", "mode", "folder_mode", "message"),
    [
        ("delete", 0o444, 0o777, "is read-only"),
        ("delete", 0o666, 0o555, "its folder is read-only"),
        ("wal", 0o666, 0o555, "its folder is read-only"),
        ("wal", 0o000, 0o777, "cannot be opened, or no files can be written beside it"),
    ],
)
def test_a_database_that_is_read_only(
    tmp_path: Path, journal: str, mode: int, folder_mode: int, message: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "colmap.db"
    write_with_pycolmap(path)
    edit(path, f"PRAGMA journal_mode = {journal}")
    before = path.read_bytes()
    reached = Path(tempfile.gettempdir())
    for parent in (tmp_path, *tmp_path.parents):
        if parent in (reached, *reached.parents):
            break
        parent.chmod(0o755)
    path.chmod(mode)
    folder.chmod(folder_mode)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True, check=True
    )
    folder.chmod(0o755)
    assert done.stdout.startswith(f"{path}: {message}")
    assert path.read_bytes() == before


def add_images(path: Path, images: Sequence[tuple[int, str, int]]) -> None:
    with transaction(path) as connection:
        for image_id, name, camera_id in images:
            if name == "wrong":
                raise KeyError("the name is wrong")
            add_image(connection, name, image_id, camera_id)


JOURNALS = pytest.mark.parametrize("journal", ["wal", "delete"])


@JOURNALS
def test_an_error_leaves_nothing_behind(tmp_path: Path, journal: str) -> None:
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    edit(path, f"PRAGMA journal_mode = {journal}")
    before = database_rows(path)
    for images, message in (
        ([(9, "new.jpg", 7), (10, "b.jpg", 7)], r"UNIQUE constraint failed: images\.name; nothing"),
        ([(9, "new.jpg", 8)], "FOREIGN KEY constraint failed; nothing was changed"),
        ([(9, "new.jpg", 7), (10, "wrong", 7)], "the name is wrong"),
    ):
        with pytest.raises((DatabaseError, KeyError), match=message):
            add_images(path, images)
    assert database_rows(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["colmap.db"]


BREAK_OFF = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from sfm_match.io.database_access import DatabaseError, transaction
from sfm_match.io.database_images import add_image, add_keypoints
path, how = Path(sys.argv[1]), sys.argv[2]
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    with transaction(path) as connection:
        # More than SQLite holds in memory: its files change before the end.
        for image_id in range(10, 30):
            add_image(connection, f"{image_id}.jpg", image_id, 7)
            add_keypoints(connection, image_id, np.ones((30000, 2), np.float32))
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
except DatabaseError as error:
    print(error)
"""


@JOURNALS
@pytest.mark.parametrize("how", ["kill", "full"])
def test_a_kill_or_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, journal: str, how: str
) -> None:
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    edit(path, f"PRAGMA journal_mode = {journal}")
    before = database_rows(path)
    done = subprocess.run(
        [sys.executable, "-c", BREAK_OFF, str(path), how],
        capture_output=True,
        text=True,
        check=False,
    )
    files = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    if how == "kill":
        assert done.returncode == -9
        spilled = "colmap.db-wal" if journal == "wal" else "colmap.db"
        assert files[spilled] > 2 << 20  # so there is something to roll back
    else:
        assert done.stdout.startswith(f"{path}: ")
        assert done.stdout.endswith("nothing was changed\n"), done
    with pycolmap.Database.open(path) as database:
        assert database.num_images() == 3
    assert database_rows(path) == before
