"""pygmtools' solvers behind our call, against the library itself."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pygmtools
import pytest
import torch
from torch import Tensor

from sfm_match.geometry.keypoint_graphs import adjacency, delaunay_edges, full_edges
from sfm_match.models.pygm_config import CLASSICAL, Config
from sfm_match.models.pygm_solvers import (
    Graphs,
    affinity,
    hungarian,
    memory,
    network_from_state,
    num_features,
    solve,
    with_dustbins,
)

CHANNELS = 8
SMALL: dict[str, dict[str, Any]] = {
    "pca_gm": {"in_channel": CHANNELS, "hidden_channel": 6, "out_channel": 5, "num_layers": 3},
    "ipca_gm": {"in_channel": CHANNELS, "hidden_channel": 6, "out_channel": 5, "num_layers": 2},
    "cie": {
        "in_node_channel": CHANNELS,
        "in_edge_channel": 1,
        "hidden_channel": 6,
        "out_channel": 6,
        "num_layers": 2,
    },
    "ngm": {"gnn_channels": (4, 6), "sk_emb": 1},
}


def graphs(num: int, seed: int, num_graphs: int = 1) -> Graphs:
    generator = np.random.default_rng(seed)
    points = generator.uniform(0, 4, (num_graphs, num, 2))
    linked = np.stack([adjacency(delaunay_edges(p), num) for p in points])
    features = generator.normal(size=(num_graphs, num, CHANNELS))
    features /= np.linalg.norm(features, axis=2, keepdims=True)
    return Graphs(
        torch.from_numpy(features).float(),
        torch.from_numpy(points).float(),
        torch.from_numpy(points * 60).float(),
        torch.from_numpy(linked),
    )


def small_network(solver: str) -> torch.nn.Module:
    torch.manual_seed(0)
    network = pygmtools.utils.get_network(
        getattr(pygmtools, solver), backend="pytorch", pretrain=False, **SMALL[solver]
    )
    return network_from_state(solver, network.state_dict())


def direct_affinity(a: Graphs, b: Graphs, config: Config) -> Tensor:
    """Return the affinity as pygmtools' documentation builds it, edge by edge."""
    sides = []
    for side in (a, b):
        start, end = side.linked[0].nonzero().T
        edges = side.points[0][end] - side.points[0][start]
        sides.append((edges, torch.stack([start, end], dim=1)))
    gaussian = functools.partial(
        pygmtools.utils.gaussian_aff_fn, sigma=config.edge_sigma, backend="pytorch"
    )
    found = pygmtools.utils.build_aff_mat(
        a.features[0],
        *sides[0],
        b.features[0],
        *sides[1],
        *(None,) * 4,
        node_aff_fn=lambda f, g: (
            config.node_weight
            * pygmtools.utils.gaussian_aff_fn(f, g, config.node_sigma, backend="pytorch")
        ),
        edge_aff_fn=gaussian,
        backend="pytorch",
    )
    return torch.as_tensor(found)


@pytest.mark.parametrize("solver", [*CLASSICAL, "ngm"])
def test_solvers_of_the_affinity_give_what_pygmtools_gives(solver: str) -> None:
    a, b, config = graphs(7, 0), graphs(9, 1), Config(solver=solver)  # type: ignore[arg-type]
    network = small_network(solver) if solver == "ngm" else None
    K = direct_affinity(a, b, config)
    torch.testing.assert_close(affinity(a, b, config)[0], K, atol=1e-6, rtol=1e-5)
    given = {} if network is None else {"network": network}
    with torch.no_grad():
        expected = getattr(pygmtools, solver)(K, 7, 9, backend="pytorch", **given)
        found = solve(a, b, network, config)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("solver", ["pca_gm", "ipca_gm", "cie"])
def test_networks_on_keypoints_give_what_pygmtools_gives(solver: str) -> None:
    a, b, config = graphs(7, 0), graphs(9, 1), Config(solver=solver)  # type: ignore[arg-type]
    network = small_network(solver)
    inputs = [a.features, b.features, a.linked.float(), b.linked.float()]
    if solver == "cie":
        for side in (a, b):
            lengths = (side.places[:, None] - side.places[:, :, None]).norm(dim=3)
            inputs.append(torch.exp(-lengths / 256)[..., None])
    sizes = torch.tensor([7]), torch.tensor([9])
    with torch.no_grad():
        expected = getattr(pygmtools, solver)(*inputs, *sizes, network=network, backend="pytorch")
        found = solve(a, b, network, config)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert num_features(network) == CHANNELS


@pytest.mark.parametrize("solver", [*CLASSICAL, "ngm", "pca_gm", "ipca_gm", "cie"])
def test_a_batch_gives_what_its_pairs_give_alone(solver: str) -> None:
    config = Config(solver=solver)  # type: ignore[arg-type]
    network = None if solver in CLASSICAL else small_network(solver)
    a, b = graphs(6, 2, num_graphs=3), graphs(8, 3, num_graphs=3)
    with torch.no_grad():
        together = with_dustbins(solve(a, b, network, config), config)
        for i in range(3):
            one, other = (Graphs(*(part[i : i + 1] for part in side)) for side in (a, b))
            alone = with_dustbins(solve(one, other, network, config), config)[0]
            torch.testing.assert_close(together[i], alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("edges", ["vector", "length"])
@pytest.mark.parametrize("solver", CLASSICAL)
def test_without_noise_the_permutation_is_found_exactly(solver: str, edges: str) -> None:
    config = Config(solver=solver, edges=edges, edge_sigma=0.02)  # type: ignore[arg-type]
    for seed in range(5):
        a = graphs(12, seed)._replace(
            features=torch.ones(1, 12, 1),  # the geometry alone
            linked=torch.from_numpy(adjacency(full_edges(12), 12))[None],
        )
        order = torch.from_numpy(np.random.default_rng(seed).permutation(12))
        b = Graphs(a.features, a.points[:, order], a.places[:, order], a.linked)
        found = hungarian(solve(a, b, None, config)[0], 0.0)
        assert torch.equal(order[found[:, 1]], found[:, 0])
        assert len(found) == 12


def test_where_nothing_has_affinity_nothing_is_matched() -> None:
    a, b = graphs(4, 0, num_graphs=2), graphs(4, 1, num_graphs=2)
    unlinked = torch.zeros_like(a.linked)
    unlinked[1] = a.linked[1]
    a = a._replace(linked=unlinked)
    for solver in CLASSICAL:
        config = Config(solver=solver, node_weight=0.0)  # type: ignore[arg-type]
        scores = with_dustbins(solve(a, b, None, config), replace(config, dustbin=0.0))
        assert torch.isfinite(scores).all()
        assert (scores[0] == 0).all()
        assert scores[1].max() == 1
        assert len(hungarian(scores[0], 0.0)) == 0


def test_keypoints_without_a_partner_go_to_the_dustbin() -> None:
    config = Config(min_score=0.4)
    scores = torch.tensor([[[1.0, 0.0, 0.1], [0.1, 0.9, 0.0], [0.0, 0.1, 0.05]]])
    probabilities = with_dustbins(scores, config)[0]
    assert (probabilities.sum(dim=0) <= 1 + 1e-4).all()
    assert (probabilities.sum(dim=1) <= 1 + 1e-4).all()
    assert hungarian(probabilities, config.min_score).tolist() == [[0, 0], [1, 1]]
    everyone = with_dustbins(scores, replace(config, dustbin=0.0))[0]
    assert hungarian(everyone, 0.0).tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("solver", list(SMALL))
def test_weights_of_another_network_are_refused(solver: str) -> None:
    other = "ngm" if solver != "ngm" else "cie"
    state = small_network(other).state_dict()
    with pytest.raises(ValueError, match=f"these are no weights of {solver}"):
        network_from_state(solver, state)


def test_the_memory_of_an_affinity_grows_with_the_fourth_power() -> None:
    assert memory("rrwm", 100, 100) == 4 * 100**4
    assert memory("ngm", 50, 50) == 17 * 4 * 50**4
    assert memory("cie", 200, 200) == 2048 * 4 * 2 * 200**2
