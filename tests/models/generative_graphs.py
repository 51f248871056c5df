"""Small generative graph networks and graphs of random keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfm_match.models.generative_graph import GenerativeGraph, Graph, NetworkConfig
from sfm_match.models.generative_graph_inputs import batch_of, nodes_of
from sfm_match.types import Features

DIM = 16


def network(seed: int = 0, **options: Any) -> GenerativeGraph:
    """Return a network of 16 channels whose every part has something to say."""
    torch.manual_seed(seed)
    made = GenerativeGraph(
        NetworkConfig(
            **{"descriptor_dim": DIM, "channels": 16, "heads": 2, "num_queries": 4} | options
        )
    )
    torch.nn.init.normal_(made.to_query.weight, std=0.2)
    torch.nn.init.constant_(made.weight, 1.0)
    for name, parameter in made.consensus.named_parameters():
        if name.endswith("out.weight"):
            torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


def features(num: int, seed: int = 0, dim: int = DIM) -> Features:
    """Return random keypoints, of random scale and orientation."""
    rng = np.random.default_rng(seed)
    return Features(
        keypoints=rng.uniform(0, 400, (num, 2)).astype(np.float32),
        scores=rng.random(num).astype(np.float32),
        descriptors=rng.normal(size=(num, dim)).astype(np.float32),
        image_size=np.array([400, 400], np.int32),
        scales=rng.uniform(1, 9, num).astype(np.float32),
        orientations=rng.uniform(-3, 3, num).astype(np.float32),
    )


def graph(num: int, seed: int = 0) -> Graph:
    return batch_of([nodes_of(features(num, seed), "delaunay", 8, "cpu")])


def permuted(graph: Graph, order: Tensor) -> Graph:
    shuffled = Graph(*(part[:, order] for part in graph))
    return shuffled._replace(adjacency=shuffled.adjacency[:, :, order])
