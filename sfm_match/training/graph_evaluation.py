"""How many known partners the generative graph matcher finds, beside nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfm_match.models.generative_graph import GenerativeGraph
from sfm_match.models.generative_graph_layers import mean_pairwise_cosine
from sfm_match.models.generative_graph_losses import UNMATCHED, Truth, negative_log_likelihood
from sfm_match.models.generative_graph_solvers import mutual_partners
from sfm_match.training.graph_training import Batch, TrainingConfig, plan_of


class Evaluation(NamedTuple):
    """How well pairs are matched, in evaluation mode.

    Attributes:
        loss: the mean negative log-likelihood.
        accuracy: the share of nodes of known partner, unmatched ones too, that get it right.
        recall: the share of the true matches that are found.
        precision: the share of the found matches, of nodes of known partner, that are true.
        nearest_recall: the recall of mutual nearest neighbours, for comparison.
        nearest_precision: their precision.
        cosines: the mean pairwise cosine of the node features after each layer.
    """

    loss: float
    accuracy: float
    recall: float
    precision: float
    nearest_recall: float
    nearest_precision: float
    cosines: tuple[float, ...]


@torch.no_grad()
def evaluate(
    network: GenerativeGraph, batches: Sequence[Batch], config: TrainingConfig
) -> Evaluation:
    """Match batches, each with its best, and compare with the truth; the network's mode is kept."""
    was_training = network.training
    network.eval()
    rows, cosines = [], []
    for batch in batches:
        completed = network(batch.graph0, batch.graph1)
        plan = plan_of(completed, config)
        # The plan is what is trained, if not the consensus alone; their thresholds differ.
        found = mutual_partners(plan if config.together else completed.similarity)
        nearest = _mutual_best(batch.graph0.descriptors @ batch.graph1.descriptors.mT)
        loss = negative_log_likelihood(plan, batch.truth)
        rows.append([loss, *_counts(found, batch.truth), *_counts(nearest, batch.truth)])
        cosines.append([mean_pairwise_cosine(layer) for layer in completed.layers])
    network.train(was_training)
    table = torch.tensor(rows, dtype=torch.float64)
    sums = table.sum(dim=0).tolist()
    right, known, true, total, said = sums[1:6]
    _, _, nearest_true, _, nearest_said = sums[6:]
    return Evaluation(
        loss=sums[0] / len(batches),
        accuracy=right / max(known, 1),
        recall=true / max(total, 1),
        precision=true / max(said, 1),
        nearest_recall=nearest_true / max(total, 1),
        nearest_precision=nearest_true / max(nearest_said, 1),
        cosines=tuple(torch.tensor(cosines).mean(dim=0).tolist()),
    )


def _mutual_best(values: Tensor) -> Tensor:
    """Return the columns (B, N) of values (B, N, M) that are best in row and column, or -1."""
    columns, rows = values.argmax(dim=2), values.argmax(dim=1)
    own = torch.arange(values.shape[1], device=values.device)
    return torch.where(rows.gather(1, columns) == own, columns, UNMATCHED)


def _counts(found: Tensor, truth: Truth) -> tuple[int, int, int, int, int]:
    """Return how many nodes are right, known, truly matched rightly, truly matched, matched."""
    partners = truth.partners0
    known = partners >= UNMATCHED
    right = known & (found == partners)
    matched = partners >= 0
    said = known & (found >= 0)
    return tuple(int(x.sum()) for x in (right, known, right & matched, matched, said))  # type: ignore[return-value]
