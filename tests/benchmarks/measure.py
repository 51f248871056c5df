"""Seconds, processor seconds and peak memory of a piece of work, in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """What some work cost.

    Attributes:
        seconds: wall time.
        cpu_seconds: of this process and its children.
        peak_mb: largest resident size of this process.
        child_peak_mb: largest resident size of a child that has ended.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    child_peak_mb: float


def cost_of(work: Callable[[], object]) -> Cost:
    """Run some work and return what it cost; the peaks are those of the process so far."""
    start, cpu = time.perf_counter(), _cpu()
    work()
    seconds, used = time.perf_counter() - start, _cpu() - cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return Cost(seconds, used, _peak_mb(), children)


def _peak_mb() -> float:
    # Not ru_maxrss: a child inherits that of the process that started it.
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _cpu() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def report(cost: Cost) -> None:
    """Print a cost so that `in_process` reads it."""
    print(json.dumps(asdict(cost)))


def in_process(module: str, *arguments: str) -> Cost:
    """Run a benchmark module with arguments in a process of its own and return its cost."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Cost(**json.loads(done.stdout.strip().splitlines()[-1]))
