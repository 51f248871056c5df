"""MatchNet's metric network, factorised, against the plain network on concatenated descriptors.

    python -m tests.benchmarks.bench_matchnet [--keypoints N] [--candidates K] [--bottleneck B]

Two images of N keypoints each, every one with K candidates. Seconds are processor time on one
thread. The plain network sees the concatenated descriptors of each candidate, in both orders; for
all N x N pairs its time is that of a part of them, multiplied. Weights and descriptors are random:
neither time depends on them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sfm_match.models.descriptors import encode_descriptors
from sfm_match.models.matchnet import MatchNet, NetworkConfig, initialise
from sfm_match.models.matchnet_metric import match_odds, nearest_pairs, project, reduced

CANDIDATE_SIZE = 256  # the matcher's default
BLOCK_PAIRS = 1024
SAMPLE = 20_000


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
def main(num: int, candidates: int, bottleneck: int) -> None:
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--keypoints", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--bottleneck", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.keypoints, arguments.candidates, arguments.bottleneck)
