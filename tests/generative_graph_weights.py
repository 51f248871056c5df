"""Weights of the generative graph matcher that need no training: nearly nearest neighbours.

A new network compares descriptors, corrected by neighbourhoods; unmatched is who has none alike.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch

from sfm_match.models.generative_graph import GenerativeGraph, NetworkConfig
from sfm_match.models.generative_graph_inputs import network_bytes

_folder = tempfile.TemporaryDirectory()


@cache
def untrained_weights(descriptor_dim: int = 128) -> Path:
    """Return a file of such weights; it lasts as long as this process."""
    torch.manual_seed(0)
    network = GenerativeGraph(NetworkConfig(descriptor_dim=descriptor_dim))
    with torch.no_grad():
        network.threshold.fill_(-8.0)
        network.weight.fill_(0.0)
    path = Path(_folder.name) / f"untrained{descriptor_dim}.safetensors"
    path.write_bytes(network_bytes(network))
    return path
