"""Train the generative graph matcher for a short while on rendered rooms, for `bench_graph`.

    python -m tests.benchmarks.train_generative_graph OUT.safetensors [--steps N] [--rooms N]

SIFT features of walks through random rooms, hung with those of scikit-image's photographs that the
gallery does not use. Then: python -m tests.benchmarks.bench_graph SCENE sift1000 --generative OUT
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycolmap
import skimage
import torch

from sfm_match.io.images import read_image
from sfm_match.models.generative_graph import GenerativeGraph, NetworkConfig
from sfm_match.models.generative_graph_inputs import network_bytes
from sfm_match.spec import Spec
from sfm_match.synthetic.lighting import illuminate
from sfm_match.synthetic.rooms import random_room, random_walk, room_size
from sfm_match.synthetic.textures import painting
from sfm_match.training.graph_pairs import (
    GraphPair,
    limited_pair,
    moved_pair,
    rendered_pair,
    rendered_view,
)
from sfm_match.training.graph_training import (
    Batch,
    Trainer,
    TrainingConfig,
    evaluate,
    make_batch,
    train,
)
from sfm_match.types import Extractor, Image

PHOTOGRAPHS = (
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "gravel.png",
    "microaneurysms.png",
    "retina.jpg",
    "rocket.jpg",
)
SIZE = (720, 540)
VIEWS, FARTHEST, FEWEST_MATCHES = 5, 3, 60
NUM_KEYPOINTS, DROP = 800, 0.15


def photographs() -> list[Image]:
    folder = Path(skimage.__file__).parent / "data"
    return [read_image(folder / name).pixels for name in PHOTOGRAPHS]


def walk(rng: np.random.Generator, pictures: list[Image], extractor: Extractor) -> list[GraphPair]:
    """Return the pairs of a walk through one room, up to three steps apart."""
    own = [painting(rng, (240, 320)) for _ in range(6)]
    room = random_room(rng, pictures + own, texels_per_metre=140, num_boxes=10, num_pictures=12)
    lit = illuminate(room, spacing=0.2, shadow_samples=4, ambient_samples=8)
    focal = float(rng.uniform(0.7, 1.1)) * SIZE[0]
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", focal, *SIZE)
    poses = random_walk(rng, room_size(room), VIEWS, step=0.7, turn=14.0)
    views = [rendered_view(rng, lit, camera, pose, extractor) for pose in poses]
    pairs = [
        rendered_pair(views[i], views[j])
        for i, j in itertools.combinations(range(VIEWS), 2)
        if j - i <= FARTHEST
    ]
    return [pair for pair in pairs if (pair.partners0 >= 0).sum() >= FEWEST_MATCHES]


def batches(
    rng: np.random.Generator, pairs: list[GraphPair], config: TrainingConfig
) -> Iterator[Batch]:
    while True:
        pair = pairs[int(rng.integers(len(pairs)))]
        limited = limited_pair(rng, pair, NUM_KEYPOINTS, DROP)
        if limited is not None:
            yield make_batch([moved_pair(rng, limited)], config)


def main(out: Path, steps: int, rooms: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng, pictures = np.random.default_rng(11), photographs()
    extractor = Spec.parse("extractors", "sift", {"max_keypoints": 2500}).build()
    pairs = [pair for _ in range(rooms) for pair in walk(rng, pictures, extractor)]
    config = TrainingConfig(steps=steps, learning_rate=2e-3)
    unseen_rng = np.random.default_rng(99)
    unseen = list(
        itertools.islice(batches(unseen_rng, walk(unseen_rng, pictures, extractor), config), 10)
    )
    trainer = Trainer(GenerativeGraph(NetworkConfig()), config)
    start = time.process_time()
    for step in train(trainer, batches(rng, pairs, config)):
        if step.number % 50 == 0 or step.number == steps - 1:
            found = evaluate(trainer.network, unseen, config)
            spent = time.process_time() - start
            print(
                f"{step.number} ({spent:.0f} s): loss {step.loss:.3f}; unseen {found}", flush=True
            )
            out.write_bytes(network_bytes(trainer.network))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=260)
    parser.add_argument("--rooms", type=int, default=24)
    arguments = parser.parse_args()
    main(arguments.out, arguments.steps, arguments.rooms)
