"""MatchNet's time, and what its matches are worth.

    python -m tests.benchmarks.bench_matchnet time [--keypoints N] [--candidates K] [--bottleneck B]
    python -m tests.benchmarks.bench_matchnet scene SCENE [--weights FILE] [--keypoints N]
        [--max-angle DEGREES]

`time` compares the metric network, factorised, with the plain one on concatenated descriptors: two
images of N keypoints each, every one with K candidates. Seconds are processor time on one thread.
The plain network sees the concatenated descriptors of each candidate, in both orders; for all N x N
pairs its time is that of a part of them, multiplied. Weights and descriptors are random: neither
time depends on them.

`scene` compares it, at several least probabilities, with SIFT's own descriptors at the same
keypoints, as `bench_graph` does: SCENE is a folder with `images` and `gt`, a COLMAP model. Pairs of
views that differ by more than `--max-angle` are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfm_match.io.images import read_image
from sfm_match.models.descriptors import encode_descriptors
from sfm_match.models.matchnet import MatchNet, NetworkConfig, initialise
from sfm_match.models.matchnet_metric import match_odds, nearest_pairs, project, reduced
from sfm_match.spec import Spec
from sfm_match.types import Features, Matches, View
from tests.benchmarks.bench_graph import Scene, show

CANDIDATE_SIZE = 256  # the matcher's default
BLOCK_PAIRS = 1024
SAMPLE = 20_000
SIFT_MATCHERS = {
    "mutual NN": ("nearest", {}),
    "ratio 0.9": ("nearest", {"ratio": 0.9}),
    "ratio 0.75": ("nearest", {"ratio": 0.75}),
}
PROBABILITIES = (0.0, 0.5, 0.9, 0.97, 0.99, 0.995, 0.999)


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def plain(network: MatchNet, a: Tensor, b: Tensor, pairs: Tensor) -> Tensor:
    """Return the probabilities (K,) of pairs, both orders averaged."""
    found = []
    for block in torch.split(pairs, BLOCK_PAIRS):
        left, right = a[block[:, 0]], b[block[:, 1]]
        both = torch.cat([torch.cat([left, right], dim=1), torch.cat([right, left], dim=1)])
        found.append(torch.softmax(network.metric(both), dim=1)[:, 1].view(2, -1).mean(dim=0))
    return torch.cat(found)


@torch.inference_mode()
def times(num: int, candidates: int, bottleneck: int) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    network = MatchNet(NetworkConfig(bottleneck)).eval()
    initialise(network, generator)
    size = network.config.descriptor_size
    a, b = (0.005 * torch.randn(num, size, generator=generator).relu() for _ in range(2))

    encoding, left = timed(lambda: project(network.metric, a).first)
    assert left.shape == (num, network.config.hidden)
    first, second = project(network.metric, a), project(network.metric, b)
    small = [encode_descriptors(reduced(side, CANDIDATE_SIZE)) for side in (a, b)]
    searching, near = timed(lambda: nearest_pairs(small[0], small[1], candidates))
    # So many for each keypoint of the first image, as if all were of one side.
    columns = torch.randint(num, (num, candidates), generator=generator)
    rows = torch.arange(num)[:, None].expand_as(columns)
    pairs = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    match_odds(network.metric, first, second, pairs[:BLOCK_PAIRS])
    factorised, odds = timed(lambda: match_odds(network.metric, first, second, pairs))
    plainly, probabilities = timed(lambda: plain(network, a, b, pairs[:SAMPLE]))
    plainly *= len(pairs) / len(pairs[:SAMPLE])
    every = plainly * num / candidates
    away = float((odds.sigmoid()[:SAMPLE] - probabilities).abs().max())

    print(f"{num} x {num} keypoints, {candidates} candidates each, descriptors of {size}")
    print(f"| once per image: first layer | {encoding:.2f} s |")
    print(f"| per pair: candidates (both directions: {len(near)} pairs) | {searching:.2f} s |")
    print(f"| per pair: factorised on {len(pairs)} pairs | {factorised:.2f} s |")
    print(f"| per pair: plain on the same | {plainly:.2f} s, {plainly / factorised:.1f} times |")
    print(
        f"| per pair: plain on all | {every:.0f} s, {every / (searching + factorised):.0f} times |"
    )
    print(f"largest difference of probabilities: {away:.1e}")


def scene(folder: Path, weights: str, keypoints: int, max_angle: float) -> None:
    torch.set_num_threads(1)
    truth = Scene.load(folder)
    pairs = truth.pairs(max_angle)
    detector = {"name": "sift", "max_keypoints": keypoints}
    extractors = {
        "sift": Spec.parse("extractors", "sift", {"max_keypoints": keypoints}),
        "matchnet": Spec.parse(
            "extractors", "matchnet", {"weights": weights, "detector": detector}
        ),
    }
    features = {name: extract(truth, folder, spec) for name, spec in extractors.items()}
    rows: dict[str, list[tuple[float, ...]]] = {}
    for title, (name, options) in SIFT_MATCHERS.items():
        spec = Spec.parse("matchers", name, options, (extractors["sift"],))
        for pair, matches, spent in matched(spec, features["sift"], pairs):
            judged = truth.judge(*pair, features["sift"], matches)
            rows.setdefault(title, []).append((*judged, spent))
    spec = Spec.parse("matchers", "matchnet", {"min_probability": 0}, (extractors["matchnet"],))
    for pair, matches, spent in matched(spec, features["matchnet"], pairs):
        for least in PROBABILITIES:
            keep = matches.scores >= least
            kept = Matches(matches.indices[keep], matches.scores[keep])
            judged = truth.judge(*pair, features["matchnet"], kept)
            rows.setdefault(f"matchnet {least:g}", []).append((*judged, spent))
    results = {title: np.array(found) for title, found in rows.items()}
    show(f"{folder}, {keypoints} keypoints", results, np.ones(len(pairs), np.bool_))


def extract(truth: Scene, folder: Path, spec: Spec) -> dict[str, Features]:
    extractor = spec.build()
    start = time.process_time()
    found = {name: extractor(read_image(folder / "images" / name).pixels) for name in truth.names}
    spent = (time.process_time() - start) / len(found)
    num = np.mean([len(features) for features in found.values()])
    print(f"{spec.name}: {num:.0f} keypoints in {spent:.2f} s an image")
    return found


def matched(
    spec: Spec, features: dict[str, Features], pairs: list[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], Matches, float]]:
    """Yield each pair with its matches and milliseconds."""
    matcher = spec.build()
    encoded = {name: matcher.encode(View(None, found)) for name, found in features.items()}
    for a, b in pairs:
        start = time.process_time()
        (matches,) = matcher.match([(encoded[a], encoded[b])])
        yield (a, b), matches, (time.process_time() - start) * 1e3


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    of_time = commands.add_parser("time")
    of_time.add_argument("--keypoints", type=int, default=2000)
    of_time.add_argument("--candidates", type=int, default=10)
    of_time.add_argument("--bottleneck", type=int, default=0)
    of_scene = commands.add_parser("scene")
    of_scene.add_argument("folder", type=Path)
    of_scene.add_argument("--weights", default="matchnet-open")
    of_scene.add_argument("--keypoints", type=int, default=1000)
    of_scene.add_argument("--max-angle", type=float, default=60.0, metavar="DEGREES")
    given = parser.parse_args()
    if given.command == "time":
        times(given.keypoints, given.candidates, given.bottleneck)
    else:
        scene(given.folder, given.weights, given.keypoints, given.max_angle)
