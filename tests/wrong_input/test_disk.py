"""A full disk, a limit on the size of files, a read-only folder: said, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.resume.runs import Reference
from tests.scenes import call

ROOT = Path(__file__).parents[2]
NAMESPACE = ("unshare", "--mount", "--map-root-user")


def can_mount() -> bool:
    """Return whether this user may mount a disk in a namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def hindered(kind: str, tmp_path: Path, finished: Reference) -> list[dict[str, Any]]:
    (tmp_path / "work").mkdir()
    command = [
        *(NAMESPACE if kind != "limited" else ()),
        *(sys.executable, "-m", "tests.wrong_input.small_disk", kind),
        *map(str, (tmp_path / "work", finished.images, finished.out)),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def check_nothing_is_lost(found: dict[str, Any]) -> None:
    assert found["code"] == 1, found
    assert found["stderr"].startswith("error: "), found
    assert len(found["stderr"].splitlines()) == 1, found
    assert found["kept"], found
    assert not found["has model"], found
    assert found["left behind"] == [], found
    assert (found["again"], found["same"]) == (0, True), found


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="mounting a small disk is not permitted here")
def test_a_full_disk_is_said_in_every_stage_and_the_run_goes_on_when_there_is_room(
    tmp_path: Path, finished: Reference
) -> None:
    cases = hindered("full", tmp_path, finished)
    assert len(cases) == 15
    for found in cases:
        check_nothing_is_lost(found)
        assert "MB are free there)" in found["stderr"], found
    reasons = [found["stderr"] for found in cases if found["room"]]
    assert any("No space left on device" in reason for reason in reasons)
    assert any("/database.db: cannot be written: " in reason for reason in reasons)
    assert any("/model: cannot be written: " in reason for reason in reasons)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_limit_on_the_size_of_files_is_said_in_every_stage(
    tmp_path: Path, finished: Reference
) -> None:
    for found in hindered("limited", tmp_path, finished):
        check_nothing_is_lost(found)
        assert "cannot be" in found["stderr"], found


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="mounting a read-only disk is not permitted here")
def test_a_read_only_folder_is_said_before_the_work(tmp_path: Path, finished: Reference) -> None:
    out = tmp_path / "work" / "out"
    for found in hindered("read-only", tmp_path, finished):
        check_nothing_is_lost(found)
        expected = f"error: {out}: cannot be an output folder: Read-only file system\n"
        assert found["stderr"] == expected


def test_a_file_in_place_of_the_output_folder_is_named(tmp_path: Path, finished: Reference) -> None:
    (tmp_path / "out").write_text("a file")
    outcome = call("run", finished.images, tmp_path / "out", "-q")
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {tmp_path / 'out'}: cannot be an output folder: ")
