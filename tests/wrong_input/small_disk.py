"""Runs commands where files cannot be written, and then where they can; prints what happened.

    python -m tests.wrong_input.small_disk full|limited|read-only WORK IMAGES FINISHED

Run it in a mount namespace of its own: `full` and `read-only` mount a disk at WORK.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kill_at_steps import BASE
from tests.resume.runs import OUTPUTS, STAGES, take_back
from tests.scenes import Outcome, call, model_content, read_everything

DISK_KILOBYTES = 16 << 10
ROOM_KILOBYTES = (0, 60, 150)
"""Too little for the features, the database and the model."""

Hindrance = Callable[[Path, int], Any]


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


@contextmanager
def full(work: Path, room: int) -> Iterator[None]:
    """Leave some kilobytes on the disk."""
    free = shutil.disk_usage(work).free
    filler = work / "filler"
    with filler.open("wb") as file:
        file.write(bytes(max(0, free - room * 1024)))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def limited(work: Path, room: int) -> Iterator[None]:
    """Let no file grow above some kilobytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def read_only(work: Path, room: int) -> Iterator[None]:
    """Let nothing be written below the output folder."""
    out = work / "out"
    mount("--bind", out, out)
    mount("-o", "remount,ro,bind", out)
    try:
        yield
    finally:
        subprocess.run(["umount", str(out)], check=True)


def hinder(hindrance: Hindrance, work: Path, images: Path, finished: Path, room: int) -> list[Any]:
    """Take back each stage in turn, run it and those after it hindered, then unhindered."""
    found = []
    items, model = read_everything(finished), model_content(finished / "model")
    for stage in STAGES:
        out = Path(shutil.copytree(finished, work / "out"))
        take_back(out, stage)
        kept = read_everything(out)
        with hindrance(work, room):
            outcome: Outcome = call("run", images, out, *BASE)
        found.append(
            {
                "stage": stage,
                "room": room,
                "code": outcome.code,
                "stderr": outcome.stderr,
                "kept": kept.items() <= read_everything(out).items(),
                "has model": (out / "model").exists(),
                "left behind": [p.name for p in out.rglob("*.partial*")],
                "again": call("run", images, out, *BASE).code,
                "same": read_everything(out) == items
                and model_content(out / "model") == model
                and (out / OUTPUTS[stage]).exists(),
            }
        )
        shutil.rmtree(out)
    return found


def main(kind: str, work: Path, images: Path, finished: Path) -> list[Any]:
    """Return what happened, for each stage and room."""
    if kind != "limited":
        mount("-t", "tmpfs", "-o", f"size={DISK_KILOBYTES}k", "tmpfs", work)
    hindrance, rooms = HINDRANCES[kind]
    return [found for room in rooms for found in hinder(hindrance, work, images, finished, room)]


HINDRANCES: dict[str, tuple[Hindrance, Sequence[int]]] = {
    "full": (full, ROOM_KILOBYTES),
    "limited": (limited, ROOM_KILOBYTES[1:]),
    "read-only": (read_only, (0,)),
}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], *map(Path, sys.argv[2:5]))), flush=True)
    os._exit(0)
