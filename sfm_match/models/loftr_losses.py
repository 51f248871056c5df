"""What LoFTR learns from: true matches of its coarse grid, and the losses of both stages.

Sun, Shen, Wang, Bao, Zhou: "LoFTR: Detector-Free Local Feature Matching with Transformers", CVPR
2021, section 3.5; the focal loss: Lin, Goyal, Girshick, He, Dollár: "Focal Loss for Dense Object
Detection", ICCV 2017.

As everywhere in LoFTR, cell (x, y) of a grid lies at the stride times (x, y), in corner-origin
pixels, and cells are numbered row by row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-6  # of a probability whose logarithm is taken
_TORN = 4.0


def cell_positions(rows: int, columns: int, stride: int) -> Tensor:
    """Return where the cells of a grid lie, float32 (rows * columns, 2), x and y."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([x, y], dim=2).flatten(0, 1).float() * stride


def warp_cells(flow: Tensor, stride: int) -> Tensor:
    """Return where the cells of the first image lie in the second.

    A cell lies where four pixels meet; the mean of theirs is its place. There is none at the upper
    and the left border, where one of the four is unknown, nor where they fly apart by more than
    4 pixels, at the edge of something.

    Args:
        flow: (B, H, W, 2), x and y in the second image of the centre of each pixel of the first:
            absolute, corner-origin pixels; NaN where it is unknown. The stride divides the sides.
        stride: pixels between cells.

    Returns:
        (B, H / stride * W / stride, 2); NaN where it is unknown.
    """
    height, width = flow.shape[1:3]
    padded = functional.pad(flow.movedim(3, 1), (1, 0, 1, 0), value=torch.nan)
    around = torch.stack(
        [
            padded[:, :, down : down + height : stride, right : right + width : stride]
            for down in (0, 1)
            for right in (0, 1)
        ]
    )
    torn = (around.amax(dim=0) - around.amin(dim=0)).amax(dim=1, keepdim=True) > _TORN
    return around.mean(dim=0).masked_fill(torn, torch.nan).flatten(2).mT


def mutual_cells(warped: Tensor, positions: Tensor) -> Tensor:
    """Return the true matches of two grids.

    Args:
        warped: (B, L, 2), where the cells of the first image lie in the second; NaN for unknown.
        positions: (S, 2), of the cells of the second image.

    Returns:
        int64 (K, 3): number of the pair, cell of the first image, and cell of the second that is
        the nearest of its warped position, while no warped position is nearer to that cell.
    """
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(warped, positions.to(warped), compute_mode=exact)
    distances = distances.nan_to_num(nan=torch.inf)
    nearest, back = distances.min(dim=2), distances.argmin(dim=1)
    cells = torch.arange(warped.shape[1], device=warped.device)
    mutual = (back.gather(1, nearest.indices) == cells) & nearest.values.isfinite()
    pairs, rows = mutual.nonzero(as_tuple=True)
    return torch.stack([pairs, rows, nearest.indices[pairs, rows]], dim=1)


def dual_softmax(tokens0: Tensor, tokens1: Tensor, temperature: float) -> Tensor:
    """Return how surely cells match, (B, L, S), by their tokens (B, L, C) and (B, S, C)."""
    similarity = tokens0 @ tokens1.mT / (tokens0.shape[2] * temperature)
    return similarity.softmax(dim=1) * similarity.softmax(dim=2)


def dual_softmax_loss(confidence: Tensor, matches: Tensor, gamma: float = 2.0) -> Tensor:
    """Return the focal loss of a dual softmax, the mean over true matches and that over all others.

    Args:
        confidence: (B, L, S), from 0 to 1.
        matches: int64 (K, 3), as from `mutual_cells`.
        gamma: how much less what is nearly right counts.
    """
    true = torch.zeros_like(confidence, dtype=torch.bool)
    true[tuple(matches.T)] = True
    p = confidence.clamp(_LEAST, 1 - _LEAST)
    of_matches, of_others = _focal(p[true], gamma), _focal(1 - p[~true], gamma)
    return of_matches.sum() / max(len(of_matches), 1) + of_others.mean()


def transport_loss(assignment: Tensor, matches: Tensor, gamma: float = 2.0) -> Tensor:
    """Return the focal loss of optimal transport, the mean over what should go where.

    A cell without a true match should go to the dustbin.

    Args:
        assignment: (B, L + 1, S + 1), as from `loftr_transport.assign_with_dustbins`.
        matches: int64 (K, 3), as from `mutual_cells`.
        gamma: how much less what is nearly right counts.
    """
    true = torch.zeros_like(assignment, dtype=torch.bool)
    true[:, :-1, -1] = True
    true[:, -1, :-1] = True
    pairs, rows, columns = matches.T
    true[pairs, rows, -1] = False
    true[pairs, -1, columns] = False
    true[pairs, rows, columns] = True
    return _focal(assignment[true].clamp(_LEAST, 1.0), gamma).mean()


def _focal(p: Tensor, gamma: float) -> Tensor:
    """Return the loss of what should be 1 and is `p`."""
    return -((1 - p) ** gamma) * p.log()


def fine_offsets(warped: Tensor, found: Tensor, positions: Tensor, reach: float) -> Tensor:
    """Return how far the true positions are from the cells that were found, (M, 2).

    Args:
        warped: (B, L, 2), where the cells of the first image lie in the second.
        found: int64 (M, 3): number of the pair, cell of the first and cell of the second image.
        positions: (S, 2), of the cells of the second image.
        reach: from the middle of a window to its outermost cells, in pixels: the unit.
    """
    pairs, rows, columns = found.T
    return (warped[pairs, rows] - positions.to(warped)[columns]) / reach


def fine_loss(expected: Tensor, offsets: Tensor) -> Tensor:
    """Return the mean squared distance of expected from true positions, the surest counting most.

    Weights are the inverse of the spread of the correlation around its expectation, with a mean of
    1, and are not derived: else it would pay to be unsure.

    Args:
        expected: (M, 3), x and y in a window from -1 to 1, and the spread.
        offsets: (M, 2), the true ones; NaN where unknown. Those outside of a window do not count.
    """
    inside = within_window(offsets)
    if not inside.any():
        return expected.sum() * 0
    weight = 1 / expected[inside, 2].detach().clamp(min=_LEAST)
    squared = (expected[inside, :2] - offsets[inside]).square().sum(dim=1)
    return (weight / weight.mean() * squared).mean()


def within_window(offsets: Tensor) -> Tensor:
    """Whether true offsets (M, 2) are known and lie in their windows, (M,)."""
    return (offsets.abs() < 1).all(dim=1)
