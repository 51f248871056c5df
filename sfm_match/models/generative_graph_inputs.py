"""Keypoints as the graphs that the generative graph matcher takes, and its files of weights."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from sfm_match.geometry.keypoint_graphs import delaunay_edges, knn_edges
from sfm_match.models.generative_graph import NUM_SHAPE, GenerativeGraph, Graph, NetworkConfig
from sfm_match.types import Features
from sfm_match.weights import WeightsError

EdgeKind = Literal["delaunay", "knn"]

_MARK = "generative_graph"


@dataclass(frozen=True)
class Nodes:
    """The keypoints of one image and their edges.

    Attributes:
        descriptors: float32 (N, D), of length 1.
        points: float32 (N, 2), centred, with a mean square length of 1.
        shapes: float32 (N, 3), as in `Graph`.
        edges: int64 (E, 2), each once.
    """

    descriptors: Tensor
    points: Tensor
    shapes: Tensor
    edges: Tensor

    def __len__(self) -> int:
        return len(self.points)


def nodes_of(features: Features, kind: EdgeKind, num_neighbours: int, device: str) -> Nodes:
    """Make nodes of features with finite descriptors.

    Coinciding keypoints and those on a line are allowed; see `geometry.keypoint_graphs`.

    Args:
        features: of one image.
        kind: which edges.
        num_neighbours: of each keypoint, for `knn`.
        device: of the result.
    """
    keypoints = features.keypoints.astype(np.float64)
    centred = keypoints - keypoints.mean(axis=0) if len(keypoints) else keypoints
    spread = math.sqrt(float(np.square(centred).sum(axis=1).mean())) if len(keypoints) else 1.0
    spread = spread if spread > 0 else 1.0
    shapes = np.zeros((len(features), NUM_SHAPE), np.float32)
    if features.scales is not None:
        shapes[:, 0] = np.log(np.maximum(features.scales, 1e-3) / spread)
    if features.orientations is not None:
        shapes[:, 1], shapes[:, 2] = np.cos(features.orientations), np.sin(features.orientations)
    if kind == "delaunay":
        edges = delaunay_edges(keypoints)
    else:
        edges = knn_edges(keypoints, num_neighbours)
    descriptors = torch.from_numpy(features.descriptors).float()
    return Nodes(
        torch.nn.functional.normalize(descriptors, dim=1).to(device),
        torch.from_numpy((centred / spread).astype(np.float32)).to(device),
        torch.from_numpy(shapes).to(device),
        torch.from_numpy(edges).to(device),
    )


def batch_of(graphs: Sequence[Nodes]) -> Graph:
    """Return a batch of graphs of equal size.

    Raises:
        ValueError: their sizes differ.
    """
    sizes = {len(graph) for graph in graphs}
    if len(sizes) != 1:
        raise ValueError(f"the graphs of a batch must be of one size, got {sorted(sizes)}")
    return Graph(
        torch.stack([graph.descriptors for graph in graphs]),
        torch.stack([graph.points for graph in graphs]),
        torch.stack([graph.shapes for graph in graphs]),
        torch.stack([_adjacency(graph) for graph in graphs]),
    )


def _adjacency(graph: Nodes) -> Tensor:
    """Return the row-normalised adjacency, (N, N)."""
    matrix = graph.points.new_zeros(len(graph), len(graph))
    i, j = graph.edges.T
    matrix[i, j] = 1
    matrix[j, i] = 1
    return matrix / matrix.sum(dim=1, keepdim=True).clamp_min(1)


def network_bytes(network: GenerativeGraph, half: bool = False) -> bytes:
    """Return a network as the bytes of a safetensors file, its structure in the metadata.

    Args:
        network: the network.
        half: float16, half the size.
    """
    state = {name: value.half() if half else value for name, value in _state(network).items()}
    return safetensors.torch.save(state, metadata(network))


def metadata(network: GenerativeGraph) -> dict[str, str]:
    """Return what a file of weights says of the network's structure."""
    return {_MARK: json.dumps(dataclasses.asdict(network.config), sort_keys=True)}


def _state(network: GenerativeGraph) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def load_network(path: str) -> GenerativeGraph:
    """Return the network of a file, ready to match.

    Args:
        path: a safetensors file as `network_bytes` makes it, or one of torch.save with a dict of
            `config`, a dict of `NetworkConfig`, and `state`, a state_dict. Nothing but tensors and
            numbers is unpickled.

    Raises:
        WeightsError: it is no such file, or does not fit the network that it describes.
    """
    config, state = _read(path)
    try:
        network = GenerativeGraph(TypeAdapter(NetworkConfig).validate_python(config))
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except (ValidationError, RuntimeError) as error:
        raise WeightsError(f"{path}: not weights of generative_graph: {error}") from error
    return network.eval()


def _read(path: str) -> tuple[object, dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            config = (file.metadata() or {}).get(_MARK)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError:
        return _read_pickled(path)
    if config is None:
        raise WeightsError(f"{path}: not weights of generative_graph: its metadata has no {_MARK}")
    return json.loads(config), state


def _read_pickled(path: str) -> tuple[object, dict[str, Tensor]]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        safetensors.SafetensorError,
    ) as error:
        reason = "".join(str(error).splitlines()[:1]) or "it ends too early"
        raise WeightsError(f"{path}: not weights of generative_graph: {reason}") from error
    if not isinstance(found, dict) or not {"config", "state"} <= set(found):
        raise WeightsError(f"{path}: not weights of generative_graph: it has no config and state")
    return found["config"], found["state"]
