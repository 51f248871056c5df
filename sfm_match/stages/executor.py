"""Runs a component over many tasks, in this process or in one for each core.

A worker rebuilds the component from its `Spec`. Workers need no ``__main__`` guard in the caller's
script and end with it, also when it is killed.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TypeVar

from loky import ProcessPoolExecutor
from loky.process_executor import TerminatedWorkerError

from sfm_match.allocator import keep_freed_memory
from sfm_match.logs import quiet_colmap
from sfm_match.spec import ConfigError, Spec, load_plugin

Task = TypeVar("Task")
Result = TypeVar("Result")

_MOST_SECONDS_TO_HAND_OVER = 1.0
# OpenBLAS starts a thread for each core, and they spin: on the cores where work has begun.
_WORKER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}

_component: Any = None
_spool: Path | None = None


class WorkerError(RuntimeError):
    """A worker process has ended before its work was done."""


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_device(device: str) -> str:
    """Return a torch device that is there; `auto` is a GPU if there is one.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"device {device!r} cannot be used: {reason}") from None
    return device


def run_component(
    function: Callable[[Any, Task], Result],
    spec: Spec,
    tasks: Sequence[Task],
    device: str = "cpu",
    workers: int | None = None,
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with ``function(component, task)``, in no particular order.

    Args:
        function: a function of a module, so that a worker can import it.
        spec: the component.
        tasks: what to do; each must be picklable, and so must the results.
        device: the torch device that components are built on.
        workers: how many calls run at once, where the plugin allows several; all cores if None.

    Raises:
        WorkerError: a worker process was killed.
    """
    workers = num_cores() if workers is None else workers
    plugin = load_plugin(spec.kind, spec.name)
    if not tasks:
        return
    if not plugin.CONCURRENT or workers < 2 or len(tasks) < 3:
        component = spec.build(device)
        for task in tasks:
            yield task, function(component, task)
    elif getattr(plugin, "RELEASES_GIL", False):
        component = spec.build(device)
        calls = ((task, partial(function, component, task)) for task in tasks)
        # A GPU has enough to do when one image is decoded while another is in the network.
        threads = workers if device == "cpu" else 2
        yield from run_in_threads(calls, threads, _use_one_core)
    else:
        yield from _run_in_processes(function, spec, tasks, device, min(workers, len(tasks)) - 1)


def _use_one_core() -> None:
    """Keep torch, where it is used, from taking several threads for an operation of this one."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _run_in_processes(
    function: Callable[[Any, Task], Result],
    spec: Spec,
    tasks: Sequence[Task],
    device: str,
    processes: int,
) -> Iterator[tuple[Task, Result]]:
    """Keep the worker processes fed, and work along in this process meanwhile."""
    spool = Path(tempfile.mkdtemp(prefix="sfm_match-"))
    pool = ProcessPoolExecutor(
        processes,
        initializer=_start_worker,
        initargs=(spec, device, os.getpid(), spool),
        env=_WORKER_ENVIRONMENT,
    )
    component = spec.build(device)
    waiting: dict[Future[Path], Task] = {}
    todo = deque(tasks)
    finished = False
    try:
        while todo or waiting:
            # Each worker's next task lies ready, since none comes while a component holds the lock
            # here; but not of the last tasks, which this process would have to wait for.
            ready = 2 * processes if len(todo) > processes else processes
            while todo and len(waiting) < ready:
                task = todo.popleft()
                with _without_ctrl_c():
                    waiting[pool.submit(_call, function, task)] = task
            if todo:
                _hand_over(waiting)
                task = todo.popleft()
                yield task, function(component, task)
            else:
                wait(waiting, return_when=FIRST_COMPLETED)
            for future in [future for future in waiting if future.done()]:
                yield waiting.pop(future), _fetch(future.result())
        finished = True
    except TerminatedWorkerError as error:
        raise WorkerError(
            f"a process that runs {spec.name} was killed, by the system where memory is short: "
            "use fewer threads or smaller images; what is finished is kept"
        ) from error
    finally:
        # Workers that have nothing left to do end by themselves meanwhile.
        pool.shutdown(wait=not finished, kill_workers=not finished)
        shutil.rmtree(spool, ignore_errors=True)


def _hand_over(futures: Iterable[Future[Any]]) -> None:
    """Let the threads that feed the worker processes send them their tasks.

    They could not while a component holds the interpreter's lock in this process.
    """
    limit = time.monotonic() + _MOST_SECONDS_TO_HAND_OVER
    while not all(f.running() or f.done() for f in futures) and time.monotonic() < limit:
        time.sleep(0.0002)
    time.sleep(0.002)  # for the last one to pass the pipe


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back meanwhile, and for good in processes and threads that are started here.

    A terminal sends it to all processes; this one decides when the others stop.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_in_threads(
    tasks: Iterable[tuple[Task, Callable[[], Result]]],
    workers: int,
    initializer: Callable[[], object] | None = None,
) -> Iterator[tuple[Task, Result]]:
    """Call functions that release the interpreter's lock, in threads, and yield in order.

    Tasks are taken a bounded number ahead of the results, so that a long sequence of them never
    lies in memory.
    """
    waiting: deque[tuple[Task, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=initializer)
    try:
        for task, function in tasks:
            waiting.append((task, pool.submit(function)))
            if len(waiting) > 2 * workers:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C waits only for what has begun


def _start_worker(spec: Spec, device: str, parent: int, spool: Path) -> None:
    global _component, _spool
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent, spool), daemon=True).start()
    quiet_colmap()
    _component, _spool = spec.build(device), spool


def _end_with_parent(parent: int, spool: Path) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    shutil.rmtree(spool, ignore_errors=True)
    os._exit(1)


def _call(function: Callable[[Any, Task], Result], task: Task) -> Path:
    """Work on a task in a worker process, and leave the result in a file.

    Through a pipe it would have to wait for the other process, which may hold its interpreter's
    lock for as long as a task takes.
    """
    result = function(_component, task)
    handle, name = tempfile.mkstemp(dir=_spool)
    with os.fdopen(handle, "wb") as file:
        pickle.dump(result, file, pickle.HIGHEST_PROTOCOL)
    return Path(name)


def _fetch(path: Path) -> Any:
    with path.open("rb") as file:
        result = pickle.load(file)
    path.unlink()
    return result
