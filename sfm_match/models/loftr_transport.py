"""Optimal transport with dustbins, in the logarithmic domain.

Sarlin, DeTone, Malisiewicz, Rabinovich: "SuperGlue: Learning Feature Matching with Graph Neural
Networks", CVPR 2020, section 3.3; the iteration: Cuturi, "Sinkhorn Distances", NeurIPS 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor


def assign_with_dustbins(scores: Tensor, bin_score: float | Tensor, iterations: int) -> Tensor:
    """Return how much of each row goes to each column, a partial assignment.

    A row and a column for what stays unmatched are added; each row and column then holds a mass of
    1, the added row as much as there are columns, the added column as much as there are rows.
    Sinkhorn's iteration scales rows and columns to these masses in turn, rows first; its limit
    does not depend on that order.

    Args:
        scores: (N, L, S), the larger the more alike.
        bin_score: the score of staying unmatched; a tensor () where it is learnt.
        iterations: how often rows and columns are scaled.

    Returns:
        (N, L + 1, S + 1), from 0 to 1 but for the last row and column; columns sum to their masses.
    """
    batch, num_rows, num_columns = scores.shape
    unmatched = torch.as_tensor(bin_score, dtype=scores.dtype, device=scores.device)
    row = unmatched.expand(batch, 1, num_columns + 1)
    column = unmatched.expand(batch, num_rows, 1)
    padded = torch.cat([torch.cat([scores, column], dim=2), row], dim=1)
    row_mass = scores.new_zeros(num_rows + 1)
    row_mass[-1] = torch.tensor(float(num_columns)).log()
    column_mass = scores.new_zeros(num_columns + 1)
    column_mass[-1] = torch.tensor(float(num_rows)).log()
    u = scores.new_zeros(batch, num_rows + 1)
    v = scores.new_zeros(batch, num_columns + 1)
    for _ in range(iterations):
        u = row_mass - (padded + v[:, None, :]).logsumexp(dim=2)
        v = column_mass - (padded + u[:, :, None]).logsumexp(dim=1)
    return (padded + u[:, :, None] + v[:, None, :]).exp()


def without_unmatched(assignment: Tensor) -> Tensor:
    """Return the assignment (N, L, S) without dustbins.

    Rows and columns whose largest share goes to a dustbin become zero.
    """
    inner = assignment[:, :-1, :-1]
    rows = inner.amax(dim=2) > assignment[:, :-1, -1]
    columns = inner.amax(dim=1) > assignment[:, -1, :-1]
    return inner * rows[:, :, None] * columns[:, None, :]
