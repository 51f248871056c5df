"""Kills a second pass at each of its changes of the file system in turn, and checks what it left.

    python -m tests.kill_polish FINISHED EXPECTED WORK STRIDE

FINISHED is the output folder of a run without a second pass, EXPECTED that of one with `POLISHED`
that began as a copy of it. Kills before every STRIDE-th change, and prints how many times. The runs
are forked from this process, which starts no threads.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from tests.kill_at_steps import kill_before
from tests.scenes import call, model_content

POLISHED = ("--seed", "0", "--threads", "1", "-q", "-o", "polish.rounds=1")


def run(out: Path, step: int | None) -> int:
    """Polish in a fork, killed before its n-th change of a file; return the exit code."""
    child = os.fork()
    if child == 0:
        if step is not None:
            sys.addaudithook(kill_before(step, out))
        os._exit(call("polish", out, *POLISHED).code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(finished: Path, expected: Path, work: Path, stride: int) -> int:
    """Kill at every n-th step until there is none left; return how many times."""
    first, last = (model_content(folder / "model") for folder in (finished, expected))
    step = 0
    while True:
        out = work / "out"
        shutil.copytree(finished, out)
        code = run(out, step)
        assert code in (0, -signal.SIGKILL), code
        assert model_content(out / "models" / "0") == first
        if (out / "model").exists():
            assert model_content(out / "model") in (first, last)
        if (out / "polished").exists():
            assert model_content(out / "polished" / "0") == last
        if code == 0:
            return step // stride
        assert run(out, None) == 0
        assert model_content(out / "model") == model_content(out / "polished" / "0") == last
        assert not list(out.glob(".polished*"))
        shutil.rmtree(out)
        step += stride


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:4]]
    print(main(folders[0], folders[1], folders[2], int(sys.argv[4])))
