"""Weights of the generative graph matcher that need no training: mutual nearest neighbours."""

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
    path = Path(_folder.name) / f"untrained{descriptor_dim}.safetensors"
    path.write_bytes(network_bytes(network))
    return path
