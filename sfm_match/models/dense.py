"""What an extractor's network says of all pixels of an image: for pictures and for inspection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sfm_match.models.r2d2 import Maps
from sfm_match.types import ArrayF32

STEP = 2
"""How many pixels lie between two dense descriptors, in x and in y."""


class DenseMaps(NamedTuple):
    """Descriptors and scores all over an image, in the size that the network sees it in.

    Attributes:
        descriptors: float32 (h, w, D), of every `STEP`-th pixel in x and y.
        maps: by what they are called, float32 (H, W), from 0 to 1.
    """

    descriptors: ArrayF32
    maps: Mapping[str, ArrayF32]


def dense_maps(descriptors: Tensor, **maps: Tensor) -> DenseMaps:
    """Return maps from tensors: descriptors (h, w, D), the others (H, W)."""
    normalised = torch.nn.functional.normalize(descriptors.float(), dim=2)
    named = {name: values.float().cpu().numpy() for name, values in maps.items()}
    return DenseMaps(normalised.cpu().numpy(), named)


def dense_of_blocks(blocks: Iterable[Maps]) -> DenseMaps:
    """Return the maps of one image from R2D2's blocks of rows (1, ..., h, W)."""
    # Most of a block is descriptors: what is left out is let go before the next one comes.
    kept = [
        (block.descriptors[..., ::STEP].clone(), block.reliability, block.repeatability)
        for block in blocks
    ]
    descriptors, reliability, repeatability = (
        torch.cat(parts, dim=-2)[0] for parts in zip(*kept, strict=True)
    )
    return dense_maps(
        descriptors[:, ::STEP].movedim(0, 2),
        reliability=reliability,
        repeatability=repeatability,
    )
