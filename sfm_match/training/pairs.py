"""Pairs of pictures with dense ground truth, which training takes its batches from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfm_match.types import ArrayF32, Image


@dataclass(frozen=True, eq=False)
class DensePair:
    """Two pictures, and where the pixels of the first lie in the second.

    Attributes:
        image0: uint8 (H, W, 3).
        image1: uint8 (H', W', 3).
        flow: float32 (H, W, 2), x and y in the second picture of the centre of each pixel of the
            first: absolute, corner-origin pixels; NaN where it is not seen or not known.
    """

    image0: Image
    image1: Image
    flow: ArrayF32


Source = Callable[[np.random.Generator], DensePair]
"""Makes a pair; the same state of the generator makes the same pair."""


@dataclass(frozen=True)
class Batch:
    """Pairs of one size.

    Attributes:
        images0: float32 (B, 3, H, W), from 0 to 1.
        images1: float32 (B, 3, H, W), from 0 to 1.
        flow: float32 (B, H, W, 2), as in `DensePair`.
    """

    images0: Tensor
    images1: Tensor
    flow: Tensor


def make_batch(sources: Sequence[tuple[Source, float]], seed: int, number: int, size: int) -> Batch:
    """Return a batch that depends on nothing but the sources, the seed and its number.

    So training that is taken up again sees the same batches as one that never stopped.

    Args:
        sources: each with how often it is drawn.
        seed: of the training.
        number: of the batch, from 0.
        size: how many pairs.
    """
    rng = np.random.default_rng([seed, number])
    shares = np.array([share for _, share in sources], np.float64)
    chosen = rng.choice(len(sources), size=size, p=shares / shares.sum())
    pairs = [sources[i][0](rng) for i in chosen]
    return Batch(
        _tensor([pair.image0 for pair in pairs]),
        _tensor([pair.image1 for pair in pairs]),
        torch.from_numpy(np.stack([pair.flow for pair in pairs])),
    )


def _tensor(images: Sequence[Image]) -> Tensor:
    stacked = torch.from_numpy(np.stack(images)).movedim(3, 1).float() / 255
    return stacked.contiguous(memory_format=torch.channels_last)
