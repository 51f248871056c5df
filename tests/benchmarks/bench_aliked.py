"""ALIKED against kornia's own, in the same run, on the same images and as many threads.

    python -m tests.benchmarks.bench_aliked IMAGES [--rounds N]

One image on one thread, and all of them: by kornia with all threads for each image, by ours in the
same way, and by ours with an image on each core, which is how the stage runs it. Wall seconds and
processor seconds of the best round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from kornia.feature.aliked.aliked import DKD

from sfm_match import Spec, weights
from sfm_match.geometry.raster import shrink
from sfm_match.models.aliked import load_network
from sfm_match.stages.executor import num_cores
from sfm_match.types import Image


def best(work: Callable[[], object], rounds: int) -> str:
    work()
    costs = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        costs.append((time.perf_counter() - wall, time.process_time() - cpu))
    return "{:6.2f} s wall, {:6.2f} s processor".format(*map(min, zip(*costs, strict=True)))


def kornias(max_keypoints: int, min_score: float) -> Callable[[Image], Any]:
    network: Any = load_network(weights.find("aliked-n16"))
    network.dkd = DKD(radius=2, scores_th=min_score, n_limit=max_keypoints)

    @torch.inference_mode()
    def extract(image: Image) -> Any:
        values = torch.from_numpy(shrink(image, 1024)).movedim(2, 0)[None].float() / 255
        return network(values)

    return extract


def one_by_one(extract: Callable[[Image], object], images: list[Image]) -> None:
    for image in images:
        extract(image)


def in_threads(extract: Callable[[Image], object], images: list[Image], threads: int) -> None:
    with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
        list(pool.map(extract, images))


def main(folder: Path, rounds: int) -> None:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    images = [np.asarray(cv2.imread(str(path)))[:, :, ::-1].copy() for path in files]
    spec = Spec.parse("extractors", "aliked")
    extractor = spec.build()
    plain = kornias(spec.config["max_keypoints"], spec.config["min_score"])
    cores = num_cores()
    found = [len(extractor(image)) for image in images]
    print(f"{len(images)} images, {np.mean(found):.0f} keypoints each, {cores} cores")
    torch.set_num_threads(1)
    for name, extract in (("kornia", plain), ("ours", extractor)):
        print(f"one image, one thread, {name:7}", best(partial(extract, images[0]), rounds))
    torch.set_num_threads(cores)
    for name, extract in (("kornia", plain), ("ours", extractor)):
        work = best(partial(one_by_one, extract, images), rounds)
        print(f"all, each on all cores, {name:7}", work)
    print(
        "all, one on each core, ours    ",
        best(partial(in_threads, extractor, images, cores), rounds),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.rounds)
