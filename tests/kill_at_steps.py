"""Kills a run at each of its changes of the file system in turn, and checks what it left.

    python -m tests.kill_at_steps IMAGES FINISHED EXPECTED WORK STRIDE

FINISHED is the output folder of a run, EXPECTED that of one with `OPTIONS` that began as a copy of
it. Runs with `OPTIONS` on copies of FINISHED below WORK are killed before every change, or with a
STRIDE of n before every n-th. Prints how many times. The runs are forked from this process, which
starts no threads: a new interpreter for each would take seconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.scenes import call, database_rows, model_content, read_everything

BASE = ("--seed", "0", "--threads", "1", "-q")
OPTIONS = (*BASE, "-o", "camera.mode=single", "-o", "verify.min_num_inliers=20")
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open")
WRITING = os.O_WRONLY | os.O_RDWR


def kill_before(step: int, out: Path) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that kills the process before its n-th change below a folder."""
    changes = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        if event not in CHANGES or (event == "open" and not arguments[2] & WRITING):
            return
        path = str(arguments[0])
        if Path(path).is_absolute() and not path.startswith(str(out)):
            return  # relative ones are those of shutil.rmtree
        if changes == step:
            os.kill(os.getpid(), signal.SIGKILL)
        changes += 1

    return hook


def run(images: Path, out: Path, hook: Callable[[str, tuple[Any, ...]], None] | None) -> int:
    """Run in a fork of this process; return its exit code."""
    child = os.fork()
    if child == 0:
        if hook is not None:
            sys.addaudithook(hook)
        os._exit(call("run", images, out, *OPTIONS).code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(images: Path, finished: Path, expected: Path, work: Path, stride: int) -> int:
    """Kill at every n-th step until there is none left; return how many times."""
    items = read_everything(finished)
    databases = [database_rows(folder / "database.db") for folder in (finished, expected)]
    models = [model_content(folder / "model") for folder in (finished, expected)]
    step = 0
    while True:
        out = work / "out"
        shutil.copytree(finished, out)
        code = run(images, out, kill_before(step, out))
        assert code in (0, -signal.SIGKILL), code
        assert read_everything(out).items() >= items.items()
        assert database_rows(out / "database.db") in databases
        for folder in (out / "model", out / "models" / "0"):
            assert not folder.exists() or model_content(folder) in models, folder
        if code == 0:
            return step // stride
        assert run(images, out, None) == 0
        assert read_everything(out) == read_everything(expected)
        assert database_rows(out / "database.db") == databases[1]
        assert model_content(out / "model") == model_content(out / "models" / "0") == models[1]
        shutil.rmtree(out)
        step += stride


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:5]]
    print(main(folders[0], folders[1], folders[2], folders[3], int(sys.argv[5])))
