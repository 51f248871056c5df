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
from sfm_match.training.patch_evaluation import false_positive_rate
from sfm_match.types import ArrayBool, ArrayF64


class Evaluation(NamedTuple):
    """How well pairs are matched, in evaluation mode.

    Attributes:
        loss: the mean negative log-likelihood.
        accuracy: the share of nodes of known partner, unmatched ones too, that get it right.
        recall: the share of the true matches that are found.
        precision: the share of the found matches, of nodes of known partner, that are true.
        nearest_recall: the recall of mutual nearest neighbours, for comparison.
        nearest_precision: their precision.
        fpr95: of the mutual nearest neighbours of known partner that are wrong, the share that is
            as probable as 95 percent of the right ones are; 0 where all are of one kind.
        nearest_fpr95: the same share by the descriptors' cosine.
        cosines: the mean pairwise cosine of the node features after each layer.
    """

    loss: float
    accuracy: float
    recall: float
    precision: float
    nearest_recall: float
    nearest_precision: float
    fpr95: float
    nearest_fpr95: float
    cosines: tuple[float, ...]


@torch.no_grad()
def evaluate(
    network: GenerativeGraph, batches: Sequence[Batch], config: TrainingConfig
) -> Evaluation:
    """Match batches, each with its best, and compare with the truth; the network's mode is kept."""
    was_training = network.training
    network.eval()
    rows, cosines, told = [], [], []
    for batch in batches:
        completed = network(batch.graph0, batch.graph1)
        plan = plan_of(completed, config)
        # The plan is what is trained, if not the consensus alone; their thresholds differ.
        found = mutual_partners(plan if config.together else completed.similarity)
        similarity = batch.graph0.descriptors @ batch.graph1.descriptors.mT
        nearest = _mutual_best(similarity)
        told.append(_told(plan.nodes, similarity, nearest, batch.truth))
        loss = negative_log_likelihood(plan, batch.truth)
        rows.append([loss, *_counts(found, batch.truth), *_counts(nearest, batch.truth)])
        cosines.append([mean_pairwise_cosine(layer) for layer in completed.layers])
    network.train(was_training)
    table = torch.tensor(rows, dtype=torch.float64)
    sums = table.sum(dim=0).tolist()
    right, known, true, total, said = sums[1:6]
    _, _, nearest_true, _, nearest_said = sums[6:]
    odds, closeness, is_match = torch.cat(told, dim=1).double().numpy(force=True)
    return Evaluation(
        loss=sums[0] / len(batches),
        accuracy=right / max(known, 1),
        recall=true / max(total, 1),
        precision=true / max(said, 1),
        nearest_recall=nearest_true / max(total, 1),
        nearest_precision=nearest_true / max(nearest_said, 1),
        fpr95=_false_positives(odds, is_match > 0),
        nearest_fpr95=_false_positives(closeness, is_match > 0),
        cosines=tuple(torch.tensor(cosines).mean(dim=0).tolist()),
    )


def _mutual_best(values: Tensor) -> Tensor:
    """Return the columns (B, N) of values (B, N, M) that are best in row and column, or -1."""
    columns, rows = values.argmax(dim=2), values.argmax(dim=1)
    own = torch.arange(values.shape[1], device=values.device)
    return torch.where(rows.gather(1, columns) == own, columns, UNMATCHED)


def _told(plan: Tensor, cosines: Tensor, nearest: Tensor, truth: Truth) -> Tensor:
    """Return (3, K), of mutual nearest neighbours: log-probability, cosine, whether it is true."""
    chosen = (nearest >= 0) & (truth.partners0 >= UNMATCHED)
    columns = nearest.clamp_min(0)[..., None]
    values = [side.gather(2, columns)[..., 0] for side in (plan, cosines)]
    return torch.stack([side[chosen] for side in (*values, nearest == truth.partners0)])


def _false_positives(scores: ArrayF64, is_match: ArrayBool) -> float:
    both = is_match.any() and not is_match.all()
    return false_positive_rate(scores, is_match) if both else 0.0


def _counts(found: Tensor, truth: Truth) -> tuple[int, int, int, int, int]:
    """Return how many nodes are right, known, truly matched rightly, truly matched, matched."""
    partners = truth.partners0
    known = partners >= UNMATCHED
    right = known & (found == partners)
    matched = partners >= 0
    said = known & (found >= 0)
    return tuple(int(x.sum()) for x in (right, known, right & matched, matched, said))  # type: ignore[return-value]
