"""Weights of MatchNet that need no training: random towers, and a metric that is a distance.

The first layer of the metric network holds the positive and the negative parts of the difference of
two descriptors, the second passes them on, and the third adds them up: two patches match where the
sum of absolute differences is small.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from sfm_match.models.matchnet import MatchNet, NetworkConfig, initialise

BOTTLENECK = 128
# The towers of seed 0 put SIFT's patches of different places this far apart, those of one place in
# two pictures less. Nothing else is special about these numbers.
_LARGEST_DISTANCE = 0.3
_STEEPNESS = 40.0

_folder = tempfile.TemporaryDirectory()


def random_network(bottleneck: int = 0, hidden: int = 1024, seed: int = 0) -> MatchNet:
    network = MatchNet(NetworkConfig(bottleneck, hidden))
    initialise(network, torch.Generator().manual_seed(seed))
    return network.eval()


@torch.no_grad()
def distance_network() -> MatchNet:
    network = random_network(BOTTLENECK, 2 * BOTTLENECK)
    first, second, last = (layer for layer in network.metric if isinstance(layer, nn.Linear))
    one = torch.eye(BOTTLENECK)
    first.weight.copy_(torch.cat([torch.cat([one, -one], 1), torch.cat([-one, one], 1)]))
    second.weight.copy_(torch.eye(2 * BOTTLENECK))
    last.weight.zero_()
    last.weight[1] = -_STEEPNESS
    last.bias[1] = _STEEPNESS * _LARGEST_DISTANCE
    return network


def write(network: MatchNet, path: Path) -> Path:
    save_file(network.state_dict(), path)
    return path


@cache
def distance_weights() -> Path:
    """Return a file of such weights; it lasts as long as this process."""
    return write(distance_network(), Path(_folder.name) / "distance.safetensors")
