"""`sfm-match doctor`: what it prints, its exit codes, and that it changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sfm_match.cli.doctor import PROBLEMS, WARNINGS
from tests.cli.finished import Scene
from tests.databases import edit
from tests.scenes import call


def content(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the time and the digest of every file below a folder."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_finished_run_is_sound_and_stays_as_it_is(scene: Scene) -> None:
    before = content(scene.out)
    outcome = call("doctor", scene.out)
    assert outcome.code == 0
    lines = outcome.stdout.splitlines()
    assert lines[0].startswith(f"{scene.out / 'database.db'}: ")
    assert lines[1:] == ["nothing found"]
    assert content(scene.out) == before


def test_its_keypoints_have_colmaps_origin(scene: Scene, copy: Path) -> None:
    assert call("doctor", copy, "--images", scene.images).code == 0
    half = (
        "UPDATE keypoints SET data = shifted FROM (SELECT image_id AS i, "
        "shift(data, cols) AS shifted FROM keypoints) WHERE image_id = i"
    )

    def shift(connection: sqlite3.Connection) -> None:
        def by_half(data: bytes, num_columns: int) -> bytes:
            points = np.frombuffer(data, np.float32).reshape(-1, num_columns).copy()
            points[:, :2] += 0.5
            return points.tobytes()

        connection.create_function("shift", 2, by_half)
        connection.execute(half)

    edit(copy / "database.db", shift)
    outcome = call("doctor", copy, "--images", scene.images, "--json")
    assert outcome.code == WARNINGS
    found = {f["code"]: f for f in json.loads(outcome.stdout)["findings"]}
    assert "(+0.50, +0.50)" in found["half-pixel"]["what"]


def test_problems_and_warnings_have_exit_codes_of_their_own(copy: Path) -> None:
    assert call("doctor", copy / "database.db").code == 0
    edit(copy / "database.db", "UPDATE two_view_geometries SET config = 0")
    outcome = call("doctor", copy / "database.db", "--json")
    assert outcome.code == PROBLEMS
    found = json.loads(outcome.stdout)
    assert found["counts"]["verified_pairs"] > 0
    assert [f["code"] for f in found["findings"]] == ["geometry-without-config"]
    assert found["findings"][0]["severity"] == "problem"
    assert found["findings"][0]["advice"]


def test_the_text_shows_the_worst_first_with_five_places(copy: Path) -> None:
    database = copy / "database.db"
    edit(database, "UPDATE two_view_geometries SET config = 0")
    edit(database, "INSERT INTO matches (pair_id, rows, cols) VALUES (2147483648, 0, 2)")
    outcome = call("doctor", database)
    assert outcome.code == PROBLEMS
    lines = outcome.stdout.splitlines()[1:]
    assert lines[0].startswith("problem [geometry-without-config]: ")
    assert lines[1].startswith("  where: ")
    assert " more" in lines[1]
    assert lines[2].startswith("  try: ")
    assert lines[3].startswith("note [self-pairs]: ")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such database"),
        (
            lambda path: path.touch(),
            "is empty and is not a COLMAP database known here: it has no table cameras",
        ),
        (lambda path: path.write_bytes(b"not a database" * 100), "is not an SQLite database"),
        (
            lambda path: edit(path, "CREATE TABLE images (image_id, name, camera_id)"),
            "is not a COLMAP database known here: it has no table cameras",
        ),
    ],
    ids=["missing", "empty", "no database", "other tables"],
)
def test_what_is_no_database(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "some.db")
    outcome = call("doctor", tmp_path / "some.db")
    assert outcome.code == 1
    assert outcome.stderr == f"error: {tmp_path / 'some.db'}: {message}\n"


def test_a_damaged_file(copy: Path) -> None:
    database = copy / "database.db"
    data = bytearray(database.read_bytes())
    data[4096 : len(data) // 2] = bytes(len(data) // 2 - 4096)
    database.write_bytes(data)
    outcome = call("doctor", database)
    assert outcome.code == 1
    assert "is damaged; put back a copy, or make it again" in outcome.stderr


def test_a_log_that_a_killed_program_left_is_read_and_kept(copy: Path, tmp_path: Path) -> None:
    live = copy / "database.db"
    with sqlite3.connect(live) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE two_view_geometries SET config = 0")
        connection.commit()
        dead = tmp_path / "dead"
        dead.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{live}{suffix}", dead / f"database.db{suffix}")
    connection.close()
    before = content(dead)
    outcome = call("doctor", dead / "database.db", "--json")
    assert [f["code"] for f in json.loads(outcome.stdout)["findings"]] == [
        "geometry-without-config"
    ]
    assert content(dead) == before


def test_a_database_that_another_program_writes_to(copy: Path) -> None:
    database = copy / "database.db"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("UPDATE two_view_geometries SET config = 0")
    assert call("doctor", database).code == 0  # not committed yet
    connection.commit()
    assert call("doctor", database).code == PROBLEMS
    connection.close()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(copy: Path) -> None:
    copy.chmod(0o500)
    assert call("doctor", copy / "database.db").code == 0
    copy.chmod(0o700)
