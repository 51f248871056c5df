"""Sub-pixel positions by correlation of one descriptor with a map of descriptors.

The heat map of the correlations is a probability; its expectation is the position and its standard
deviation the uncertainty: LoFTR's fine stage (Sun et al., CVPR 2021, section 3.4), after Wang,
Zhou, Hariharan, Snavely, "Learning Feature Matching from Relative Poses", ECCV 2020 (CAPS).

Positions are (x, y) on the grid of a map, the first descriptor at (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Windows at once: their descriptors should stay in the processor's cache.
_CHUNK = 64


@dataclass(frozen=True)
class DescriptorMap:
    """Descriptors of one image, of length 1.

    Attributes:
        table: (h * w, C), row by row of the grid; of half precision where memory is dear.
        size: columns and rows of the grid.
    """

    table: Tensor
    size: tuple[int, int]


class Peak(NamedTuple):
    """Where a descriptor is found in a map.

    Attributes:
        positions: (M, 2).
        spread: (M,), standard deviation of the heat map, in steps of the grid.
        similarity: (M,), the highest correlation, from -1 to 1.
    """

    positions: Tensor
    spread: Tensor
    similarity: Tensor


def descriptor_map(vectors: Tensor) -> DescriptorMap:
    """Return the map of vectors (C, h, w) of any length, as float16."""
    table = functional.normalize(vectors.float(), dim=0).flatten(1).T
    return DescriptorMap(table.half().contiguous(), (vectors.shape[2], vectors.shape[1]))


def at(found: DescriptorMap, positions: Tensor) -> Tensor:
    """Return descriptors (M, C) at positions (M, 2), interpolated bilinearly, of length 1."""
    low = positions.floor()
    share = positions - low
    total = positions.new_zeros(len(positions), found.table.shape[1])
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (share[:, 0] if dx else 1 - share[:, 0]) * (
                share[:, 1] if dy else 1 - share[:, 1]
            )
            rows, _ = _rows(found, (low + positions.new_tensor([dx, dy])).long())
            total += weight[:, None] * found.table[rows].float()
    return functional.normalize(total, dim=1)


def find(
    descriptors: Tensor,
    found: DescriptorMap,
    around: Tensor,
    radius: int,
    step: int,
    temperature: float,
) -> Peak:
    """Return where descriptors are found in the windows around positions.

    Args:
        descriptors: (M, C), of length 1.
        found: where to look for them.
        around: (M, 2), middles of the windows, on its grid.
        radius: a window has 2 radius + 1 samples a side.
        step: between the samples, in steps of the grid.
        temperature: of the heat map; what a correlation is divided by.
    """
    axis = torch.arange(-radius, radius + 1, device=around.device) * step
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    offsets = torch.stack([x.flatten(), y.flatten()], dim=1)
    parts = [
        _find(descriptors[rows], found, around[rows], offsets, temperature)
        for rows in (slice(i, i + _CHUNK) for i in range(0, max(1, len(around)), _CHUNK))
    ]
    return Peak(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _find(
    descriptors: Tensor, found: DescriptorMap, around: Tensor, offsets: Tensor, temperature: float
) -> Peak:
    pixels = around.round().long()[:, None] + offsets
    rows, inside = _rows(found, pixels)
    windows = found.table[rows].float()
    correlation = (windows @ descriptors[..., None])[..., 0]
    correlation = correlation.masked_fill(~inside, -1.0)
    heat = (correlation / temperature).softmax(dim=1)
    mean = (heat[..., None] * pixels).sum(dim=1)
    variance = (heat * ((pixels - mean[:, None]) ** 2).sum(dim=2)).sum(dim=1)
    return Peak(mean, variance.sqrt(), correlation.amax(dim=1))


def _rows(found: DescriptorMap, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the table's rows of pixels (..., 2), the nearest of those beyond, and which are in."""
    width, height = found.size
    x, y = pixels[..., 0], pixels[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return y.clamp(0, height - 1) * width + x.clamp(0, width - 1), inside
