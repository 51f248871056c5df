from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from sfm_match.models.generative_graph_losses import (
    UNKNOWN,
    UNMATCHED,
    Truth,
    assign_queries,
    contrastive,
    hamming,
    negative_log_likelihood,
    outlier_mask,
    self_connection,
    true_match,
)
from sfm_match.models.generative_graph_solvers import Plan, Similarity, sinkhorn

# Nodes 0 and 2 are partners of 1 and 0; node 1 has none, of node 3 it is not known.
TRUTH = Truth(
    torch.tensor([[1, UNMATCHED, 0, UNKNOWN]]),
    torch.tensor([[2, 0, UNMATCHED, UNMATCHED, UNKNOWN]]),
)


def similarity(seed: int = 0, dtype: torch.dtype = torch.float64) -> Similarity:
    rng = torch.Generator().manual_seed(seed)
    shapes = ((4, 5), (4, 2), (5, 2), (2, 2))
    return Similarity(*(torch.randn(1, *shape, generator=rng, dtype=dtype) for shape in shapes))


def sure_of_the_truth(chance: float) -> Plan:
    """Return a plan that gives all true partners one chance, and the rest little."""
    plan = Plan(
        torch.full((1, 4, 5), -9.0), torch.full((1, 4, 2), -9.0), torch.full((1, 5, 2), -9.0)
    )
    plan.nodes[0, 0, 1] = plan.nodes[0, 2, 0] = np.log(chance)
    plan.unmatched0[0, 1, 1] = np.log(chance)
    plan.unmatched1[0, 2, 0] = plan.unmatched1[0, 3, 1] = np.log(chance)
    return plan


@given(st.integers(0, 2**31 - 1), st.integers(1, 5), st.integers(1, 3))
def test_missing_nodes_get_the_queries_that_are_most_like_them(
    seed: int, num_missing: int, num_queries: int
) -> None:
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.normal(size=(1, 6, num_queries)))
    missing = torch.zeros(1, 6, dtype=torch.bool)
    missing[0, rng.choice(6, num_missing, replace=False)] = True
    rows = missing[0].nonzero()[:, 0].numpy()
    chosen = assign_queries(values, missing)[0].numpy()
    most = -(-num_missing // num_queries)
    assert np.bincount(chosen[rows], minlength=num_queries).max() <= most
    allowed = (
        columns
        for columns in itertools.product(range(num_queries), repeat=num_missing)
        if np.bincount(columns).max() <= most
    )
    best = max(float(values[0, rows, columns].sum()) for columns in allowed)
    assert float(values[0, rows, chosen[rows]].sum()) == pytest.approx(best)


def test_the_likelihood_is_that_of_the_true_partners() -> None:
    assert float(negative_log_likelihood(sure_of_the_truth(0.5), TRUTH)) == pytest.approx(np.log(2))
    assert float(negative_log_likelihood(sure_of_the_truth(1.0), TRUTH)) == pytest.approx(0)
    nobody = Truth(torch.full((1, 4), UNKNOWN), torch.full((1, 5), UNKNOWN))
    assert float(negative_log_likelihood(sure_of_the_truth(0.5), nobody)) == 0


def test_hamming_counts_wrong_entries() -> None:
    true = true_match(similarity(), TRUTH)
    assert float(hamming(true, true, TRUTH)) == 0
    wrong = true.clone()
    wrong[0, 0, 1], wrong[0, 0, 2] = 0, 1  # one entry missing, one too many
    wrong[0, 3, 0] = 1  # of a node of unknown partner
    wrong[0, 4:, 5:] = 7  # among the queries
    assert float(hamming(wrong, true, TRUTH)) == pytest.approx(2 / 7)
    # By its formula, at what is neither 0 nor 1.
    half = torch.full_like(true, 0.5)
    known = torch.ones_like(true)
    known[0, 3], known[0, :, 4], known[0, 4:, 5:] = 0, 0, 0
    expected = ((half * (1 - true) + true * (1 - half)) * known).sum() / 7
    assert float(hamming(half, true, TRUTH)) == pytest.approx(float(expected))


def test_the_true_match_gives_each_known_node_one_partner() -> None:
    true = true_match(similarity(), TRUTH)[0]
    assert true[:4].sum(dim=1).tolist() == [1, 1, 1, 0]
    assert true[:, :5].sum(dim=0).tolist() == [1, 1, 1, 1, 0]
    assert true[0, 1] == true[2, 0] == 1
    assert true[1, 5:].sum() == 1
    assert not true[4:, 5:].any()


def test_outlier_mask_is_the_cross_entropy_of_being_unmatched() -> None:
    plan = sure_of_the_truth(0.8)
    alone = torch.cat([part.exp().sum(dim=2)[0] for part in (plan.unmatched0, plan.unmatched1)])
    is_alone = torch.tensor([0, 1, 0, -1, 0, 0, 1, 1, -1])
    chance = torch.where(is_alone == 1, alone, 1 - alone)[is_alone >= 0]
    assert float(outlier_mask(plan, TRUTH)) == pytest.approx(float(-chance.log().mean()), abs=1e-5)


def test_nodes_that_are_alike_fail_the_self_connection() -> None:
    apart = 30 * torch.eye(6)[None]
    assert float(self_connection(apart)) == pytest.approx(0, abs=1e-4)
    assert float(self_connection(torch.ones(1, 6, 8))) == pytest.approx(np.log(6), abs=1e-5)


def test_contrastive_is_least_where_partners_are_alike() -> None:
    nodes = 20 * torch.eye(5)[None]
    partners = torch.tensor([[1, 2, 0, UNMATCHED, 4]])
    truth = Truth(partners, torch.tensor([[2, 0, 1, UNMATCHED, 4]]))
    others = nodes[:, [2, 0, 1, 3, 4]]
    assert float(contrastive(nodes, others, truth)) == pytest.approx(0, abs=1e-4)
    assert float(contrastive(nodes, nodes, truth)) > 5
    swapped = contrastive(others, nodes, Truth(truth.partners1, truth.partners0))
    assert float(swapped) == pytest.approx(float(contrastive(nodes, others, truth)))


def test_the_gradients_are_those_of_the_losses() -> None:
    parts = tuple(part.requires_grad_() for part in similarity())

    def of_plan(*values: Tensor) -> Tensor:
        plan = sinkhorn(Similarity(*values), 5)
        return torch.stack([negative_log_likelihood(plan, TRUTH), outlier_mask(plan, TRUTH)])

    assert gradcheck(of_plan, parts)
    embeddings = tuple(
        torch.randn(1, num, 3, dtype=torch.float64).requires_grad_() for num in (4, 5)
    )
    assert gradcheck(lambda a, b: contrastive(a, b, TRUTH) + self_connection(a), embeddings)
