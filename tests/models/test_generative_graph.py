from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from sfm_match.models.generative_graph import GenerativeGraph, Graph, NetworkConfig, dual_softmax
from sfm_match.models.generative_graph_consensus import residuals
from sfm_match.models.generative_graph_inputs import batch_of, load_network, network_bytes, nodes_of
from sfm_match.models.generative_graph_layers import GraphConvolution, mean_pairwise_cosine
from sfm_match.models.generative_graph_losses import UNMATCHED, votes_likelihood
from sfm_match.models.generative_graph_solvers import mutual_partners
from sfm_match.models.generative_graph_super import (
    attach,
    compatibility,
    kept_partners,
    match_super_nodes,
)
from sfm_match.models.graph_matching_geometry import Prior
from sfm_match.weights import WeightsError
from tests.models.generative_graphs import DIM, features, graph, network, permuted

VARIANTS: list[dict[str, Any]] = [
    {},
    {"adjacency": "learned"},
    {"adjacency": "both", "consensus": 0},
    {"super_nodes": 5},
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("options", VARIANTS)
@torch.no_grad()
def test_permuting_nodes_permutes_the_similarity(options: dict[str, Any]) -> None:
    net, a, b = network(**options), graph(30, 1), graph(40, 2)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    plain, other = net(a, b).similarity, net(permuted(a, order), b).similarity
    torch.testing.assert_close(other.nodes, plain.nodes[:, order], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(other.unmatched0, plain.unmatched0[:, order], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(other.unmatched1, plain.unmatched1, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(other.queries, plain.queries, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("options", VARIANTS)
@torch.no_grad()
def test_swapping_the_graphs_swaps_the_similarity(options: dict[str, Any]) -> None:
    net, a, b = network(**options), graph(30, 1), graph(40, 2)
    there, back = net(a, b).similarity, net(b, a).similarity
    torch.testing.assert_close(back.nodes.mT, there.nodes, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(back.unmatched0, there.unmatched1, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(back.queries.mT, there.queries, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_pairs_of_a_batch_are_matched_as_if_alone() -> None:
    net = network(super_nodes=3)
    sides = [
        [nodes_of(features(20, seed), "knn", 4, "cpu") for seed in s] for s in ((0, 1), (2, 3))
    ]
    together = net(batch_of(sides[0]), batch_of(sides[1])).similarity
    for i in range(2):
        alone = net(batch_of([sides[0][i]]), batch_of([sides[1][i]])).similarity
        torch.testing.assert_close(together.nodes[i], alone.nodes[0], atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match=r"must be of one size, got \[20, 21\]"):
        batch_of([sides[0][0], nodes_of(features(21), "knn", 4, "cpu")])


@pytest.mark.parametrize("options", VARIANTS)
def test_every_weight_has_a_gradient(options: dict[str, Any]) -> None:
    net = network(**options).train()
    completed = net(graph(20, 1), graph(25, 2))
    torch.stack([part.square().mean() for part in completed.similarity]).sum().backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    # The softmax that they are for does not see a number added to all logits.
    assert [name for name in without if not name.endswith(("key.bias", "key_value.bias"))] == []


# --- learned adjacency, over-smoothing ------------------------------------------------------------


def test_a_learned_adjacency_is_row_normalised_and_follows_the_features() -> None:
    torch.manual_seed(0)
    layer = GraphConvolution(8, "learned")
    nodes, given = torch.randn(1, 6, 8), torch.zeros(1, 6, 6)
    weights = layer.weights(nodes, given)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(1, 6))
    assert not torch.equal(weights, layer.weights(2 * nodes, given))
    given[0, 0, 1] = 1
    both = GraphConvolution(8, "both")
    both.share.data.fill_(-30.0)
    torch.testing.assert_close(both.weights(nodes, given), given)


@given(st.integers(2, 6), st.integers(0, 2**31 - 1))
def test_the_mean_pairwise_cosine_is_over_different_nodes(num: int, seed: int) -> None:
    nodes = torch.randn(2, num, 3, generator=torch.Generator().manual_seed(seed))
    units = functional.normalize(nodes, dim=2)
    cosines = units @ units.mT
    expected = cosines[:, ~torch.eye(num, dtype=torch.bool)].mean()
    assert mean_pairwise_cosine(nodes) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_deep_encoders_do_not_smooth_over(training: bool) -> None:
    net, a = network(convolutions=12).train(training), graph(60)
    layers: list[torch.Tensor] = []
    net.encode(a, layers)
    assert len(layers) == 13
    assert max(mean_pairwise_cosine(layer) for layer in layers) < 0.05
    # The same averaging without the normalisation makes all nodes one.
    nodes = torch.rand(1, 60, 16)
    for _ in range(12):
        nodes = (nodes + a.adjacency @ nodes) / 2
    assert mean_pairwise_cosine(nodes) > 0.95


# --- consensus ------------------------------------------------------------------------------------


def alike(num: int, degrees: float = 0.0, wrong_every: int = 4) -> tuple[Graph, Graph, Tensor]:
    """Return a graph, the same one turned, and nodes whose descriptors are another's there."""
    whole = features(num)
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert whole.orientations is not None
    wrong = np.arange(0, num, wrong_every)
    descriptors = whole.descriptors.copy()
    descriptors[wrong] = descriptors[np.roll(wrong, 3)]
    second = dataclasses.replace(
        whole,
        keypoints=(whole.keypoints @ turn.T).astype(np.float32),
        orientations=(whole.orientations + angle).astype(np.float32),
        descriptors=descriptors,
    )
    made = [batch_of([nodes_of(side, "delaunay", 8, "cpu")]) for side in (whole, second)]
    return made[0], made[1], torch.from_numpy(wrong)


@torch.no_grad()
def test_untrained_it_finds_the_mutual_nearest_neighbours() -> None:
    a, b = graph(60, 1), graph(70, 2)
    torch.manual_seed(3)
    found = GenerativeGraph(NetworkConfig(descriptor_dim=DIM)).eval()(a, b).similarity
    cosines = (a.descriptors @ b.descriptors.mT)[0]
    own = torch.arange(60)
    best = cosines.argmax(dim=1)
    nearest = torch.where(cosines.argmax(dim=0)[best] == own, best, -1)
    assert (nearest >= 0).sum() > 20
    assert torch.equal(mutual_partners(found)[0], nearest)


@pytest.mark.parametrize("degrees", [0.0, 35.0])
def test_consensus_learns_to_prefer_matches_that_agree(degrees: float) -> None:
    torch.manual_seed(0)
    net = GenerativeGraph(NetworkConfig(descriptor_dim=DIM))
    optimizer = torch.optim.Adam(net.consensus.parameters(), lr=1e-2)
    a, b, wrong = alike(90, 10.0, 3)
    own = torch.arange(90)
    partners = torch.where(torch.isin(own, wrong), UNMATCHED, own)
    for _ in range(40):
        loss = votes_likelihood(*net.vote(a, b)[0], partners, partners)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    a, b, wrong = alike(80, degrees)
    with torch.no_grad():
        found = mutual_partners(net.eval()(a, b).similarity)[0]
    right = torch.isin(torch.arange(80), wrong, invert=True)
    assert (found == torch.arange(80))[right].float().mean() > 0.9
    assert (found >= 0)[wrong].float().mean() < 0.3  # the descriptors alone match them all


@torch.no_grad()
def test_the_residuals_of_the_fit_are_those_of_an_affine_map() -> None:
    rng = torch.Generator().manual_seed(0)
    steps, weights = torch.randn(2, 9, 5, generator=rng), torch.rand(9, 5, generator=rng) * 1e4
    matrix = torch.tensor([[1.2, -0.3], [0.4, 0.8]])
    images = torch.einsum("ij,jkc->ikc", matrix, steps)
    images[:, 3] += 1.0
    weights[3] = 0
    found = residuals((steps[0], steps[1]), (images[0], images[1]), weights, Prior(0.0, 0.0))
    torch.testing.assert_close(found[3], torch.full((5,), 2.0), atol=1e-2, rtol=0)
    assert found[[0, 1, 2, 4, 5, 6, 7, 8]].max() < 1e-4


# --- super-nodes ----------------------------------------------------------------------------------


def test_super_nodes_are_matched_by_votes_and_bind_their_nodes() -> None:
    members = functional.one_hot(torch.tensor([[0, 0, 1, 1]]), 2).float()
    soft = torch.zeros(1, 4, 4)
    for i, j in ((0, 2), (1, 3), (2, 0), (3, 1)):
        soft[0, i, j] = 1
    partners = match_super_nodes(members, members, soft)
    torch.testing.assert_close(partners, torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
    together = compatibility(members, members, partners)
    assert together[0, 0].tolist() == [0, 0, 1, 1]
    lowered = attach(torch.zeros(1, 4, 4), members, members, soft)
    assert (lowered[0, 0, :2] < -3).all()
    assert (lowered[0, 0, 2:] > -0.1).all()
    outlier = torch.full((1, 1, 2), 0.5)
    assert torch.equal(compatibility(outlier, members, partners), torch.full((1, 1, 4), 0.5))


def test_few_partners_are_kept() -> None:
    partners = torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(0))
    kept = kept_partners(partners)
    assert ((kept > 0).sum(dim=2) >= 3).all()
    assert ((kept > 0).sum(dim=1) >= 3).all()
    assert (kept > 0).sum() <= 2 * 3 * 9
    assert (kept.amax(dim=2) == partners.amax(dim=2)).all()


def test_dual_softmax_sums_to_at_most_one() -> None:
    soft = dual_softmax(torch.randn(1, 5, 7, generator=torch.Generator().manual_seed(0)))
    assert (soft.sum(dim=1) <= 1).all()
    assert (soft.sum(dim=2) <= 1).all()


# --- files ----------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_network_survives_its_file(tmp_path: Path) -> None:
    net, a, b = network(adjacency="both", super_nodes=3), graph(20, 1), graph(20, 2)
    expected = net(a, b).similarity
    plain, half, pickled = (
        tmp_path / name for name in ("a.safetensors", "half.safetensors", "a.pt")
    )
    plain.write_bytes(network_bytes(net))
    half.write_bytes(network_bytes(net, half=True))
    torch.save({"config": {"descriptor_dim": DIM}, "state": network().state_dict()}, pickled)
    loaded = load_network(str(plain))
    assert loaded.config == net.config
    assert not loaded.training
    torch.testing.assert_close(loaded(a, b).similarity.nodes, expected.nodes)
    assert half.stat().st_size < 0.6 * plain.stat().st_size
    torch.testing.assert_close(
        load_network(str(half)).to_query.weight, net.to_query.weight, atol=1e-3, rtol=0
    )
    with pytest.raises(WeightsError, match=r"Missing key|size mismatch"):
        load_network(str(pickled))  # 16 channels where the settings say 64


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match="not weights of generative_graph"):
        load_network(str(path))
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="it has no config and state"):
        load_network(str(path))
    torch.save({"config": {"chanels": 8}, "state": {}}, path)
    with pytest.raises(WeightsError, match="chanels"):
        load_network(str(path))


def test_settings_of_the_network_are_checked() -> None:
    with pytest.raises(ValidationError, match="multiple of twice the heads"):
        NetworkConfig(channels=20, heads=4)
    with pytest.raises(ValidationError, match="num_queries"):
        NetworkConfig(num_queries=1)
    assert sum(p.numel() for p in GenerativeGraph(NetworkConfig()).parameters()) < 400_000
