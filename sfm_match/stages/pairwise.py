"""Runs a component of two phases over pairs: each image is encoded once while it is at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import torch

from sfm_match.io.images import ImageError
from sfm_match.spec import Spec, load_plugin
from sfm_match.stages.executor import num_cores, run_in_threads
from sfm_match.stages.order import LruCache, order_pairs
from sfm_match.stages.views import Placed
from sfm_match.types import Pair

Result = TypeVar("Result")

_PAIRS_PER_BATCH_ON_GPU = 16


class Task(NamedTuple):
    """A pair, and what the component made of its images."""

    pair: Pair
    a: Placed[Any]
    b: Placed[Any]


def run_on_pairs(
    pairs: Sequence[Pair],
    encoded: LruCache[Placed[Any]],
    work: Callable[[Sequence[Task]], list[Result]],
    spec: Spec,
    *,
    device: str,
    workers: int | None,
    failures: dict[str, str],
) -> Iterator[tuple[Pair, Result]]:
    """Yield each pair with its result, in an order in which neighbours share images.

    Args:
        pairs: what to do.
        encoded: gives what the component made of an image.
        work: gives the results of some pairs, in their order.
        spec: the component.
        device: the torch device that it runs on.
        workers: how many pairs are worked on at once on a CPU, where the plugin allows several;
            one for each core if None.
        failures: takes up the images that cannot be used, each with the reason; their pairs are
            left out.
    """
    tasks = _tasks(order_pairs(pairs), encoded, failures)
    on_gpu = device.startswith("cuda")
    if load_plugin(spec.kind, spec.name).CONCURRENT and not on_gpu:
        return _in_threads(tasks, work, workers or num_cores())
    return _in_batches(tasks, work, _PAIRS_PER_BATCH_ON_GPU if on_gpu else 1)


def _tasks(
    pairs: Iterable[Pair], encoded: LruCache[Placed[Any]], failures: dict[str, str]
) -> Iterator[Task]:
    for pair in pairs:
        placed = []
        for name in (pair.a, pair.b):
            if name in failures:
                break
            try:
                placed.append(encoded[name])
            except ImageError as error:
                failures[name] = str(error)
                break
        else:
            yield Task(pair, placed[0], placed[1])


def _in_batches(
    tasks: Iterator[Task], work: Callable[[Sequence[Task]], list[Result]], step: int
) -> Iterator[tuple[Pair, Result]]:
    while batch := list(islice(tasks, step)):
        for task, result in zip(batch, work(batch), strict=True):
            yield task.pair, result


def _in_threads(
    tasks: Iterator[Task], work: Callable[[Sequence[Task]], list[Result]], threads: int
) -> Iterator[tuple[Pair, Result]]:
    """Work on several pairs at once, each on one core.

    That is faster than all cores on one pair, by far so where other programs are running: no core
    waits for another after each small operation.
    """
    calls = ((task.pair, partial(_work_on_one, work, task)) for task in tasks)
    return run_in_threads(calls, threads, initializer=partial(torch.set_num_threads, 1))


def _work_on_one(work: Callable[[Sequence[Task]], list[Result]], task: Task) -> Result:
    return work([task])[0]
