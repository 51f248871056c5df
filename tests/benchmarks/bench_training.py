"""What a step of each training costs, and what bounds it.

    python -m tests.benchmarks.bench_training [NAME ...] [--steps 5]

NAME is what `sfm-match train` takes; without, all. The networks, crops and batches are those of the
default settings, only fewer pictures are prepared. Each training runs in a process of its own, on
one thread, after two steps that do not count. Seconds are the medians of a step's CPU seconds, the
batch included, which is made meanwhile where there is a second core; "optimiser" is all that comes
after the gradient. "Resident" is what the process holds before the first step, the peak what comes
on top. GFlop/s counts the multiplications and additions of convolutions and matrix products over
the seconds of forward and backward; next to it, what a product of large matrices reaches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sfm_match.allocator import keep_freed_memory
from sfm_match.spec import parse_config
from sfm_match.training.task import Task, load_task, task_names

FEW: dict[str, Any] = {"num_made_up": 4, "num_rooms": 1, "num_views": 4}
PREPARED: dict[str, dict[str, Any]] = {
    "matchnet": {**FEW, "pictures": 60, "reservoir": 4000, "tests": 4},
    "generative-graph": {**FEW, "pairs": 4, "tests": 1},
}
WARM_UP = 2
PROFILED = 3
PARTS = ("batch", "forward and loss", "backward", "optimiser")


class Clock:
    """CPU and wall seconds since the last call."""

    def __init__(self) -> None:
        self._last = self._now()

    def _now(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([time.process_time(), time.perf_counter()])

    def __call__(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        before, self._last = self._last, self._now()
        return self._last - before


def measured(task: Task, number: int) -> dict[str, Any]:
    """Return CPU and wall seconds of the parts of a step."""
    clock, spent = Clock(), {}
    backward = torch.autograd.backward

    def timed(*args: Any, **kwargs: Any) -> None:
        spent["forward and loss"] = clock()
        backward(*args, **kwargs)
        spent["backward"] = clock()

    batch = task.make_batch(number)
    spent["batch"] = clock()
    with mock.patch.object(torch.autograd, "backward", timed):
        task.trainer.step(batch)
    spent["optimiser"] = clock()
    return spent


def profiled(task: Task) -> dict[str, float]:
    """Return the share of each operator in the CPU time of some steps, without the batches."""
    batches = [task.make_batch(number) for number in range(PROFILED)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for batch in batches:
            task.trainer.step(batch)
    times: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        times[event.key.removeprefix("aten::")] += event.self_cpu_time_total
    total = sum(times.values())
    return {name: spent / total for name, spent in times.items()}


def flops(task: Task) -> int:
    """Return the multiplications and additions of a step."""
    batch = task.make_batch(0)
    with FlopCounterMode(display=False) as counter:
        task.trainer.step(batch)
    return int(counter.get_total_flops())


def matmul_speed(dtype: torch.dtype) -> float:
    """Return the GFlop/s of a product of two large matrices."""
    side = 1536
    a = torch.randn(side, side).to(dtype)
    seconds = []
    for _ in range(6):
        start = time.process_time()
        _ = a @ a
        seconds.append(time.process_time() - start)
    return 2 * side**3 / min(seconds) / 1e9


def megabytes(field: str) -> float:
    """Return a field of the process' status."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def bench(name: str, steps: int) -> dict[str, Any]:
    """Return all figures of a training."""
    torch.set_num_threads(1)
    keep_freed_memory()
    module = load_task(name)
    config = parse_config(module.Config, PREPARED.get(name, FEW), name)
    task: Task = module.prepare(config, "free", 0, lambda *_: lambda _: None)
    resident = megabytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    spent = [measured(task, number) for number in range(WARM_UP + steps)][WARM_UP:]
    peak = megabytes("VmHWM")
    seconds = {part: np.median([one[part] for one in spent], axis=0) for part in PARTS}
    computing = seconds["forward and loss"][0] + seconds["backward"][0]
    return {
        "name": name,
        "cpu": {part: seconds[part][0] for part in PARTS},
        "wall": {part: seconds[part][1] for part in PARTS},
        "resident_mb": resident,
        "peak_mb": peak - resident,
        "gflops": flops(task) / computing / 1e9,
        "matmul_fp32": matmul_speed(torch.float32),
        "matmul_bf16": matmul_speed(torch.bfloat16),
        "operators": profiled(task),
    }


def row(found: dict[str, Any]) -> str:
    """Return a row of the table."""
    parts = " | ".join(f"{found['cpu'][part]:.3f}" for part in PARTS)
    total, wall = (sum(found[kind].values()) for kind in ("cpu", "wall"))
    largest = sorted(found["operators"].items(), key=lambda item: -item[1])[:3]
    operators = ", ".join(f"{name} {100 * share:.0f}%" for name, share in largest)
    speeds = " | ".join(f"{found[key]:.0f}" for key in ("gflops", "matmul_fp32", "matmul_bf16"))
    return (
        f"| {found['name']} | {total:.3f} | {wall:.3f} | {parts} | {found['resident_mb']:.0f} | "
        f"{found['peak_mb']:.0f} | {speeds} | {operators} |"
    )


def main() -> None:
    """Print a table, a line for each training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=task_names())
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--one", action="store_true", help="print the figures of one as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(bench(args.names[0], args.steps)))
        return
    head = ("CPU s", "wall s", *PARTS, "resident MB", "peak MB", "GFlop/s", "matmul fp32", "bf16")
    print(f"| training | {' | '.join(head)} | operators |\n" + "|---" * (len(head) + 2) + "|")
    for name in args.names:
        command = [sys.executable, "-m", "tests.benchmarks.bench_training", name, "--one"]
        command += ["--steps", str(args.steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(row(json.loads(done.stdout.splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()
