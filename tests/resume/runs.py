"""Runs that are killed or stopped, and what is left of them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sfm_match.io.store import Entry
from tests.kill_at_steps import BASE
from tests.scenes import (
    call,
    database_rows,
    finish,
    model_content,
    read_everything,
    results,
    start,
    wait_for_end,
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
        assert wait_for_end(process.pid, 60) == []
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
