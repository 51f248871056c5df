"""pygmtools' solvers behind one call: batches of pairs of graphs in, matching scores out.

Wang et al., "Pygmtools: A Python Graph Matching Toolkit", JMLR 2024. What the library would
download is never asked for: networks are built without weights, and take those of a file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sfm_match.models.pygm_config import CLASSICAL, Config

_BACKEND = "pytorch"
_CROSS_ITERATIONS = 3  # IPCA-GM's, as published
_LENGTH_UNIT = 256.0
_BYTES = 4
# What the published networks keep of every pair: of matches, of keypoints.
_NGM_CHANNELS = 17
_CIE_CHANNELS = 2048


class Graphs(NamedTuple):
    """B graphs of n keypoints each, of one image.

    Attributes:
        features: float32 (B, n, D), what keypoints are compared by.
        points: float32 (B, n, 2), in units that are comparable between the two images.
        places: float32 (B, n, 2), in pixels of the image squeezed into a square of 256 pixels.
        linked: bool (B, n, n), symmetric, which keypoints have an edge.
    """

    features: Tensor
    points: Tensor
    places: Tensor
    linked: Tensor


def memory(solver: str, num0: int, num1: int) -> int:
    """Return the bytes that a solver takes for two graphs of so many keypoints, at least."""
    if solver in CLASSICAL:
        return _BYTES * (num0 * num1) ** 2
    if solver == "ngm":
        return _BYTES * _NGM_CHANNELS * (num0 * num1) ** 2
    channels = _CIE_CHANNELS if solver == "cie" else 1
    return _BYTES * channels * (num0**2 + num1**2)


def affinity(a: Graphs, b: Graphs, config: Config) -> Tensor:
    """Return the affinity of all pairs of matches, (B, n0 n1, n0 n1), n0 running fastest.

    Matches of keypoints are on the diagonal, matches of edges off it.
    """
    import pygmtools

    edges0, ends0, num_edges0 = _edges(a, config)
    edges1, ends1, num_edges1 = _edges(b, config)
    return torch.as_tensor(
        pygmtools.utils.build_aff_mat(
            a.features,
            edges0,
            ends0,
            b.features,
            edges1,
            ends1,
            _sizes(a),
            num_edges0,
            _sizes(b),
            num_edges1,
            node_aff_fn=functools.partial(_node_affinity, config=config),
            edge_aff_fn=functools.partial(
                pygmtools.utils.gaussian_aff_fn, sigma=config.edge_sigma, backend=_BACKEND
            ),
            backend=_BACKEND,
        )
    )


def _node_affinity(a: Tensor, b: Tensor, config: Config) -> Tensor:
    products = torch.bmm(a, b.transpose(1, 2))
    if config.node_sigma == 0:
        return config.node_weight * products
    squares = a.square().sum(dim=2)[:, :, None] + b.square().sum(dim=2)[:, None] - 2 * products
    return config.node_weight * torch.exp(-squares.clamp(min=0) / config.node_sigma)


def _sizes(graphs: Graphs) -> Tensor:
    num_graphs, num = graphs.features.shape[:2]
    return torch.full((num_graphs,), num, device=graphs.features.device)


def _edges(graphs: Graphs, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Return what edges are compared by (B, E, F), their ends (B, E, 2), and how many count (B,).

    Every edge is there in both directions; the rest of a graph with fewer edges is padding.
    """
    counts = graphs.linked.sum(dim=(1, 2))
    which, start, end = graphs.linked.nonzero().unbind(1)
    num_graphs, most = len(counts), int(counts.max())
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(which), device=which.device) - first[which]
    ends = torch.zeros(num_graphs, most, 2, dtype=torch.long, device=which.device)
    ends[which, rank] = torch.stack([start, end], dim=1)
    at = functools.partial(torch.take_along_dim, graphs.points, dim=1)
    vectors = at(indices=ends[:, :, 1:]) - at(indices=ends[:, :, :1])
    if config.edges == "length":
        return vectors.norm(dim=2, keepdim=True), ends, counts
    return vectors, ends, counts


def solve(a: Graphs, b: Graphs, network: torch.nn.Module | None, config: Config) -> Tensor:
    """Return how well each keypoint of one graph matches each of the other, (B, n0, n1).

    Args:
        a: the graphs of the first image.
        b: those of the second image.
        network: of the solver that the config names, where it is one.
        config: the options.
    """
    import pygmtools

    sizes = _sizes(a), _sizes(b)
    call = functools.partial(getattr(pygmtools, config.solver), backend=_BACKEND)
    if config.solver in (*CLASSICAL, "ngm"):
        given: dict[str, Any] = {} if network is None else {"network": network}
        pairs = affinity(a, b, config)
        scores = pairs.new_zeros(len(pairs), a.features.shape[1], b.features.shape[1])
        # Where nothing has any affinity, the solvers would divide by zero.
        alive = pairs.flatten(1).any(dim=1)
        if alive.any():
            scores[alive] = call(pairs[alive], *(size[alive] for size in sizes), **given)
        return scores
    inputs = [a.features, b.features, a.linked.float(), b.linked.float()]
    if config.solver == "cie":
        inputs += [_closeness(a.places), _closeness(b.places)]
    given = {"cross_iter": _CROSS_ITERATIONS} if config.solver == "ipca_gm" else {}
    return torch.as_tensor(call(*inputs, *sizes, network=network, **given))


def _closeness(places: Tensor) -> Tensor:
    """Return CIE's features of edges (B, n, n, 1), exp(-length / 256)."""
    return torch.exp(-torch.cdist(places, places) / _LENGTH_UNIT)[..., None]


def with_dustbins(scores: Tensor, config: Config) -> Tensor:
    """Return the probabilities of matches, (B, n0, n1), with a dustbin on either side.

    Sinkhorn's iterations on the scores over the best of each graph; without a dustbin the scores
    over the best are returned.
    """
    import pygmtools

    best = scores.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
    scores = scores / best
    if config.dustbin == 0:
        return scores
    num_graphs, num0, num1 = scores.shape
    found = pygmtools.sinkhorn(
        scores,
        unmatch1=scores.new_full((num_graphs, num0), config.dustbin),
        unmatch2=scores.new_full((num_graphs, num1), config.dustbin),
        max_iter=config.sinkhorn_iterations,
        tau=config.temperature,
        batched_operation=True,
        backend=_BACKEND,
    )
    return torch.as_tensor(found)


def hungarian(scores: Tensor, min_score: float) -> Tensor:
    """Return the one-to-one matches with the highest sum of scores (n0, n1): int64 (M, 2).

    A match has to exceed `min_score`: half of it is what either of its keypoints has unmatched.
    """
    import pygmtools

    unmatched = [scores.new_full((num,), min_score / 2) for num in scores.shape]
    found = torch.as_tensor(pygmtools.hungarian(scores, None, None, *unmatched, backend=_BACKEND))
    return ((found > 0) & (scores > min_score)).nonzero()


# --- networks -------------------------------------------------------------------------------------


def network_from_state(solver: str, state: Mapping[str, Tensor]) -> torch.nn.Module:
    """Build pygmtools' network of a solver from published weights, of whatever width and depth.

    Raises:
        ValueError: the weights are not of this solver.
    """
    import pygmtools

    try:
        sizes = _NETWORK_SIZES[solver](state)
        network: torch.nn.Module = pygmtools.utils.get_network(
            getattr(pygmtools, solver), backend=_BACKEND, pretrain=False, **sizes
        )
        network.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"these are no weights of {solver}: {error}") from None
    return network.eval()


def num_features(network: torch.nn.Module) -> int:
    """Return how many numbers a keypoint's features must have for PCA-GM, IPCA-GM or CIE."""
    first: Any = network.get_submodule("gnn_layer_0.gconv")
    return int(next(first.parameters()).shape[1])


def _depth(state: Mapping[str, Tensor]) -> int:
    layers = {int(found[1]) for name in state if (found := re.match(r"gnn_layer_(\d+)\.", name))}
    return len(layers)


def _ngm_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    depth = _depth(state)
    widths = tuple(len(state[f"gnn_layer_{i}.n_func.2.weight"]) for i in range(depth))
    return {"gnn_channels": widths, "sk_emb": state["classifier.weight"].shape[1] - widths[-1]}


def _pca_gm_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    hidden, channels = state["gnn_layer_0.gconv.a_fc.weight"].shape
    depth = _depth(state)
    return {
        "in_channel": channels,
        "hidden_channel": hidden,
        "out_channel": len(state[f"affinity_{depth - 1}.A"]),
        "num_layers": depth,
    }


def _ipca_gm_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return _pca_gm_sizes(state) | {"cross_iter": _CROSS_ITERATIONS}


def _cie_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    hidden, channels = state["gnn_layer_0.gconv.node_fc.weight"].shape
    depth = _depth(state)
    return {
        "in_node_channel": channels,
        "in_edge_channel": state["gnn_layer_0.gconv.edge_fc.weight"].shape[1],
        "hidden_channel": hidden,
        "out_channel": len(state[f"affinity_{depth - 1}.A"]),
        "num_layers": depth,
    }


_NETWORK_SIZES = {
    "ngm": _ngm_sizes,
    "pca_gm": _pca_gm_sizes,
    "ipca_gm": _ipca_gm_sizes,
    "cie": _cie_sizes,
}
