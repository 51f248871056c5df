"""Local maxima of score maps, found and refined below the pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def is_local_maximum(values: Tensor) -> Tensor:
    """Return for each pixel (H, W) whether none of its eight neighbours is larger."""
    # Seven times as fast as pooling.
    wide = values.clone()
    wide[:, 1:] = torch.maximum(values[:, 1:], values[:, :-1])
    wide[:, :-1] = torch.maximum(wide[:, :-1], values[:, 1:])
    largest = wide.clone()
    largest[1:] = torch.maximum(wide[1:], wide[:-1])
    largest[:-1] = torch.maximum(largest[:-1], wide[1:])
    return largest == values


def refine(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return how far maxima lie from their pixels' centres, (N, 2) x and y, within half a pixel.

    A quadratic is fitted to the 3 x 3 pixels around each by least squares (Haralick's facet model,
    Computer Vision, Graphics, and Image Processing 1984); where it has no maximum, nothing moves.

    Args:
        logits: (H, W), whose logistic function is the repeatability: near a maximum a quadratic
            fits them better than it fits what saturates at 1.
        rows: (N,) of the maxima.
        columns: (N,) of the maxima.
    """
    padded = functional.pad(logits[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    steps = torch.arange(3, device=logits.device)
    # (N, 3, 3), from the pixel above and to the left to the one below and to the right.
    window = padded[(rows[:, None] + steps)[:, :, None], (columns[:, None] + steps)[:, None, :]]
    left, middle, right = window.mean(dim=1).unbind(dim=1)
    top, centre, bottom = window.mean(dim=2).unbind(dim=1)
    gx, gy = (right - left) / 2, (bottom - top) / 2
    gxx, gyy = left - 2 * middle + right, top - 2 * centre + bottom
    gxy = (window[:, 0, 0] + window[:, 2, 2] - window[:, 0, 2] - window[:, 2, 0]) / 4
    determinant = gxx * gyy - gxy**2
    is_maximum = (gxx < 0) & (gyy < 0) & (determinant > 0)
    moves = torch.stack([gxy * gy - gyy * gx, gxy * gx - gxx * gy], dim=1)
    moves = moves / determinant.where(is_maximum, 1)[:, None]
    return moves.where(is_maximum[:, None], 0).clamp(-0.5, 0.5)
