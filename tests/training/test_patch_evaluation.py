from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sfm_match.training.patch_evaluation import evaluate_matchnet, false_positive_rate
from sfm_match.types import ArrayBool, ArrayF64
from tests.matchnet_weights import random_network
from tests.training.test_patch_batches import pool_of

torch.set_num_threads(1)


def by_all_thresholds(scores: ArrayF64, is_match: ArrayBool, recall: float) -> float:
    """The least share of wrong pairs of all thresholds at which enough right ones are taken."""
    rates = []
    for threshold in np.unique(scores):
        taken = scores >= threshold
        if taken[is_match].mean() >= recall - 1e-12:
            rates.append(taken[~is_match].mean())
    return float(min(rates))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=60),
    st.lists(st.integers(-5, 5), min_size=1, max_size=60),
    st.sampled_from([0.05, 0.5, 0.8, 0.95, 1.0]),
)
def test_it_is_the_best_of_all_thresholds(
    right: list[int], wrong: list[int], recall: float
) -> None:
    scores = np.array([*right, *wrong], np.float64)
    is_match = np.arange(len(scores)) < len(right)
    found = false_positive_rate(scores, is_match, recall)
    assert found == by_all_thresholds(scores, is_match, recall)


def test_one_of_twenty_may_be_missed() -> None:
    scores = np.array([*range(20), 0.5, 1.5])
    is_match = np.arange(22) < 20
    assert false_positive_rate(scores, is_match) == 0.5
    assert false_positive_rate(scores, is_match, 1.0) == 1.0


def test_descriptors_are_judged_by_their_distances() -> None:
    pool = pool_of([6, 6, 6, 6])
    descriptors = np.random.default_rng(0).normal(size=(24, 1, 8))
    pool["descriptors"] = np.repeat(descriptors, 2, axis=1)
    network = random_network(16, 32)
    found = evaluate_matchnet(network, pool, 0)
    assert set(found) == {"fpr95", "near_fpr95", "detector_fpr95", "detector_near_fpr95"}
    assert found["detector_fpr95"] == found["detector_near_fpr95"] == 0
    assert found == evaluate_matchnet(network, pool, 0)
    # Patches without a difference that any network could see.
    pool["patches"] = 100
    assert evaluate_matchnet(network, pool, 0)["fpr95"] == 1
    alone = pool_of([1, 1, 1])
    assert set(evaluate_matchnet(network, alone, 0)) == {"fpr95", "detector_fpr95"}


@torch.no_grad()
def test_the_networks_odds_are_what_counts() -> None:
    pool = pool_of([6, 6, 6])
    pool["patches"] = np.repeat(np.random.default_rng(1).integers(0, 255, (18, 1, 64, 64)), 2, 1)
    network = random_network(16, 32)
    # A metric that is minus the sum of absolute differences tells the same from the rest.
    first, second, last = (layer for layer in network.metric if isinstance(layer, nn.Linear))
    one = torch.eye(16)
    first.weight.copy_(torch.cat([torch.cat([one, -one], 1), torch.cat([-one, one], 1)]))
    second.weight.copy_(torch.eye(32))
    last.weight.zero_()
    last.weight[1] = -1
    found = evaluate_matchnet(network, pool, 0)
    assert found["fpr95"] == pytest.approx(0)
    last.weight[1] = 1
    assert evaluate_matchnet(network, pool, 0)["fpr95"] == 1
