"""LoFTR with each image encoded once, against the same network on every pair from scratch.

    python -m tests.benchmarks.bench_loftr coarse IMAGES   the small network, all pairs of IMAGES
    python -m tests.benchmarks.bench_loftr full [NUM]      the full network with random weights,
                                                           all pairs of NUM images of 640 x 480

Both run in a process of their own with one thread; then ours with two pairs at once, one thread
each, and with one pair at once on two threads.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from kornia.feature import LoFTR

from sfm_match import weights
from sfm_match.geometry.raster import to_grey
from sfm_match.io.images import read_image
from sfm_match.models.loftr_network import load_network, network_config
from sfm_match.models.loftr_tiles import resize_to_multiples
from sfm_match.spec import Spec
from sfm_match.stages.order import DEFAULT_CACHE_BYTES, LruCache, order_pairs
from sfm_match.types import Image, Pair, View
from tests.benchmarks.measure import cost_of, in_process, report
from tests.pictures import noise_picture

Images = dict[str, Image]


def random_weights(folder: Path) -> str:
    torch.manual_seed(0)
    torch.save(LoFTR(pretrained=None, config=network_config()).state_dict(), folder / "random.ckpt")
    return str(folder / "random.ckpt")


def pairs_of(images: Images) -> list[Pair]:
    return [Pair(a, b) for a, b in combinations(sorted(images), 2)]


def threshold_of(kind: str) -> float:
    # Random weights are sure of nothing; at 0 they give some thousand matches to refine.
    return 0.2 if kind == "coarse" else 0.0


def ours(kind: str, path: str, images: Images, workers: int) -> Iterator[int]:
    options = {"weights": path, "threshold": threshold_of(kind)}
    matcher: Any = Spec.parse("matchers", "loftr", options).build()
    encoded = LruCache[Any](
        lambda name: matcher.encode(View(images[name], None)), DEFAULT_CACHE_BYTES
    )
    tasks = ((encoded[pair.a], encoded[pair.b]) for pair in order_pairs(pairs_of(images)))

    def match(task: tuple[Any, Any]) -> int:
        return len(matcher.match([task])[0])

    if workers == 1:
        yield from map(match, tasks)
    else:
        with ThreadPoolExecutor(workers, initializer=lambda: torch.set_num_threads(1)) as pool:
            yield from pool.map(match, tasks)
    print(f"{encoded.num_computed} images encoded, {encoded.num_hits} hits", file=sys.stderr)


def from_scratch(kind: str, path: str, images: Images) -> Iterator[int]:
    """Run kornia's network on both images of each pair, in the order of the list."""
    network, _ = load_network(path, threshold=threshold_of(kind))
    stride = network.config["resolution"][0]

    def tensor(name: str) -> torch.Tensor:
        grey = resize_to_multiples(to_grey(images[name]), 1024, stride)
        return torch.from_numpy(grey)[None, None].float() / 255

    with torch.inference_mode():
        for pair in pairs_of(images):
            first, second = tensor(pair.a), tensor(pair.b)
            if kind == "full":
                found = network({"image0": first, "image1": second})
                yield len(found["confidence"])
                continue
            # kornia runs this network's fine stage whether it was trained or not: leave it out.
            maps = [network.extract_features(image)["coarse"] for image in (first, second)]
            tokens = [m.flatten(2).mT.contiguous() for m in maps]
            data: dict[str, Any] = {"stride_c": stride}
            data.update(hw0_c=maps[0].shape[2:], hw1_c=maps[1].shape[2:])
            network.coarse_matching(*network.loftr_coarse(*tokens), data)
            yield len(data["mconf"])


def run_one(kind: str, who: str, source: str) -> None:
    torch.set_num_threads(2 if who == "ours-2-threads" else 1)
    with tempfile.TemporaryDirectory() as folder:
        if kind == "coarse":
            path = str(weights.find("coarse-16"))
            images = {p.name: read_image(p).pixels for p in sorted(Path(source).iterdir())}
        else:
            path = random_weights(Path(folder))
            images = {f"{i:02d}": noise_picture(480, 640, seed=i) for i in range(int(source))}
        work: Callable[[], Iterator[int]] = lambda: from_scratch(kind, path, images)  # noqa: E731
        if who != "scratch":
            workers = 2 if who == "ours-2-pairs" else 1
            work = lambda: ours(kind, path, images, workers)  # noqa: E731
        start = time.perf_counter()
        cost = cost_of(lambda: print(sum(work()), "matches", file=sys.stderr))
        print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr)
    report(cost)


def main(kind: str, source: str) -> None:
    costs = {}
    for name in ("scratch", "ours", "ours-2-pairs", "ours-2-threads"):
        cost = costs[name] = in_process("tests.benchmarks.bench_loftr", "--one", kind, name, source)
        print(
            f"{name:15} {cost.seconds:7.1f} s wall {cost.cpu_seconds:7.1f} s CPU "
            f"{cost.peak_mb:6.0f} MB peak; {costs['scratch'].cpu_seconds / cost.cpu_seconds:.2f} "
            f"times less CPU than from scratch, {costs['scratch'].seconds / cost.seconds:.2f} wall",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        run_one(*sys.argv[2:])
    else:
        main(sys.argv[1], *(sys.argv[2:] or ["10"]))
