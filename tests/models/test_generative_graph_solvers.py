from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sfm_match.models.generative_graph_solvers import (
    FORBIDDEN,
    BlackBox,
    Similarity,
    black_box,
    costs_of,
    hungarian,
    sinkhorn,
    without_twins,
)

SEEDS = st.integers(0, 2**31 - 1)
SIZES = st.integers(1, 4)


def similarity(seed: int, num0: int, num1: int, num_queries: int = 2, batch: int = 1) -> Similarity:
    rng = torch.Generator().manual_seed(seed)
    shapes = ((num0, num1), (num0, num_queries), (num1, num_queries), (num_queries, num_queries))
    return Similarity(*(3 * torch.randn(batch, *shape, generator=rng) for shape in shapes))


def partial_matches(num0: int, num1: int) -> Iterator[list[tuple[int, int]]]:
    for num in range(min(num0, num1) + 1):
        for rows in itertools.combinations(range(num0), num):
            for columns in itertools.permutations(range(num1), num):
                yield list(zip(rows, columns, strict=True))


def total(found: Similarity, pairs: list[tuple[int, int]]) -> float:
    """Return the similarity of a match: each single node has its best query."""
    nodes, unmatched0, unmatched1, queries = (part[0].numpy() for part in found)
    rows, columns = {i for i, _ in pairs}, {j for _, j in pairs}
    value = sum(nodes[i, j] for i, j in pairs) + len(pairs) * queries.max()
    value += sum(unmatched0[i].max() for i in range(len(nodes)) if i not in rows)
    return float(
        value + sum(unmatched1[j].max() for j in range(nodes.shape[1]) if j not in columns)
    )


def pairs_of(solution: npt.NDArray[np.float32], num_queries: int = 2) -> list[tuple[int, int]]:
    inner = solution[:-num_queries, :-num_queries]
    return [(int(i), int(j)) for i, j in np.argwhere(inner)]


@given(SEEDS, SIZES, SIZES)
def test_hungarian_finds_the_match_of_the_largest_similarity(
    seed: int, num0: int, num1: int
) -> None:
    found = similarity(seed, num0, num1)
    costs = costs_of(found)[0].numpy()
    solution = hungarian(costs, 2)
    best = max(total(found, pairs) for pairs in partial_matches(num0, num1))
    assert total(found, pairs_of(solution)) == pytest.approx(best, abs=1e-4)
    assert float((solution * -costs).sum()) == pytest.approx(best, abs=1e-4)


@given(SEEDS, SIZES, SIZES)
def test_every_node_has_one_partner_and_the_queries_fill_up(
    seed: int, num0: int, num1: int
) -> None:
    solution = hungarian(costs_of(similarity(seed, num0, num1))[0].numpy(), 2)
    assert (solution[:num0].sum(axis=1) == 1).all()
    assert (solution[:, :num1].sum(axis=0) == 1).all()
    assert solution[num0:].sum() == num1
    assert solution[:, num1:].sum() == num0


def test_the_match_takes_the_negative_similarity_as_costs() -> None:
    found = similarity(0, 3, 3)
    nodes = torch.full((1, 3, 3), -5.0)
    nodes[0, [0, 1, 2], [2, 0, 1]] = 5.0
    solution = hungarian(costs_of(found._replace(nodes=nodes))[0].numpy(), 2)
    assert pairs_of(solution) == [(0, 2), (1, 0), (2, 1)]


def test_a_query_does_not_match_its_twin() -> None:
    found = similarity(1, 3, 3)._replace(queries=50 * torch.eye(2)[None])
    free = hungarian(costs_of(found)[0].numpy(), 2)
    masked = hungarian(costs_of(without_twins(found))[0].numpy(), 2)
    # Free twins pay for matches of nodes that are no partners at all.
    assert len(pairs_of(free)) == 3
    assert free[3:, 3:].trace() == 3
    assert masked[3:, 3:].trace() == 0
    assert len(pairs_of(masked)) < 3
    with pytest.raises(ValueError, match="two queries at least are needed"):
        without_twins(similarity(0, 2, 2, num_queries=1))


@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_sinkhorn_gives_probabilities_of_partners(seed: int, num0: int, num1: int) -> None:
    plan = sinkhorn(without_twins(similarity(seed, num0, num1)), 400)
    of_rows = plan.nodes.exp().sum(dim=2) + plan.unmatched0.exp().sum(dim=2)
    of_columns = plan.nodes.exp().sum(dim=1) + plan.unmatched1.exp().sum(dim=2)
    torch.testing.assert_close(of_rows, torch.ones(1, num0), atol=0.02, rtol=0)
    torch.testing.assert_close(of_columns, torch.ones(1, num1), atol=0.02, rtol=0)


def test_sinkhorn_of_sharp_similarities_is_the_hungarian_match() -> None:
    for seed in (0, 1, 3, 4):  # without near ties
        found = similarity(seed, 5, 6)
        sharp = Similarity(*(10 * part for part in found))
        solution = hungarian(costs_of(sharp)[0].numpy(), 2)
        likely = sinkhorn(sharp, 3000).nodes[0] > np.log(0.5)
        assert [(i, j) for i, j in likely.nonzero().tolist()] == pairs_of(solution)


def test_sinkhorn_takes_the_two_graphs_alike() -> None:
    found = similarity(3, 4, 6)
    swapped = Similarity(found.nodes.mT, found.unmatched1, found.unmatched0, found.queries.mT)
    there, back = sinkhorn(found, 7), sinkhorn(swapped, 7)
    torch.testing.assert_close(back.nodes.mT, there.nodes)
    torch.testing.assert_close(back.unmatched0, there.unmatched1)


# --- the solver inside a network ------------------------------------------------------------------


def by_definition(costs: Tensor, incoming: Tensor, strength: float) -> Tensor:
    gradient = torch.empty_like(costs)
    for b, matrix in enumerate(costs):
        solution = hungarian(matrix.numpy(), 2)
        perturbed = hungarian((matrix + strength * incoming[b]).numpy(), 2)
        gradient[b] = torch.from_numpy((perturbed - solution) / strength)
    return gradient


@pytest.mark.parametrize("strength", [0.5, 20.0])
def test_the_gradient_is_that_of_the_definition(strength: float) -> None:
    costs = costs_of(similarity(2, 6, 5, batch=3)).requires_grad_()
    incoming = torch.randn(costs.shape, generator=torch.Generator().manual_seed(0))
    BlackBox.apply(costs, 2, strength).backward(incoming)  # type: ignore[no-untyped-call]
    expected = by_definition(costs.detach(), incoming, strength)
    assert expected.abs().sum() > 0
    assert costs.grad is not None
    torch.testing.assert_close(costs.grad, expected)


def test_the_gradient_of_a_loss_that_the_solution_minimises_is_zero() -> None:
    found = similarity(4, 5, 5)
    costs = costs_of(found).requires_grad_()
    solution = BlackBox.apply(costs, 2, 10.0)  # type: ignore[no-untyped-call]
    incoming = -solution.detach()
    incoming[:, 5:, 5:] = 0
    solution.backward(incoming)
    assert costs.grad is not None
    assert not costs.grad.any()


def test_the_gradient_leads_to_the_true_match() -> None:
    target = torch.zeros(1, 7, 7)
    for i, j in ((0, 3), (1, 1), (2, 5), (3, 6), (4, 6), (5, 0), (5, 2), (5, 4)):
        target[0, i, j] = 1
    parts = [part.requires_grad_() for part in similarity(5, 5, 5)]
    optimizer = torch.optim.SGD(parts, lr=2.0)
    losses = []
    for _ in range(200):
        match = black_box(without_twins(Similarity(*parts)), 20.0)
        nodes = torch.cat([match[:, :5].flatten(), match[:, 5:, :5].flatten()])
        true = torch.cat([target[:, :5].flatten(), target[:, 5:, :5].flatten()])
        loss = (nodes * (1 - true) + true * (1 - nodes)).sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert losses[0] > 5
    assert losses[-1] == 0


def test_what_is_forbidden_costs_more_than_any_match() -> None:
    costs = costs_of(without_twins(similarity(0, 2, 2)))
    assert (costs[0, 2:, 2:].diagonal() == FORBIDDEN).all()
