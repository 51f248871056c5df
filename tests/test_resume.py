"""A run that is killed or stopped at any moment loses nothing that was finished, and goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from sfm_match.io.store import Entry
from tests.kill_at_steps import BASE, OPTIONS
from tests.scenes import (
    NAMES,
    call,
    database_rows,
    finish,
    make_images,
    model_content,
    read_everything,
    results,
    start,
    wait_for_end,
    work_done,
)

OUTPUTS = {
    "extract": "features",
    "match": "matches",
    "verify": "two_views",
    "import": "database.db",
    "map": "model",
}
STAGES = tuple(OUTPUTS)
POLL_SECONDS = 0.001
ALL_NAMES = tuple(f"{i:02}.jpg" for i in range(16))

Items = dict[tuple[str, Entry], bytes]


class Reference(NamedTuple):
    """An undisturbed run, and what came out of it."""

    images: Path
    out: Path
    items: Items
    database: dict[str, list[str]]
    model: dict[str, Any]
    seconds: dict[str, float]


def undisturbed(folder: Path, images: Path) -> Reference:
    out = folder / "undisturbed"
    assert call("run", images, out, *BASE).code == 0
    seconds = {name: stage["seconds"] for name, stage in results(out)["stages"].items()}
    return Reference(
        images,
        out,
        read_everything(out),
        database_rows(out / "database.db"),
        model_content(out / "model"),
        seconds,
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("resume")
    return undisturbed(folder, make_images(folder))


def log_length(out: Path) -> int:
    log = out / "log.txt"
    return log.stat().st_size if log.is_file() else 0


def stage_in_log(out: Path, start: int) -> str:
    """Return the stage that runs, from a place in the log on; "between" where none does."""
    with (out / "log.txt").open("rb") as file:
        file.seek(start)
        lines = file.read().decode().splitlines()
    for line in reversed(lines):
        message = line.split(maxsplit=3)[-1]
        if message.endswith(" begins"):
            return message.removesuffix(" begins")
        if " took " in message:
            return "between"
    return "between"


def wait_for_stage(process: subprocess.Popen[str], out: Path, stage: str, start: int) -> None:
    """Wait until a stage has begun or the process has ended."""
    begins = f" {stage} begins".encode()
    log = out / "log.txt"
    while process.poll() is None:
        if log.is_file() and begins in log.read_bytes()[start:]:
            return
        time.sleep(POLL_SECONDS)


def take_back(out: Path, stage: str) -> None:
    """Delete what a stage and those after it made."""
    for later in STAGES[STAGES.index(stage) :]:
        path = out / OUTPUTS[later]
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@dataclass
class Killer:
    """Runs on one output folder, one after the other, each killed."""

    reference: Reference
    out: Path
    items: Items = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)

    def kill(self, stage: str, delay: float, threads: int) -> None:
        """Kill a run so many seconds after a stage began, and check what it left.

        A stage that is done already is taken back first, so that it has something to do.
        """
        if self.is_done(stage):
            take_back(self.out, stage)
            self.items = read_everything(self.out)
        begun = log_length(self.out)
        options = ("--seed", "0", "--threads", str(threads), "-q")
        process = start("run", self.reference.images, self.out, *options)
        wait_for_stage(process, self.out, stage, begun)
        time.sleep(delay)
        process.kill()
        assert wait_for_end(process.pid, 5) == []
        outcome = finish(process)
        if outcome.stdout:
            self.hits["too late"] += 1
        else:
            assert outcome.code == -signal.SIGKILL
            self.hits[stage_in_log(self.out, begun)] += 1
        self.check()

    def is_done(self, stage: str) -> bool:
        """Return whether a stage has nothing left to do."""
        kind = OUTPUTS[stage]
        made = {key for key in self.reference.items if key[0].startswith(kind)}
        return made <= self.items.keys() if made else (self.out / kind).exists()

    def check(self) -> None:
        """Check that all is readable, that nothing is lost, and that what is there is right."""
        found = read_everything(self.out)
        assert found.items() >= self.items.items()
        assert found.items() <= self.reference.items.items()
        self.items = found
        if (self.out / "database.db").exists():
            assert database_rows(self.out / "database.db") == self.reference.database
        for folder in (self.out / "model", self.out / "models" / "0"):
            if folder.exists():
                assert model_content(folder) == self.reference.model

    def finish(self) -> None:
        """Run undisturbed, and check that everything is there and nothing else."""
        assert call("run", self.reference.images, self.out, *BASE).code == 0
        self.check()
        assert self.items == self.reference.items
        assert model_content(self.out / "model") == self.reference.model
        names = {path.name for path in self.out.iterdir()}
        assert names >= {path.name for path in self.reference.out.iterdir()}
        assert not [name for name in names if name.startswith((".database.db", ".models"))]


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


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_before_any_change_of_a_file_leaves_the_old_or_the_new(
    reference: Reference, tmp_path: Path, stride: int
) -> None:
    expected = Path(shutil.copytree(reference.out, tmp_path / "expected"))
    assert call("run", reference.images, expected, *OPTIONS).code == 0
    (tmp_path / "work").mkdir()
    folders = (reference.images, reference.out, expected, tmp_path / "work")
    killing = subprocess.run(
        [sys.executable, "-m", "tests.kill_at_steps", *map(str, folders), str(stride)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert killing.returncode == 0, killing.stderr
    assert int(killing.stdout) >= 60 // stride


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


# Each pair takes long enough to be stopped while it lasts, and so does the model.
SLOW_VERIFICATION = (
    *("-o", "verify.ransac.min_num_trials=50000"),
    *("-o", "verify.ransac.max_num_trials=50000"),
)
SLOW_MAPPING = (
    *("-o", "mapper.ba_global_max_refinements=150"),
    *("-o", "mapper.ba_global_max_refinement_change=0"),
)


# What "soon" is depends on what else the machine does.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "delay", "options"),
    [
        ("extract", 0.3, ()),
        ("match", 0, SLOW_VERIFICATION),
        ("verify", 0.3, SLOW_VERIFICATION),
        ("map", 0.1, SLOW_MAPPING),
    ],
)
def test_ctrl_c_stops_soon_and_keeps_what_is_finished(
    reference: Reference, tmp_path: Path, stage: str, delay: float, options: tuple[str]
) -> None:
    out = Path(shutil.copytree(reference.out, tmp_path / "out"))
    take_back(out, stage)
    before = read_everything(out)
    begun = log_length(out)
    process = start("run", reference.images, out, "--seed", "0", "--threads", "2", *options)
    wait_for_stage(process, out, stage, begun)
    time.sleep(delay)
    sent = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    outcome = finish(process)
    assert time.monotonic() - sent < 3
    assert outcome.code == 130
    assert outcome.stderr.endswith("stopped; the same command goes on from what is finished\n")
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    assert wait_for_end(process.pid, 5) == []
    assert read_everything(out).items() >= before.items()
    if stage != "map":
        assert not (out / "model").exists()
    assert call("run", reference.images, out, *BASE).code == 0
    assert work_done(out)["extract"][0] + work_done(out)["extract"][1] == len(NAMES)
    assert read_everything(out).items() >= reference.items.items()
    assert database_rows(out / "database.db") == reference.database
    assert model_content(out / "model") == reference.model


def test_a_worker_that_is_killed_is_told_in_one_line_and_the_rest_kept(tmp_path: Path) -> None:
    images, out = make_images(tmp_path, [f"{i:02}.jpg" for i in range(12)]), tmp_path / "out"
    process = start("extract", images, out, "--threads", "2", "-q")
    wait_for_stage(process, out, "extract", 0)
    worker = wait_for_worker(process.pid)
    worker.kill()
    outcome = finish(process)
    assert outcome.code == 1
    assert outcome.stderr.startswith("error: a process that runs sift was killed, ")
    assert len(outcome.stderr.splitlines()) == 1
    assert wait_for_end(process.pid, 5) == []
    read_everything(out)
    assert call("extract", images, out, "--threads", "1", "-q").code == 0
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


@pytest.mark.slow
@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_ctrl_c_ends_every_mapper_without_a_crash(tmp_path: Path, mapper: str) -> None:
    """A mapper's thread that came back to an interpreter at its end would abort the process."""
    reference = undisturbed(tmp_path, make_images(tmp_path, ALL_NAMES, (480, 360)))
    for tenths in range(1, 5):
        take_back(reference.out, "map")
        begun = log_length(reference.out)
        process = start("run", reference.images, reference.out, "-q", "--mapper", mapper)
        wait_for_stage(process, reference.out, "map", begun)
        time.sleep(0.1 * tenths * reference.seconds["map"])
        os.killpg(process.pid, signal.SIGINT)
        outcome = finish(process)
        assert outcome.code == 130
        assert outcome.stderr == "stopped; the same command goes on from what is finished\n"
