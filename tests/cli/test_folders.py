"""What is done with a finished output folder, and who may write to it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

from tests.cli.finished import FIXED, Scene, num_keypoints
from tests.scenes import (
    NAMES,
    call,
    read_everything,
    results,
)


def test_export_writes_hloc_files_and_leaves_the_results_alone(copy: Path) -> None:
    before = results(copy)
    outcome = call("export", copy, "--format", "hloc")
    assert outcome.code == 0
    paths = [Path(line) for line in outcome.stdout.splitlines()]
    assert paths == [copy / "hloc" / "features.h5", copy / "hloc" / "matches.h5"]
    with h5py.File(paths[0]) as file:
        assert sorted(file) == list(NAMES)
        assert sum(len(file[name]["keypoints"]) for name in NAMES) == num_keypoints(copy)
    assert results(copy) == before


def test_export_writes_colmap_text_where_it_is_told(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "text"
    assert call("export", copy, "--format", "colmap-text", "--to", target).code == 0
    assert sorted(path.name for path in (target / "features").iterdir()) == [
        f"{name}.txt" for name in NAMES
    ]
    heads = [(target / "features" / f"{name}.txt").read_text().split()[0] for name in NAMES]
    assert sum(map(int, heads)) == num_keypoints(copy)


def test_export_offers_the_formats_there_are(copy: Path) -> None:
    outcome = call("export", copy, "--format", "hlok")
    assert outcome.code == 1
    assert "did you mean 'hloc'" in outcome.stderr


def test_clean_removes_exactly_the_stores_that_the_last_settings_do_not_use(
    scene: Scene, copy: Path
) -> None:
    old = {path for kind in ("matches", "two_views") for path in (copy / kind).iterdir()}
    assert call("clean", copy).stdout == ""
    assert call("run", scene.images, copy, *FIXED, "-o", "matcher.ratio=0.7").code == 0
    kept = read_everything(copy)
    outcome = call("clean", copy)
    assert outcome.code == 0
    assert set(outcome.stdout.splitlines()) == {f"deleted {path}" for path in old}
    assert not any(path.exists() for path in old)
    of_old = {str(path.relative_to(copy)) for path in old}
    assert read_everything(copy) == {
        key: item for key, item in kept.items() if key[0] not in of_old
    }
    assert call("clean", copy).stdout == ""


HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(out: Path, seconds: float) -> subprocess.Popen[str]:
    """Hold the lock of an output folder in another process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out / ".lock"), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("command", ["run", "import", "map", "clean"])
def test_a_folder_in_use_is_refused_and_left_as_it_is(
    scene: Scene, copy: Path, command: str
) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != "log.txt"}
    images = [scene.images] if command == "run" else []
    options = [] if command == "clean" else ["-o", "matcher.ratio=0.6"]
    with hold(copy, 60) as holder:
        outcome = call(command, *images, copy, *options)
        holder.kill()
    assert outcome.code == 1
    assert outcome.stderr.splitlines() == [
        f"error: {copy}: another run is writing there; wait for its end, or pass --wait"
    ]
    after = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != "log.txt"}
    assert after == before


def test_with_wait_a_run_begins_when_the_folder_is_free(scene: Scene, copy: Path) -> None:
    with hold(copy, 1.0) as holder:
        begun = time.monotonic()
        outcome = call("run", scene.images, copy, "--seed", "0", "-q", "--wait")
        assert holder.wait(timeout=5) == 0
    assert outcome.code == 0
    assert time.monotonic() - begun >= 0.8
