"""The match of two completed graphs: Sinkhorn, Hungarian, and Hungarian with a gradient.

A completed graph has its own nodes and the queries that stand for the missing ones. Every node has
exactly one partner: a node or a query of the other side. How many nodes are missing differs from
pair to pair, so a query may stand for several: the queries of a graph together take as many nodes
as the other graph has. What of that they do not use, they use up among themselves; so the completed
graphs are of equal size, and a one-to-one match of nodes leaves one place on either side that is
filled by the best pair of queries.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_TINY = 1e-37

FORBIDDEN = 1e4
"""The cost of what must not match."""


class Similarity(NamedTuple):
    """Similarities of two completed graphs, the larger the more alike.

    Attributes:
        nodes: (B, N, M), nodes with nodes.
        unmatched0: (B, N, K), nodes of the first graph with the queries of the second.
        unmatched1: (B, M, K), nodes of the second graph with the queries of the first.
        queries: (B, K, K), queries of the first graph with those of the second.
    """

    nodes: Tensor
    unmatched0: Tensor
    unmatched1: Tensor
    queries: Tensor


class Plan(NamedTuple):
    """Logarithms of probabilities of partners.

    Attributes:
        nodes: (B, N, M), that two nodes are partners.
        unmatched0: (B, N, K), that a node of the first graph has a query for its partner.
        unmatched1: (B, M, K), the same of the second graph.
    """

    nodes: Tensor
    unmatched0: Tensor
    unmatched1: Tensor


def without_twins(similarity: Similarity) -> Similarity:
    """Forbid that a query matches its twin, the query of the same number of the other graph.

    Both begin as the same learned vector: a network that may match them learns to match the
    queries with themselves, the identity, and nodes have none left to be unmatched with.

    Raises:
        ValueError: there is only one query, which could match nothing then.
    """
    num = similarity.queries.shape[1]
    if num < 2:
        raise ValueError(f"two queries at least are needed to forbid twins, got {num}")
    twins = torch.eye(num, dtype=torch.bool, device=similarity.queries.device)
    return similarity._replace(queries=similarity.queries.masked_fill(twins, -FORBIDDEN))


def sinkhorn(similarity: Similarity, iterations: int) -> Plan:
    """Return the entropic match (Cuturi, NeurIPS 2013), in the logarithmic domain.

    The queries of a graph share one mass, so that their log-sum-exp is a dustbin (Sarlin et al.,
    "SuperGlue", CVPR 2020) whose score is another for each node; then each takes its share of it.

    Args:
        similarity: logits.
        iterations: how often rows and columns are scaled. Both are scaled at once and half-way, so
            that the two graphs play the same part.
    """
    bin0, bin1 = similarity.unmatched0.logsumexp(dim=2), similarity.unmatched1.logsumexp(dim=2)
    corner = similarity.queries.logsumexp(dim=(1, 2))[:, None, None]
    top = torch.cat([similarity.nodes, bin0[:, :, None]], dim=2)
    padded = torch.cat([top, torch.cat([bin1[:, None, :], corner], dim=2)], dim=1)
    num0, num1 = similarity.nodes.shape[1:]
    mass0, mass1 = padded.new_zeros(num0 + 1), padded.new_zeros(num1 + 1)
    mass0[-1], mass1[-1] = np.log(num1), np.log(num0)
    # Products with the exponentials: an iteration reads them twice and takes no logarithm of them.
    top = padded.amax(dim=2).detach()
    kernel = (padded - top[:, :, None]).exp()
    u, v = torch.zeros_like(padded[:, :, 0]), torch.zeros_like(padded[:, 0, :])
    for _ in range(iterations):
        new_u = mass0 - top - _log_product(kernel, v)
        new_v = mass1 - _log_product(kernel.mT, u + top)
        u, v = (u + new_u) / 2, (v + new_v) / 2
    plan = padded + u[:, :, None] + v[:, None, :]
    return Plan(
        nodes=plan[:, :-1, :-1],
        unmatched0=plan[:, :-1, -1:] + similarity.unmatched0.log_softmax(dim=2),
        unmatched1=plan[:, -1, :-1, None] + similarity.unmatched1.log_softmax(dim=2),
    )


def _log_product(kernel: Tensor, logs: Tensor) -> Tensor:
    """Return log(K e^x) of matrices (B, N, M) and vectors (B, M), (B, N)."""
    top = logs.amax(dim=1, keepdim=True).detach()
    product = (kernel @ (logs - top).exp()[..., None])[..., 0]
    return product.clamp_min(_TINY).log() + top


def log_shares(similarity: Similarity) -> Tensor:
    """Return the logarithms of the nodes' shares of their rows or columns, the lesser, (B, N, M).

    A row and a column holds the queries, too.
    """
    rows = torch.cat([similarity.nodes, similarity.unmatched0], dim=2).logsumexp(dim=2)
    columns = torch.cat([similarity.nodes, similarity.unmatched1.mT], dim=1).logsumexp(dim=1)
    return similarity.nodes - torch.maximum(rows[:, :, None], columns[:, None, :])


def mutual_partners(values: Similarity | Plan) -> Tensor:
    """Return the partners of the first graph's nodes, int64 (B, N), or -1.

    Partners are each other's best, and better than either's queries taken together.
    """
    found, best = values.nodes.max(dim=2)
    own = torch.arange(values.nodes.shape[1], device=best.device)
    alone0 = values.unmatched0.logsumexp(dim=2)
    alone1 = values.unmatched1.logsumexp(dim=2).gather(1, best)
    chosen = values.nodes.argmax(dim=1).gather(1, best) == own
    return torch.where(chosen & (found > alone0) & (found > alone1), best, -1)


def costs_of(similarity: Similarity) -> Tensor:
    """Return the negative similarity as one matrix (B, N + K, M + K), queries last."""
    top = torch.cat([similarity.nodes, similarity.unmatched0], dim=2)
    low = torch.cat([similarity.unmatched1.mT, similarity.queries], dim=2)
    return -torch.cat([top, low], dim=1)


def hungarian(costs: npt.NDArray[np.floating[Any]], num_queries: int) -> npt.NDArray[np.float32]:
    """Return the cheapest match of two completed graphs.

    It is the linear program of this module's docstring, solved exactly: nodes i and j are
    partners where that is cheaper than their cheapest queries, less the pair of queries that then
    match each other; which of them, is a linear assignment (Kuhn 1955; Crouse 2016).

    Args:
        costs: floating (N + K, M + K), the queries last; on similarities: their negatives.
        num_queries: K, at least 1.

    Returns:
        float32 of the same shape: 1 where matched; the queries' corner holds how often.
    """
    num0, num1 = (size - num_queries for size in costs.shape)
    to0, to1 = costs[:num0, num1:].argmin(axis=1), costs[num0:, :num1].argmin(axis=0)
    single0 = costs[np.arange(num0), num1 + to0]
    single1 = costs[num0 + to1, np.arange(num1)]
    corner = costs[num0:, num1:]
    pair = np.unravel_index(corner.argmin(), corner.shape)
    saved = single0[:, None] + single1[None, :] - costs[:num0, :num1] - corner[pair]
    rows, columns = _best_assignment(saved)

    solution = np.zeros(costs.shape, np.float32)
    solution[np.arange(num0), num1 + to0] = 1
    solution[num0 + to1, np.arange(num1)] = 1
    solution[rows, num1 + to0[rows]] = 0
    solution[num0 + to1[columns], columns] = 0
    solution[rows, columns] = 1
    solution[num0 + pair[0], num1 + pair[1]] = len(rows)
    return solution


def _best_assignment(
    saved: npt.NDArray[np.floating[Any]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the pairs, one-to-one, whose savings (N, M) are positive and the largest in sum."""
    gain = saved > 0
    rows, columns = np.flatnonzero(gain.any(axis=1)), np.flatnonzero(gain.any(axis=0))
    left = np.maximum(saved[np.ix_(rows, columns)], 0)
    i, j = linear_sum_assignment(left, maximize=True)
    chosen = left[i, j] > 0
    return rows[i[chosen]], columns[j[chosen]]


class BlackBox(torch.autograd.Function):
    """`hungarian` inside a network, differentiated as a black box.

    Vlastelica et al., "Differentiation of Blackbox Combinatorial Solvers", ICLR 2020; for graph
    matching: Rolinek et al. (BB-GM), ECCV 2020. The gradient with respect to the costs is
    (solution at costs + strength * incoming gradient - solution) / strength: that of a piecewise
    linear interpolation of the loss.
    """

    @staticmethod
    def forward(ctx: Any, costs: Tensor, num_queries: int, strength: float) -> Tensor:
        """Return the solutions (B, N + K, M + K) of costs of that shape.

        Args:
            ctx: what the gradient needs.
            costs: (B, N + K, M + K).
            num_queries: K.
            strength: lambda, how far the costs are perturbed; large: smooth, but less faithful.
        """
        solution = _solve(costs, num_queries)
        ctx.save_for_backward(costs, solution)
        ctx.num_queries, ctx.strength = num_queries, strength
        return solution

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient with respect to the costs."""
        costs, solution = ctx.saved_tensors
        perturbed = _solve(costs + ctx.strength * incoming[0], ctx.num_queries)
        return (perturbed - solution) / ctx.strength, None, None


def _solve(costs: Tensor, num_queries: int) -> Tensor:
    arrays = costs.detach().cpu().numpy()
    solutions = np.stack([hungarian(matrix, num_queries) for matrix in arrays])
    return torch.from_numpy(solutions).to(costs)


def black_box(similarity: Similarity, strength: float) -> Tensor:
    """Return the match (B, N + K, M + K) of 0 and 1 with the gradient of `BlackBox`."""
    found: Tensor = BlackBox.apply(  # type: ignore[no-untyped-call]
        costs_of(similarity), similarity.queries.shape[1], strength
    )
    return found
