from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfm_match.models.descriptors import Descriptors, encode_descriptors
from sfm_match.models.matchnet_metric import (
    is_best,
    match_odds,
    nearest_pairs,
    project,
    reduced,
)
from tests.matchnet_weights import random_network

torch.set_num_threads(1)


def drawn(num: int, size: int, seed: int = 0, half: bool = False) -> Tensor:
    values = torch.randn(num, size, generator=torch.Generator().manual_seed(seed)).relu()
    return values.half().float() if half else values


def plain(metric: torch.nn.Sequential, left: Tensor, right: Tensor) -> Tensor:
    """Return the probabilities of pairs by the network as it is, both orders averaged."""
    orders = torch.cat([left, right], dim=1), torch.cat([right, left], dim=1)
    there, back = (torch.softmax(metric(pairs), dim=1)[:, 1] for pairs in orders)
    return (there + back) / 2


@pytest.mark.parametrize(("bottleneck", "scale"), [(0, 0.004), (0, 0.05), (128, 0.05), (512, 0.05)])
@torch.inference_mode()
def test_factorised_it_is_the_plain_network_on_concatenated_descriptors(
    bottleneck: int, scale: float
) -> None:
    network = random_network(bottleneck, 1024, seed=1)
    size = network.config.descriptor_size
    left = scale * drawn(60, size, 0, half=True)
    right = left[:40] + 0.1 * scale * drawn(40, size, 1)
    pairs = torch.cartesian_prod(torch.arange(60), torch.arange(40))
    expected = plain(network.metric, left[pairs[:, 0]], right[pairs[:, 1]])
    a, b = project(network.metric, left), project(network.metric, right)
    together = network.metric[0](torch.cat([left[:40], right], dim=1))
    torch.testing.assert_close(a.first[:40] + b.second, together)
    odds = match_odds(network.metric, a, b, pairs)
    torch.testing.assert_close(odds.sigmoid(), expected, rtol=0, atol=1e-5)
    # Not because all are the same.
    assert expected.std() > 1e-3


METRIC = random_network(16, 32).metric


@settings(max_examples=20)
@given(num=st.integers(1, 40), block=st.integers(1, 50), seed=st.integers(0, 100))
@torch.inference_mode()
def test_the_order_of_the_images_and_the_blocks_do_not_matter(
    num: int, block: int, seed: int
) -> None:
    a, b = (project(METRIC, drawn(12, 16, seed + i)) for i in (0, 1))
    pairs = torch.randint(0, 12, (num, 2), generator=torch.Generator().manual_seed(seed))
    odds = match_odds(METRIC, a, b, pairs)
    swapped = match_odds(METRIC, b, a, pairs.flip(1))
    torch.testing.assert_close(swapped, odds, rtol=1e-4, atol=1e-3)
    in_blocks = match_odds(METRIC, a, b, pairs, block_pairs=block)
    torch.testing.assert_close(in_blocks, odds, rtol=1e-4, atol=1e-3)
    assert len(match_odds(METRIC, a, b, pairs[:0])) == 0


@torch.inference_mode()
def test_odds_tell_apart_what_probabilities_round_to_one() -> None:
    metric = random_network(16, 32).metric
    metric.get_parameter("4.bias")[1] += 60.0
    left, right = 0.01 * drawn(20, 16, 0), 0.01 * drawn(20, 16, 1)
    pairs = torch.arange(20)[:, None].expand(20, 2)
    odds = match_odds(metric, project(metric, left), project(metric, right), pairs)
    assert bool((odds.sigmoid() == 1).all())
    assert len(set(odds.tolist())) > 15
    precise = metric.double()
    orders = torch.cat([left, right], dim=1), torch.cat([right, left], dim=1)
    logits = torch.stack([precise(pairs.double()).diff(dim=1)[:, 0] for pairs in orders])
    # 1 - p is the mean of both, which float64 still holds.
    expected = -(torch.exp(-logits).mean(dim=0)).log()
    torch.testing.assert_close(odds.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_candidates_are_the_nearest_of_either_side(k: int) -> None:
    a, b = (encode_descriptors(drawn(num, 8, num)) for num in (30, 20))
    products = a.values @ b.values.T
    expected = {
        (i, j)
        for i in range(30)
        for j in range(20)
        if (products[i] > products[i, j]).sum() < k or (products[:, j] > products[i, j]).sum() < k
    }
    found = [(int(i), int(j)) for i, j in nearest_pairs(a, b, k)]
    assert found == sorted(expected)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=30))
def test_the_best_of_a_key_is_its_first_highest_value(entries: list[tuple[int, int]]) -> None:
    keys = torch.tensor([key for key, _ in entries], dtype=torch.long)
    values = torch.tensor([value for _, value in entries], dtype=torch.float32)
    expected = [
        (value, -i) == max((v, -j) for j, (k, v) in enumerate(entries) if k == key)
        for i, (key, value) in enumerate(entries)
    ]
    assert is_best(keys, values).tolist() == expected


def test_fewer_dimensions_keep_the_nearest_neighbours() -> None:
    rng = np.random.default_rng(0)
    # All descriptors point nearly the same way, as those of a network with ReLU do.
    common = rng.uniform(1, 2, 3136)
    places = common + 0.2 * rng.normal(size=(200, 3136))
    left, right = (
        torch.from_numpy(places + 0.1 * rng.normal(size=places.shape)).float() for _ in range(2)
    )
    small0, small1 = reduced(left, 256), reduced(right, 256)
    assert small0.shape == (200, 256)
    unit = torch.nn.functional.normalize
    full = torch.cdist(unit(left), unit(right))
    ratios = torch.cdist(small0, small1) / full / 16
    assert float(ratios.mean()) == pytest.approx(1, abs=0.02)
    assert float(ratios.std()) < 0.06
    pairs = nearest_pairs(encode_descriptors(small0), encode_descriptors(small1), 3)
    found = set(map(tuple, pairs.tolist()))
    assert sum((i, i) in found for i in range(200)) > 195
    # What is short enough is left alone, and the projection is always the same.
    assert reduced(left, 3136) is left
    torch.testing.assert_close(reduced(left[:5], 256), small0[:5])
    assert isinstance(encode_descriptors(small0), Descriptors)
