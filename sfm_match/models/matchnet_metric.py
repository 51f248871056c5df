"""MatchNet's metric network on many pairs of few descriptors.

Its first layer is linear on the concatenation of two descriptors: the sum of a projection of each.
They are computed once per image and side; a pair costs one sum and the two layers that follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_match.models.descriptors import Descriptors, comparable, k_nearest

# The hidden layers of so many pairs fit in a core's cache; the result does not depend on it.
BLOCK_PAIRS = 1024
_SEED = 0


@dataclass(frozen=True)
class Projections:
    """The first layer's share of each descriptor.

    Attributes:
        first: (N, H), where the descriptor is the first of a pair.
        second: (N, H), where it is the second; the layer's bias is in it.
    """

    first: Tensor
    second: Tensor

    def __len__(self) -> int:
        return len(self.first)


def project(metric: nn.Sequential, descriptors: Tensor) -> Projections:
    """Return what the first layer of the metric network needs of descriptors (N, F)."""
    layer = metric[0]
    assert isinstance(layer, nn.Linear)
    of_first, of_second = layer.weight.chunk(2, dim=1)
    return Projections(
        functional.linear(descriptors, of_first),
        functional.linear(descriptors, of_second, layer.bias),
    )


def match_odds(
    metric: nn.Sequential,
    a: Projections,
    b: Projections,
    pairs: Tensor,
    block_pairs: int = BLOCK_PAIRS,
) -> Tensor:
    """Return the logarithm of the odds that pairs match, (K,) float32.

    The probability, their logistic function, is the mean of those of both orders. It is told by its
    odds because near 1 they still differ where probabilities are rounded to the same number.

    Args:
        metric: the metric network.
        a: of the first image.
        b: of the second image.
        pairs: int64 (K, 2), rows of a and of b.
        block_pairs: how many are computed at once.
    """
    rest = metric[1:]
    odds = a.first.new_empty(len(pairs))
    for start in range(0, len(pairs), block_pairs):
        rows0, rows1 = pairs[start : start + block_pairs].unbind(1)
        # Both orders in one go: (2 K, H) -> (2 K, 2) -> (2, K).
        sums = torch.cat([a.first[rows0] + b.second[rows1], b.first[rows1] + a.second[rows0]])
        no, yes = rest(sums).unbind(1)
        of_both = (yes - no).view(2, -1)
        odds[start : start + block_pairs] = functional.logsigmoid(of_both).logsumexp(
            0
        ) - functional.logsigmoid(-of_both).logsumexp(0)
    return odds


def reduced(descriptors: Tensor, size: int) -> Tensor:
    """Return descriptors (N, F) in at most so many dimensions, for a first comparison.

    They are projected at random, always in the same way, which changes the ratios of distances by
    about 1 / sqrt(2 size) (Johnson and Lindenstrauss, Contemporary Mathematics 1984).
    """
    if descriptors.shape[1] <= size:
        return descriptors
    drawn = torch.randn(descriptors.shape[1], size, generator=torch.Generator().manual_seed(_SEED))
    return functional.normalize(descriptors, dim=1) @ drawn.to(descriptors)


def nearest_pairs(a: Descriptors, b: Descriptors, k: int) -> Tensor:
    """Return the pairs of which one is among the k nearest of the other: int64 (K, 2), sorted."""
    a, b = comparable(a, b)
    (columns, _), (rows, _) = k_nearest(a, b, k), k_nearest(b, a, k)
    near_a = torch.arange(len(a), device=columns.device)[:, None] * len(b) + columns
    near_b = torch.arange(len(b), device=columns.device)[:, None] + rows * len(b)
    keys = torch.unique(torch.cat([near_a.flatten(), near_b.flatten()]))
    return torch.stack([keys // len(b), keys % len(b)], dim=1)


def is_best(keys: Tensor, values: Tensor) -> Tensor:
    """Return whether each value is the highest of its key: bool (K,), of equals the first only.

    Args:
        keys: int64 (K,), from 0 on.
        values: (K,).
    """
    num = len(values)
    rank = torch.empty(num, dtype=torch.long, device=values.device)
    rank[values.sort(descending=True, stable=True).indices] = torch.arange(num, device=keys.device)
    num_keys = int(keys.max()) + 1 if num else 0
    best = torch.full((num_keys,), num, device=keys.device).scatter_reduce(0, keys, rank, "amin")
    return best[keys] == rank
