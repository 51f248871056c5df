"""A run that is killed at any moment loses nothing that was finished, and goes on."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.kill_at_steps import BASE, OPTIONS
from tests.resume.runs import (
    POLL_SECONDS,
    STAGES,
    Killer,
    Reference,
    undisturbed,
    wait_for_stage,
)
from tests.scenes import (
    NAMES,
    call,
    database_rows,
    finish,
    make_images,
    read_everything,
    run_module,
    start,
    wait_for_end,
)


def test_kill_9_in_every_stage_loses_nothing_that_was_finished(
    reference: Reference, tmp_path: Path
) -> None:
    killer = Killer(reference, tmp_path / "out")
    chance = random.Random(0)
    for stage, threads in (*zip(STAGES, (2, 1, 2, 1, 2), strict=True), ("map", 1)):
        killer.kill(stage, chance.uniform(0, 0.5 * reference.seconds[stage]), threads)
    killer.finish()
    assert sum(killer.hits[stage] for stage in STAGES) >= 3, killer.hits


@pytest.mark.slow
def test_kill_9_a_hundred_times(tmp_path: Path) -> None:
    images = make_images(tmp_path, [f"{i:02}.jpg" for i in range(12)], (480, 360))
    reference = undisturbed(tmp_path, images)
    hits: Counter[str] = Counter()
    chance = random.Random(1)
    for number in range(5):
        killer = Killer(reference, tmp_path / f"out {number}")
        for stage in STAGES:
            for _ in range(6):
                delay = chance.uniform(0, reference.seconds[stage])
                killer.kill(stage, delay, threads=chance.choice((1, 2)))
        killer.finish()
        hits += killer.hits
        shutil.rmtree(killer.out)
    print(dict(hits))
    assert sum(count for name, count in hits.items() if name != "too late") >= 100, hits
    assert min(hits[stage] for stage in STAGES) >= 5, hits


@pytest.mark.slow
def test_kill_9_in_every_stage_of_photographs(tmp_path: Path) -> None:
    folder = os.environ.get("SFM_MATCH_TEST_DATA")
    if not folder:
        pytest.skip("SFM_MATCH_TEST_DATA is not set: real photographs are there")
    source = Path(folder) / "fountain-P11"
    names = sorted(path.name for path in (source / "images").iterdir())
    images = make_images(tmp_path, names, (512, 341), source)
    reference = undisturbed(tmp_path, images)
    killer = Killer(reference, tmp_path / "out")
    chance = random.Random(2)
    for stage in STAGES:
        for threads in (1, 2, 2):
            killer.kill(stage, chance.uniform(0, 0.9 * reference.seconds[stage]), threads)
    killer.finish()
    print(dict(killer.hits))
    assert sum(killer.hits[stage] for stage in STAGES) >= 10, killer.hits


@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_before_any_change_of_a_file_leaves_the_old_or_the_new(
    reference: Reference, tmp_path: Path, stride: int
) -> None:
    expected = Path(shutil.copytree(reference.out, tmp_path / "expected"))
    assert call("run", reference.images, expected, *OPTIONS).code == 0
    (tmp_path / "work").mkdir()
    folders = (reference.images, reference.out, expected, tmp_path / "work")
    assert run_module("kill_at_steps", *folders, stride, seconds=500) >= 60 // stride


HOLD_DATABASE = """
import sys, time, zlib
import pycolmap
database = pycolmap.Database.open(sys.argv[1])
print(database.num_images(), flush=True)
time.sleep(60)
"""


def test_the_log_of_a_killed_reader_of_the_database_is_not_applied_to_a_new_one(
    reference: Reference, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(reference.out, tmp_path / "out"))
    reader = subprocess.Popen(
        [sys.executable, "-c", HOLD_DATABASE, str(out / "database.db")],
        stdout=subprocess.PIPE,
        text=True,
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == f"{len(NAMES)}\n"
        reader.kill()
    assert (out / "database.db-wal").stat().st_size > 0
    # Its log holds the number of pages of the old database; the new one has fewer.
    assert call("run", reference.images, out, *BASE, "-o", "features.max_keypoints=300").code == 0
    new = database_rows(out / "database.db")
    assert len(new["images"]) == len(NAMES)
    assert new["keypoints"] != reference.database["keypoints"]
    assert call("run", reference.images, out, *BASE).code == 0
    assert database_rows(out / "database.db") == reference.database


def test_a_worker_that_is_killed_is_told_in_one_line_and_the_rest_kept(tmp_path: Path) -> None:
    images, out = make_images(tmp_path, [f"{i:02}.jpg" for i in range(12)]), tmp_path / "out"
    recipe = ("--features", "colmap_sift", "-q")
    process = start("extract", images, out, *recipe, "--threads", "2")
    wait_for_stage(process, out, "extract", 0)
    worker = wait_for_worker(process.pid)
    worker.kill()
    outcome = finish(process)
    assert outcome.code == 1
    assert outcome.stderr.startswith("error: a process that runs colmap_sift was killed, ")
    assert len(outcome.stderr.splitlines()) == 1
    assert wait_for_end(process.pid, 60) == []
    read_everything(out)
    assert call("extract", images, out, *recipe, "--threads", "1").code == 0
    assert len(read_everything(out)) == 12


def wait_for_worker(parent: int) -> psutil.Process:
    """Wait for a process to have a worker process; return it."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        for child in psutil.Process(parent).children():
            if any("popen_loky" in argument for argument in child.cmdline()):
                return child
        time.sleep(POLL_SECONDS)
    raise AssertionError("no worker was started")
