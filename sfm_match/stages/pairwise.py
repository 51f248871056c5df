"""Runs a component of two phases over pairs: each image is encoded once while it is at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import torch

from sfm_match.io.images import ImageError
from sfm_match.io.store import Store
from sfm_match.spec import Spec, load_plugin
from sfm_match.stages.executor import num_cores, run_in_threads
from sfm_match.stages.order import LruCache, order_pairs
from sfm_match.stages.views import Placed, Views
from sfm_match.types import Pair

Item = TypeVar("Item")

_PAIRS_PER_BATCH_ON_GPU = 16


class Task(NamedTuple):
    """A pair, and what the component made of its images."""

    pair: Pair
    a: Placed[Any]
    b: Placed[Any]


@dataclass
class PairsReport:
    """What a component did with pairs.

    Attributes:
        computed: pairs that were worked on now.
        reused: pairs whose result was there already.
        num_encoded: how often an image was encoded.
        num_cache_hits: how often its encoding was there already.
        failures: image name -> why it is left out.
    """

    computed: int = 0
    reused: int = 0
    num_encoded: int = 0
    num_cache_hits: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def fill_store(
    store: Store[Item],
    entries: Sequence[tuple[Pair, bytes]],
    spec: Spec,
    views: Views,
    work: Callable[[Any, Sequence[Task]], list[Item]],
    *,
    device: str,
    workers: int | None,
    cache_bytes: int,
    progress: Callable[[int], object] | None,
) -> PairsReport:
    """Let a component work on every pair that a store does not hold yet, and store the results.

    Each image is encoded once while the encoded images fit in the cache; the order of the pairs
    keeps it few times when they do not (see `order_pairs`). An image that cannot be used is
    reported, and its pairs are left out.

    Args:
        store: where the results go.
        entries: the pairs, each with the digest of what it is made from.
        spec: the component.
        views: gives what the component needs of an image.
        work: gives the component's results of some pairs, in their order.
        device: the torch device that the component runs on.
        workers: how many pairs are worked on at once on a CPU, where the plugin allows several;
            one for each core if None.
        cache_bytes: the bound of the cache of encoded images.
        progress: called with the number of pairs done since the last call.
    """
    todo = {pair: digest for pair, digest in entries if (pair, digest) not in store}
    report = PairsReport(reused=len(entries) - len(todo))
    if progress:
        progress(report.reused)
    if not todo:
        return report
    component = spec.build(device)

    def encode(name: str) -> Placed[Any]:
        view, placement = views(name)
        return Placed(component.encode(view), placement)

    encoded = LruCache[Placed[Any]](encode, cache_bytes)
    tasks = _tasks(order_pairs(list(todo)), encoded, report.failures)
    on_gpu = device.startswith("cuda")
    if load_plugin(spec.kind, spec.name).CONCURRENT and not on_gpu:
        done = _in_threads(tasks, partial(work, component), workers or num_cores())
    else:
        step = _PAIRS_PER_BATCH_ON_GPU if on_gpu else 1
        done = _in_batches(tasks, partial(work, component), step)
    with store.writer() as writer:
        for pair, item in done:
            writer.add(pair, todo[pair], item)
            report.computed += 1
            if progress:
                progress(1)
    report.num_encoded, report.num_cache_hits = encoded.num_computed, encoded.num_hits
    return report


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
    tasks: Iterator[Task], work: Callable[[Sequence[Task]], list[Item]], step: int
) -> Iterator[tuple[Pair, Item]]:
    while batch := list(islice(tasks, step)):
        for task, item in zip(batch, work(batch), strict=True):
            yield task.pair, item


def _in_threads(
    tasks: Iterator[Task], work: Callable[[Sequence[Task]], list[Item]], threads: int
) -> Iterator[tuple[Pair, Item]]:
    """Work on several pairs at once, each on one core.

    That is faster than all cores on one pair, by far so where other programs are running: no core
    waits for another after each small operation.
    """
    calls = ((task.pair, partial(_work_on_one, work, task)) for task in tasks)
    return run_in_threads(calls, threads, initializer=partial(torch.set_num_threads, 1))


def _work_on_one(work: Callable[[Sequence[Task]], list[Item]], task: Task) -> Item:
    return work([task])[0]
