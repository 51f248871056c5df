"""What the generative graph matcher is trained with.

The main loss is the negative log-likelihood of the true partners, or, where a combinatorial solver
is part of the network, the Hamming loss. On its own, from a random start, the latter ends in
"everything is unmatched": begin with the former.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from sfm_match.models.generative_graph_consensus import (
    Pair,
    Votes,
    log_probabilities,
    log_unmatched,
)
from sfm_match.models.generative_graph_solvers import Plan, Similarity

UNMATCHED = -1
UNKNOWN = -2

_EARLY = 0.3


class Truth(NamedTuple):
    """The true partners of the nodes of a batch of pairs.

    Attributes:
        partners0: int64 (B, N), the partner in the second graph, or `UNMATCHED`, or `UNKNOWN` where
            nothing is to be learned.
        partners1: int64 (B, M), the same of the second graph.
    """

    partners0: Tensor
    partners1: Tensor


def assign_queries(similarity: Tensor, missing: Tensor) -> Tensor:
    """Assign the missing nodes to the queries that are most like them, evenly.

    The Hungarian matching of DETR (Carion et al., ECCV 2020): where more nodes are missing than
    there are queries, each query takes as many as the others, give or take one.

    Args:
        similarity: (B, N, K), nodes with the queries that may stand for them.
        missing: bool (B, N), which nodes the other graph misses.

    Returns:
        int64 (B, N), a query for each missing node, 0 for the others.
    """
    num_queries = similarity.shape[2]
    assigned = np.zeros(missing.shape, np.int64)
    values, masks = similarity.detach().float().cpu().numpy(), missing.cpu().numpy()
    for row, (value, mask) in enumerate(zip(values, masks, strict=True)):
        nodes = np.flatnonzero(mask)
        copies = -(-len(nodes) // num_queries)
        places, columns = linear_sum_assignment(np.tile(value[nodes], copies), maximize=True)
        assigned[row, nodes[places]] = columns % num_queries
    return torch.from_numpy(assigned).to(similarity.device)


def negative_log_likelihood(plan: Plan, truth: Truth) -> Tensor:
    """Return the mean of -log of the probabilities of the true partners.

    Matched and unmatched nodes weigh alike however many there are. An unmatched node's partner is
    the query that it is assigned to.
    """
    matched = _gather(plan.nodes, truth.partners0)[truth.partners0 >= 0]
    parts = [matched] if len(matched) else []
    singles = []
    for unmatched, partners in (
        (plan.unmatched0, truth.partners0),
        (plan.unmatched1, truth.partners1),
    ):
        alone = partners == UNMATCHED
        singles.append(_gather(unmatched, assign_queries(unmatched, alone))[alone])
    if len(together := torch.cat(singles)):
        parts.append(together)
    return -sum((part.mean() for part in parts), plan.nodes.new_zeros(())) / max(len(parts), 1)


def votes_likelihood(pair: Pair, votes: Votes, partners0: Tensor, partners1: Tensor) -> Tensor:
    """Return the mean of -log of the probabilities that the votes give the true partners.

    True matches and unmatched nodes weigh alike; what no candidate leads to does not count. All
    stages are to be right (as the layers of DETR's decoder), those before the last one with less
    weight.

    Args:
        pair: the candidates.
        votes: their logits.
        partners0: int64 (N,), as in `Truth`.
        partners1: int64 (M,), the same of the second graph.
    """
    is_true = partners0[pair.found.rows0] == pair.found.rows1
    loss = partners0.new_zeros((), dtype=torch.float32)
    for stage, logits in enumerate(votes.logits):
        weight = 1.0 if stage == len(votes.logits) - 1 else _EARLY
        rows, columns = log_probabilities(logits, pair.found, pair.sizes)
        alone0, alone1 = log_unmatched(logits, pair.found, pair.sizes)
        matched = (rows + columns)[is_true] / 2
        unmatched = torch.cat([alone0[partners0 == UNMATCHED], alone1[partners1 == UNMATCHED]])
        for part in (matched, unmatched):
            if len(part):
                loss = loss - weight / 2 * part.mean()
    return loss


def _gather(values: Tensor, columns: Tensor) -> Tensor:
    """Return one value of each row (B, N, M) -> (B, N); negative columns give any."""
    return values.gather(2, columns.clamp_min(0)[..., None])[..., 0]


def true_match(similarity: Similarity, truth: Truth) -> Tensor:
    """Return M*, float32 (B, N + K, M + K), without the queries' own corner.

    Unmatched nodes have the query that `assign_queries` gives them.
    """
    batch, num0, num1 = similarity.nodes.shape
    num_queries = similarity.queries.shape[1]
    match = similarity.nodes.new_zeros(batch, num0 + num_queries, num1 + num_queries)
    which, rows = (truth.partners0 >= 0).nonzero(as_tuple=True)
    match[which, rows, truth.partners0[which, rows]] = 1
    for values, partners, target, offset in (
        (similarity.unmatched0, truth.partners0, match, num1),
        (similarity.unmatched1, truth.partners1, match.mT, num0),
    ):
        alone = partners == UNMATCHED
        queries = assign_queries(values, alone)
        which, rows = alone.nonzero(as_tuple=True)
        target[which, rows, offset + queries[which, rows]] = 1
    return match


def hamming(match: Tensor, true: Tensor, truth: Truth) -> Tensor:
    """Return the sum of M (1 - M*) + M* (1 - M), divided by the number of nodes.

    Rows and columns of nodes of unknown partner do not count, nor does the queries' own corner.

    Args:
        match: M, (B, N + K, M + K), from 0 to 1.
        true: M*, the same shape, of 0 and 1.
        truth: says which are unknown.
    """
    known0, known1 = truth.partners0 != UNKNOWN, truth.partners1 != UNKNOWN
    num_queries = match.shape[1] - known0.shape[1]
    wrong = match * (1 - true) + true * (1 - match)
    rows = functional.pad(known0.to(match), (0, num_queries), value=1.0)
    columns = functional.pad(known1.to(match), (0, num_queries), value=1.0)
    counts = rows[:, :, None] * columns[:, None, :]
    counts[:, known0.shape[1] :, known1.shape[1] :] = 0
    return (wrong * counts).sum() / (known0.sum() + known1.sum()).clamp_min(1)


def self_connection(embeddings: Tensor) -> Tensor:
    """Return the mean of -log of the probability that a node's partner in its own graph is itself.

    A graph matched with itself is the identity: nodes that have become alike fail it.

    Args:
        embeddings: (B, N, C).
    """
    logits: Tensor = embeddings @ embeddings.mT / embeddings.shape[2] ** 0.5
    return -logits.diagonal(dim1=1, dim2=2).sub(logits.logsumexp(dim=2)).mean()


def outlier_mask(plan: Plan, truth: Truth) -> Tensor:
    """Return the binary cross-entropy of the nodes' being unmatched, whatever the query."""
    losses = []
    for unmatched, partners in (
        (plan.unmatched0, truth.partners0),
        (plan.unmatched1, truth.partners1),
    ):
        known = partners != UNKNOWN
        logs = unmatched.logsumexp(dim=2)[known].clamp(-20.0, -1e-4)
        is_alone = partners[known] == UNMATCHED
        losses.append(-torch.where(is_alone, logs, (-logs.expm1()).log()))
    return torch.cat(losses).mean() if sum(map(len, losses)) else plan.nodes.new_zeros(())


def contrastive(embeddings0: Tensor, embeddings1: Tensor, truth: Truth) -> Tensor:
    """Return InfoNCE (van den Oord et al., 2018) between the embeddings of true partners.

    Args:
        embeddings0: (B, N, C).
        embeddings1: (B, M, C).
        truth: the partners; all other nodes of the other graph are negatives, in either direction.
    """
    logits: Tensor = embeddings0 @ embeddings1.mT / embeddings0.shape[2] ** 0.5
    which, rows = (truth.partners0 >= 0).nonzero(as_tuple=True)
    if not len(which):
        return logits.new_zeros(())
    columns = truth.partners0[which, rows]
    forth = logits[which, rows, columns] - logits.logsumexp(dim=2)[which, rows]
    back = logits[which, rows, columns] - logits.logsumexp(dim=1)[which, columns]
    return -(forth + back).mean() / 2
