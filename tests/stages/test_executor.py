"""Components over many tasks; the functions are in a module, since workers import them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sfm_match.spec import ConfigError, Spec
from sfm_match.stages.executor import (
    WorkerError,
    num_cores,
    resolve_device,
    run_component,
    run_in_threads,
)

SIFT = Spec.parse("extractors", "colmap_sift", {"max_keypoints": 20})


def num_keypoints(extractor: Any, seed: int) -> int:
    image = np.random.default_rng(seed).integers(0, 256, (64, 64), dtype=np.uint8)
    return len(extractor(image))


def process_of(extractor: Any, task: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def fail_at_7(extractor: Any, task: int) -> int:
    if task == 7:
        raise ValueError(f"task {task} cannot be done")
    return task


def die_in_a_worker(extractor: Any, parent: int) -> int:
    if os.getpid() != parent:
        os._exit(3)
    time.sleep(0.2)
    return parent


def wait_until(condition: Callable[[], bool]) -> bool:
    """Return whether it has become true before too long."""
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def first_task_waits(extractor: Any, task: tuple[int, Path]) -> tuple[int, bool]:
    """Return the process, and, of the first task, whether the file came into being."""
    number, file = task
    return os.getpid(), number > 0 or wait_until(file.exists)


def wait_for_workers(extractor: Any, task: tuple[int, Path]) -> bool:
    """Leave a file in a worker process; elsewhere wait until each of three has left two."""
    parent, folder = task
    if os.getpid() != parent:
        (folder / uuid.uuid4().hex).touch()
        return True
    return wait_until(lambda: len(list(folder.iterdir())) >= 6)


# --- processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once_whatever_the_number_of_workers(workers: int) -> None:
    expected = {seed: num_keypoints(SIFT.build(), seed) for seed in range(12)}
    found = list(run_component(num_keypoints, SIFT, range(12), workers=workers))
    assert len(found) == 12
    assert dict(found) == expected
    assert len(set(expected.values())) > 1


def test_workers_are_other_processes_and_this_one_works_along() -> None:
    found = list(run_component(process_of, SIFT, range(10), workers=2))
    assert sorted(task for task, _ in found) == list(range(10))
    assert len({pid for _, pid in found}) == 2
    assert os.getpid() in {pid for _, pid in found}


def test_a_long_task_does_not_hold_up_what_is_finished(tmp_path: Path) -> None:
    """It ends when something that another process did has come."""
    tasks = [(number, tmp_path / "done") for number in range(12)]
    results: list[bool] = []
    for (number, file), (pid, in_time) in run_component(first_task_waits, SIFT, tasks, workers=3):
        if number > 0 and pid != os.getpid():
            file.touch()
        results.append(in_time)
    assert results == [True] * 12


def test_workers_have_a_task_ready_while_this_process_is_busy(tmp_path: Path) -> None:
    tasks = [(os.getpid(), tmp_path)] * 30
    assert all(done for _, done in run_component(wait_for_workers, SIFT, tasks, workers=4))


def test_one_worker_or_few_tasks_stay_in_this_process() -> None:
    for workers, tasks in ((1, range(4)), (4, range(2))):
        found = dict(run_component(process_of, SIFT, tasks, workers=workers))
        assert found == dict.fromkeys(tasks, os.getpid())
    assert list(run_component(process_of, SIFT, [])) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_of_a_task_reaches_the_caller(workers: int) -> None:
    with pytest.raises(ValueError, match="task 7 cannot be done"):
        list(run_component(fail_at_7, SIFT, range(12), workers=workers))


def test_a_worker_that_dies_is_an_error_and_no_hang() -> None:
    start = time.monotonic()
    with pytest.raises(WorkerError, match="a process that runs colmap_sift was killed"):
        list(run_component(die_in_a_worker, SIFT, [os.getpid()] * 8, workers=2))
    assert time.monotonic() - start < 120


SCRIPT = """
import os, sys
from sfm_match.stages.executor import run_component
from tests.stages.test_executor import SIFT, process_of
for task, pid in run_component(process_of, SIFT, list(range(2000)), workers=2):
    print(pid, flush=True)
"""


def test_workers_end_with_a_killed_parent_and_need_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        workers: set[int] = set()
        while len(workers) < 2:
            line = child.stdout.readline()
            assert line, "the script ended before its workers began"
            workers.add(int(line))
        child.kill()
    deadline = time.monotonic() + 10
    while any(_is_running(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- threads --------------------------------------------------------------------------------------


def square(number: int) -> Callable[[], int]:
    def run() -> int:
        time.sleep(0.001 * (number % 3))
        return number**2

    return run


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_yield_in_order(workers: int) -> None:
    tasks = ((i, square(i)) for i in range(40))
    assert list(run_in_threads(tasks, workers)) == [(i, i**2) for i in range(40)]
    assert list(run_in_threads([], workers)) == []


def test_tasks_are_taken_a_bounded_number_ahead() -> None:
    taken = 0

    def tasks() -> Iterator[tuple[int, Callable[[], int]]]:
        nonlocal taken
        for i in range(100):
            taken += 1
            yield i, square(i)

    ahead = [taken - i for i, _ in run_in_threads(tasks(), 2)]
    assert max(ahead) <= 6
    assert taken == 100


def test_an_exception_in_a_thread_reaches_the_caller() -> None:
    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(run_in_threads([(0, square(0)), (1, fail), (2, square(2))], 2))


def test_the_initializer_runs_in_each_thread() -> None:
    names: list[str] = []
    list(
        run_in_threads(
            ((i, square(i)) for i in range(20)),
            2,
            initializer=lambda: names.append(threading.current_thread().name),
        )
    )
    assert len(set(names)) == len(names) == 2


# --- machine --------------------------------------------------------------------------------------


def test_cores_and_devices() -> None:
    import torch  # only here: every worker imports this module

    assert 1 <= num_cores() <= (os.cpu_count() or 1)
    with pytest.raises(ConfigError, match="device 'tpu' cannot be used"):
        resolve_device("tpu")
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
