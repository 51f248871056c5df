"""A run that is killed or stopped at any moment loses nothing that was finished, and goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sfm_match.io.store import Entry
from tests.scenes import (
    NAMES,
    NUM_PAIRS,
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

STAGES = ("extract", "match", "verify", "import", "map")
POLL_SECONDS = 0.001

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
    assert call("run", images, out, "--seed", "0", "--threads", "1", "-q").code == 0
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


@dataclass
class Killer:
    """Runs on one output folder, one after the other, each killed."""

    reference: Reference
    out: Path
    items: Items = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)

    def kill(self, stage: str, delay: float, threads: int) -> None:
        """Kill a run so many seconds after a stage began, and check what it left."""
        begun = log_length(self.out)
        options = ("--seed", "0", "--threads", str(threads), "-q")
        process = start("run", self.reference.images, self.out, *options)
        wait_for_stage(process, self.out, stage, begun)
        time.sleep(delay)
        process.kill()
        outcome = finish(process)
        if outcome.code == 0:
            self.hits["too late"] += 1
        else:
            assert (outcome.code, outcome.stdout) == (-signal.SIGKILL, "")
            self.hits[stage_in_log(self.out, begun)] += 1
        assert wait_for_end(process.pid, 5) == []
        self.check()

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
        options = ("--seed", "0", "--threads", "1", "-q")
        assert call("run", self.reference.images, self.out, *options).code == 0
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
    random_delay = random.Random(0).uniform
    for stage, threads in zip(STAGES, (2, 1, 2, 1, 1), strict=True):
        killer.kill(stage, random_delay(0, 0.5 * reference.seconds[stage]), threads)
    killer.finish()
    assert sum(killer.hits[stage] for stage in STAGES) >= 3


def uncommon_photographs(tmp_path: Path) -> Path:
    """Make twice as many photographs as the small scene has, twice as large."""
    return make_images(tmp_path, [f"{i:02}.jpg" for i in range(12)], (480, 360))


@pytest.mark.slow
def test_kill_9_a_hundred_times(tmp_path: Path) -> None:
    reference = undisturbed(tmp_path, uncommon_photographs(tmp_path))
    hits: Counter[str] = Counter()
    chance = random.Random(1)
    for number in range(5):
        killer = Killer(reference, tmp_path / f"out {number}")
        for stage in STAGES:
            for _ in range(5):
                delay = chance.uniform(0, 1.1 * reference.seconds[stage])
                killer.kill(stage, delay, threads=chance.choice((1, 2)))
        killer.finish()
        hits += killer.hits
        shutil.rmtree(killer.out)
    print(dict(hits))
    assert sum(count for name, count in hits.items() if name != "too late") >= 100
    assert min(hits[stage] for stage in STAGES) >= 3


@pytest.mark.slow
def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    """Kill at random moments of whole runs, start-up included."""
