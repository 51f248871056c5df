"""Bilinear samples of maps (H, W, C), whose pixels have integer centres.

A sample is a weighted sum of the map at four pixels, which `torch.nn.functional.embedding_bag`
computes without copying them first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# What is sampled at once should fit in the processor's cache.
_SAMPLES_AT_ONCE = 16384


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Return weighted sums of rows of a table.

    Args:
        table: (P, C).
        rows: int64 (..., K), which rows to add.
        weights: (..., K), what to multiply them by.

    Returns:
        (..., C).
    """
    bags, num = rows.shape[:-1], rows.shape[-1]
    sums = functional.embedding_bag(
        rows.reshape(-1, num), table, mode="sum", per_sample_weights=weights.reshape(-1, num)
    )
    return sums.reshape(*bags, table.shape[1])


def corners(x: Tensor, y: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the four pixels around positions, and how much each counts in a bilinear sample.

    Args:
        x: (...).
        y: (...).
        width: of the map; what lies beyond it counts as zero.
        height: of the map.

    Returns:
        The pixels' columns and rows, int64 (..., 4), none beyond the map, and weights (..., 4).
    """
    left, top = x.floor(), y.floor()
    fx, fy = x - left, y - top
    gx, gy = 1 - fx, 1 - fy
    columns = torch.stack([left, left + 1, left, left + 1], dim=-1)
    rows = torch.stack([top, top, top + 1, top + 1], dim=-1)
    weights = torch.stack([gx * gy, fx * gy, gx * fy, fx * fy], dim=-1)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    return (
        columns.clamp(0, width - 1).long(),
        rows.clamp(0, height - 1).long(),
        weights * inside,
    )


def deformable_convolution(image: Tensor, moves: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve with 3 x 3 taps that are moved at every pixel, with zeros beyond the map.

    Dai et al., "Deformable Convolutional Networks", ICCV 2017.

    Args:
        image: (H, W, Cin).
        moves: (H, W, 18), y and x of each tap, row by row.
        weight: (9 * Cin, Cout), tap by tap.
        bias: (Cout,).

    Returns:
        (H, W, Cout).
    """
    height, width, channels = image.shape
    table = image.reshape(-1, channels)
    moves = moves.reshape(height, width, 9, 2)
    tap = torch.arange(9, device=image.device)
    across = torch.arange(width, device=image.device)[:, None] + tap % 3 - 1
    down = torch.arange(height, device=image.device)[:, None, None] + tap // 3 - 1
    out = image.new_empty(height, width, len(bias))
    num = max(1, _SAMPLES_AT_ONCE // (9 * width))
    for start in range(0, height, num):
        block = slice(start, start + num)
        y, x = down[block] + moves[block, ..., 0], across + moves[block, ..., 1]
        columns, rows, weights = corners(x, y, width, height)
        sampled = weighted_rows(table, rows * width + columns, weights)
        out[block] = sampled.flatten(2) @ weight + bias
    return out


@dataclass(frozen=True)
class _Axis:
    """Between which two of few rows (or columns) each of many lies.

    Attributes:
        near: int64 (n, 2).
        share: (n, 2), how much each of the two counts.
    """

    near: Tensor
    share: Tensor

    @classmethod
    def spread(cls, few: int, many: int, device: torch.device) -> _Axis:
        """Lay the first of many on the first of few, and the last on the last."""
        step = torch.tensor((few - 1) / max(1, many - 1), device=device)
        position = torch.arange(many, device=device) * step
        low = position.floor().long()
        second = position - low
        near = torch.stack([low, (low + 1).clamp(max=few - 1)], dim=1)
        return cls(near, torch.stack([1 - second, second], dim=1))


class Enlarged:
    """Maps enlarged bilinearly, corner pixels on corner pixels, where and when they are needed.

    Args:
        small: height and width (h, w) of the maps.
        large: height and width (H, W) of what they are enlarged to.
        device: where the maps are.
    """

    def __init__(
        self, small: tuple[int, int], large: tuple[int, int], device: torch.device
    ) -> None:
        self._width = small[1]
        self._down, self._across = (
            _Axis.spread(few, many, device) for few, many in zip(small, large, strict=True)
        )

    def at(self, image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return an enlarged map (h, w, C) at pixels, int64 (P,) and (P,): (P, C)."""
        near = self._down.near[rows, :, None] * self._width + self._across.near[columns, None]
        share = self._down.share[rows, :, None] * self._across.share[columns, None]
        return weighted_rows(image.flatten(0, 1), near.flatten(1), share.flatten(1))

    def rows(self, image: Tensor, rows: slice) -> Tensor:
        """Return some rows of an enlarged map (h, w, C): (n, W, C)."""
        near, share = self._down.near[rows], self._down.share[rows, 1, None, None]
        between = torch.lerp(image[near[:, 0]], image[near[:, 1]], share)
        # Its rows are the ones that are asked for, so that only columns are interpolated.
        size = len(near), len(self._across.near)
        large = functional.interpolate(
            between[None].movedim(3, 1), size, mode="bilinear", align_corners=True
        )
        return large[0].movedim(0, 2)
