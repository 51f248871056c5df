from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from sfm_match.models.matchnet import (
    TOWER_SIZE,
    MatchNet,
    NetworkConfig,
    Tower,
    cross_entropy,
    load_network,
    normalised,
)
from sfm_match.models.patches import cut_patches
from sfm_match.weights import WeightsError
from tests.components import checkpoint
from tests.matchnet_weights import random_network, write
from tests.pictures import noise_picture

torch.set_num_threads(1)


def patches(num: int, seed: int = 0) -> Tensor:
    return torch.randn(num, 1, 64, 64, generator=torch.Generator().manual_seed(seed))


# --- the network ----------------------------------------------------------------------------------


def test_a_tower_has_the_layers_of_the_paper() -> None:
    x, sizes = patches(2), []
    for layer in Tower().features:
        x = layer(x)
        if not isinstance(layer, nn.ReLU):
            sizes.append(tuple(x.shape[1:]))
    assert sizes == [
        (24, 64, 64),
        (24, 31, 31),
        (64, 31, 31),
        (64, 15, 15),
        (96, 15, 15),
        (96, 15, 15),
        (64, 15, 15),
        (64, 7, 7),
    ]
    assert TOWER_SIZE == 3136
    count = sum(parameter.numel() for parameter in Tower().parameters())
    kernels = 24 * 49, 64 * 24 * 25, 96 * 64 * 9, 96 * 96 * 9, 64 * 96 * 9
    assert count == sum(kernels) + 24 + 64 + 96 + 96 + 64


@pytest.mark.parametrize(("bottleneck", "size"), [(0, 3136), (128, 128)])
def test_the_metric_sees_both_descriptors_side_by_side(bottleneck: int, size: int) -> None:
    network = random_network(bottleneck, 64)
    assert network.config.descriptor_size == size
    matrices = [tuple(p.shape) for p in network.metric.parameters() if p.ndim == 2]
    assert matrices == [(64, 2 * size), (64, 64), (2, 64)]
    left, right = patches(3, 0), patches(3, 1)
    with torch.inference_mode():
        described = torch.cat([network.tower(left), network.tower(right)], dim=1)
        expected = network.metric(described)
        torch.testing.assert_close(network(left, right), expected)
    assert described.shape == (3, 2 * size)
    # A tower ends in ReLU; a bottleneck is linear.
    assert bool((described < 0).any()) == (bottleneck > 0)


def test_grey_values_are_normalised_as_in_the_paper() -> None:
    values = normalised(torch.tensor([0.0, 128.0, 208.0]))
    assert values.tolist() == pytest.approx([-0.8, 0.0, 0.5])


def test_convolutions_start_orthogonal() -> None:
    for layer in random_network(16, 32).tower.features:
        if isinstance(layer, nn.Conv2d):
            rows = layer.weight.detach().flatten(1)
            products = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
            torch.testing.assert_close(products, 0.36 * torch.eye(len(products)))
            assert layer.bias is not None
            assert layer.bias.tolist() == pytest.approx([0.01] * len(rows))


def test_the_start_follows_from_the_generator() -> None:
    first, again, other = (random_network(16, 32, seed).state_dict() for seed in (3, 3, 4))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, other[name]) == name.endswith("bias")


def test_cross_entropy_is_the_mean_of_the_negative_log_probability_of_the_truth() -> None:
    logits = torch.tensor([[0.0, 0.0], [2.0, 5.0], [1.0, -1.0]])
    truth = torch.tensor([True, True, False])
    expected = np.mean([np.log(2), np.log1p(np.exp(-3.0)), np.log1p(np.exp(-2.0))])
    assert float(cross_entropy(logits, truth)) == pytest.approx(expected)


# --- files ----------------------------------------------------------------------------------------


def same(found: MatchNet, expected: MatchNet) -> bool:
    states = found.state_dict(), expected.state_dict()
    return all(torch.equal(states[0][name], value) for name, value in states[1].items())


@pytest.mark.parametrize("bottleneck", [0, 24])
def test_a_network_is_read_as_it_was_written(tmp_path: Path, bottleneck: int) -> None:
    network = random_network(bottleneck, 40)
    state = network.state_dict()
    torch.save(state, tmp_path / "plain.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "nested.pt")
    files = (
        write(network, tmp_path / "a.safetensors"),
        tmp_path / "plain.pt",
        tmp_path / "nested.pt",
    )
    for path in files:
        found = load_network(path)
        assert found.config == NetworkConfig(bottleneck, 40)
        assert not found.training
        assert same(found, network)
    half = load_network(write(network.half(), tmp_path / "half.safetensors"))
    assert {value.dtype for value in half.state_dict().values()} == {torch.float32}
    assert same(half, network.float())


def changed(**tensors: Any) -> dict[str, Any]:
    return {**random_network(8, 16).state_dict(), **tensors}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header"),
        (b"not a file of tensors", "header"),
        ({"metric.0.weight": torch.zeros(3)}, "no matrix metric.0.weight"),
        ([1, 2], "no named tensors"),
        (changed(extra=torch.zeros(2)), "extra"),
        (changed(**{"metric.2.weight": torch.zeros(16, 15)}), "metric.2.weight"),
        (changed(**{"metric.0.weight": torch.zeros(16, 4)}), "metric.0.weight"),
    ],
)
def test_what_is_not_matchnet_is_named(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "weights"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=f"weights: not weights of MatchNet.*(?s:.*){message}"):
        load_network(path)


def test_weights_of_another_network_are_named() -> None:
    with pytest.raises(WeightsError, match=r"aliked-n16\.pth: not weights of MatchNet"):
        load_network(checkpoint("aliked-n16"))


# --- learning -------------------------------------------------------------------------------------


def views(num: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return patches (num, 1, 64, 64) around places of a picture, and of the same places moved."""
    grey = torch.from_numpy(noise_picture(300, 300, int(rng.integers(1 << 30)))).float()
    centres = rng.uniform(40, 260, (num, 2))
    cut = []
    for _ in range(2):
        moved = torch.from_numpy(centres + rng.normal(0, 1, (num, 2))).float()
        sides = torch.from_numpy(40 * np.exp(rng.normal(0, 0.1, num))).float()
        angles = torch.from_numpy(rng.normal(0, 0.15, num)).float()
        found = cut_patches(grey, moved, sides, angles, 64)
        contrast = torch.from_numpy(np.exp(rng.normal(0, 0.2, (num, 1, 1, 1)))).float()
        bright = torch.from_numpy(rng.normal(0, 15, (num, 1, 1, 1))).float()
        cut.append(normalised((found - 128) * contrast + 128 + bright))
    return cut[0], cut[1]


def true_ranks(network: MatchNet) -> npt.NDArray[np.int64]:
    """Return which place true matches take among 31 false ones of new pictures, 0 for the first."""
    ranks = []
    for seed in (100, 101, 102):
        left, right = views(32, np.random.default_rng(seed))
        with torch.inference_mode():
            rows, columns = torch.cartesian_prod(torch.arange(32), torch.arange(32)).unbind(1)
            pairs = torch.cat([network.tower(left)[rows], network.tower(right)[columns]], dim=1)
            odds = network.metric(pairs).diff(dim=1).view(32, 32)
        ranks.append((odds > odds.diagonal()[:, None]).sum(dim=1).numpy())
    return np.concatenate(ranks)


@pytest.mark.slow
def test_a_short_training_ranks_true_matches_above_false_ones() -> None:
    rng = np.random.default_rng(0)
    network = random_network(hidden=256)
    before = true_ranks(network)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(100):
        left, right = views(16, rng)
        # Each right one is the partner of one left one, and a false one for the next.
        logits = network(torch.cat([left, left]), torch.cat([right, right.roll(1, dims=0)]))
        loss = cross_entropy(logits, torch.arange(32) < 16)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    after = true_ranks(network)
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])
    # By chance the mean is 15.5, and 3 in 100 are first.
    assert before.mean() > 10
    assert after.mean() < 2
    assert np.mean(after == 0) > 0.6
