"""Many worker processes kept busy, on a machine with fewer cores.

    python -m tests.benchmarks.bench_executor [--tasks PER_PROCESS] [--seconds OF_A_TASK]

The tasks sleep, of unequal length, and hold the interpreter's lock meanwhile, as pycolmap's SIFT
does while it computes. The baseline is that all processes are busy all the time, from the start on;
the cores that there are have to start all of them.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import time
from collections import Counter

from sfm_match.spec import Spec
from sfm_match.stages.executor import run_component

SIFT = Spec.parse("extractors", "colmap_sift", {})


def sleep(component: object, microseconds: int) -> int:
    """Sleep with the interpreter's lock; return the process."""
    ctypes.PyDLL(None).usleep(microseconds)
    return os.getpid()


def main(tasks: int, seconds: float) -> None:
    for workers in (2, 4, 8, 16):
        draw = random.Random(0).uniform
        lengths = [int(draw(0.7, 1.3) * seconds * 1e6) for _ in range(tasks * workers)]
        start = time.perf_counter()
        found = run_component(sleep, SIFT, lengths, workers=workers)
        done = Counter(pid for _, pid in found)
        took, ideal = time.perf_counter() - start, sum(lengths) / 1e6 / workers
        print(
            f"{workers:2} processes: {took:.2f} s, always busy {ideal:.2f} s: {took / ideal:.2f}; "
            f"{done[os.getpid()]} of {len(lengths)} tasks in this process"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.8)
    chosen = parser.parse_args()
    main(chosen.tasks, chosen.seconds)
