"""Dual softmax between two sets, and who is each other's best, without the matrix of all pairs.

Sinkhorn's first two half-steps in one: a pair's probability is that of j among all partners of i,
times that of i among all partners of j (Rocco et al., "Neighbourhood Consensus Networks", NeurIPS
2018; Sun et al., "LoFTR", CVPR 2021). The matrix passes by twice in blocks of rows, once for the
sums that normalise it and once for its maxima: memory grows with N + M, not with N times M.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK_ROWS = 128  # of some thousand columns each, which fit in a core's cache


def mutual_maxima(
    a: Tensor,
    b: Tensor,
    bonus_a: Tensor | None = None,
    bonus_b: Tensor | None = None,
    block_rows: int = _BLOCK_ROWS,
) -> tuple[Tensor, Tensor]:
    """Return the pairs that are most probable for both sides.

    With s_ij = a_i . b_j, a pair's log probability is
    2 s_ij - log sum_k exp s_ik - log sum_k exp s_kj + bonus_a_i + bonus_b_j.

    Args:
        a: float32 (N, D).
        b: float32 (M, D).
        bonus_a: (N,) to be added to the log probabilities of a row, or None.
        bonus_b: (M,) to be added to those of a column, or None.
        block_rows: how many rows are computed at once; the result does not depend on it.

    Returns:
        The pairs' rows in a and b, int64 (K, 2), sorted by the first and none twice, and their log
        probabilities, float32 (K,).
    """
    if len(a) == 0 or len(b) == 0:
        return torch.zeros(0, 2, dtype=torch.long, device=a.device), a.new_zeros(0)
    blocks = [slice(start, start + block_rows) for start in range(0, len(a), block_rows)]
    out = a.new_empty(min(block_rows, len(a)), len(b))

    def products(block: slice) -> Tensor:
        rows = a[block]
        return torch.mm(rows, b.T, out=out[: len(rows)])

    of_rows, of_columns = a.new_empty(len(a)), a.new_full((len(b),), -torch.inf)
    for block in blocks:
        values = products(block)
        of_rows[block] = values.logsumexp(dim=1)
        torch.logaddexp(of_columns, values.logsumexp(dim=0), out=of_columns)
    of_rows = -of_rows if bonus_a is None else bonus_a - of_rows
    of_columns = -of_columns if bonus_b is None else bonus_b - of_columns

    best, column = torch.empty_like(of_rows), torch.empty(len(a), dtype=torch.long, device=a.device)
    best_of_columns = torch.full_like(of_columns, -torch.inf)
    row = torch.zeros(len(b), dtype=torch.long, device=a.device)
    for block in blocks:
        values = products(block).mul_(2).add_(of_columns).add_(of_rows[block, None])
        best[block], column[block] = values.max(dim=1)
        highest, where = values.max(dim=0)
        better = highest > best_of_columns
        best_of_columns = torch.where(better, highest, best_of_columns)
        row = torch.where(better, where + block.start, row)
    rows = torch.arange(len(a), device=a.device)
    rows = rows[row[column] == rows]
    return torch.stack([rows, column[rows]], dim=1), best[rows]
