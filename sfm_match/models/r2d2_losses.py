"""The losses that R2D2 is trained with (Revaud et al., NeurIPS 2019, sections 3.2 and 3.3).

Average precision follows He, Lu, Sclaroff, "Local Descriptors Optimized for Average Precision",
CVPR 2018: similarities are assigned to bins, softly, and precision and recall are those of bins.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

NUM_BINS = 20
_LEAST_SEEN = 0.25


class Ranking(NamedTuple):
    """Queries, each with a database to be ranked by similarity.

    Attributes:
        similarities: (Q, D), cosines.
        positive: bool (Q, D), what is the query's partner.
        negative: bool (Q, D), what is not; the rest takes no part.
        reliability: (Q,), mean reliability of the query's pixel and its partner.
    """

    similarities: Tensor
    positive: Tensor
    negative: Tensor
    reliability: Tensor


def warped(maps: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Return maps of a second image as the first one sees them; zeros where it does not.

    Args:
        maps: (B, C, H, W).
        flow: (B, H', W', 2), x and y in the second image of each pixel of the first, in
            corner-origin pixels; NaN where there is none.
        mode: bilinear or nearest.

    Returns:
        (B, C, H', W'). A pixel partly outside of the second image is mixed with zeros.
    """
    height, width = maps.shape[2:]
    # Pixel centres are at whole numbers on the sampler's grid, of which -1 and 1 are the outermost.
    grid = (flow - 0.5) * flow.new_tensor([2 / max(1, width - 1), 2 / max(1, height - 1)]) - 1
    far = grid.nan_to_num(nan=9.0)
    return functional.grid_sample(maps, far.to(maps.dtype), mode=mode, align_corners=True)


def seen(flow: Tensor, height: int, width: int) -> Tensor:
    """Return which pixels of the first image lie in one of the second's, bool (B, H', W')."""
    ones = flow.new_ones(len(flow), 1, height, width)
    return warped(ones, flow, mode="nearest")[:, 0] > 0


def cosine_loss(
    repeatability0: Tensor,
    repeatability1: Tensor,
    flow: Tensor,
    patch: int,
    zero_mean: bool = False,
    flat: float = 0.0,
) -> Tensor:
    """Return how unlike two repeatability maps are, patch by patch: 1 - mean cosine.

    Patches overlap by half; those of which the second image sees less than a quarter are left out.

    Args:
        repeatability0: (B, H, W).
        repeatability1: (B, H', W').
        flow: (B, H, W, 2), see `warped`.
        patch: side of a patch in pixels.
        zero_mean: take the mean off each patch first, so that a constant map is like no other.
        flat: root mean square below which a patch counts as nearly nothing: without it the
            gradient of a patch grows without limit as it becomes flat.
    """
    mask = seen(flow, *repeatability1.shape[1:])
    there = warped(repeatability1[:, None], flow)[:, 0]
    parts = torch.stack([repeatability0 * mask, there * mask, mask.to(there.dtype)], dim=1)
    columns = functional.unfold(parts, patch, stride=max(1, patch // 2))
    # (B, 3, pixels of a patch, patches)
    a, b, valid = columns.view(len(columns), 3, patch * patch, -1).unbind(1)
    count = valid.sum(dim=1, keepdim=True)
    if zero_mean:
        num = count.clamp(min=1)
        a = (a - a.sum(dim=1, keepdim=True) / num) * valid
        b = (b - b.sum(dim=1, keepdim=True) / num) * valid
    floor = count[:, 0] * flat**2 + 1e-12
    lengths = ((a**2).sum(dim=1) + floor) * ((b**2).sum(dim=1) + floor)
    cosines = (a * b).sum(dim=1) / lengths.sqrt()
    used = count[:, 0] >= _LEAST_SEEN * patch**2
    return 1 - (cosines * used).sum() / used.sum().clamp(min=1)


def peakiness_loss(repeatability: Tensor, patch: int) -> Tensor:
    """Return how far maps (B, H, W) are from having a peak in every window.

    1 - mean(max - mean) over windows of patch + 1 pixels, patch even, of the map, averaged over
    3 x 3 pixels before.
    """
    smooth = functional.avg_pool2d(repeatability[:, None], 3, stride=1, padding=1)
    highest = mean = smooth
    # Rows, then columns: a tenth of the work for windows of 17.
    for window in ((patch + 1, 1), (1, patch + 1)):
        half = (window[0] // 2, window[1] // 2)
        highest = functional.max_pool2d(highest, window, stride=1, padding=half)
        mean = functional.avg_pool2d(mean, window, stride=1, padding=half)
    return 1 - (highest - mean).mean()


def average_precision(
    similarities: Tensor, positive: Tensor, negative: Tensor, num_bins: int = NUM_BINS
) -> Tensor:
    """Return the average precision (Q,) of rankings, differentiable.

    Each similarity is shared between the two nearest of bins from 1 down to 0; lower ones are in
    the last. With more and more bins it becomes the exact one.

    Args:
        similarities: (Q, D), cosines.
        positive: bool (Q, D); a query without one has a precision of 0.
        negative: bool (Q, D); what is neither takes no part.
        num_bins: two at least.
    """
    place = (1 - similarities).clamp(0, 1) * (num_bins - 1)
    low = place.detach().floor().clamp(max=num_bins - 2)
    share = place - low  # of the farther bin
    bins = low.long()
    hits = _in_bins(bins, share, positive.to(place.dtype), num_bins)
    all_of_them = hits + _in_bins(bins, share, negative.to(place.dtype), num_bins)
    # Precision among all that are as similar as a bin, or more; a bin's part of the recall.
    precision = hits.cumsum(dim=1) / all_of_them.cumsum(dim=1).clamp(min=1e-12)
    recall = hits / hits.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return (precision * recall).sum(dim=1)


def _in_bins(bins: Tensor, share: Tensor, weights: Tensor, num_bins: int) -> Tensor:
    empty = weights.new_zeros(len(bins), num_bins)
    near = empty.scatter_add(1, bins, weights * (1 - share))
    return near.scatter_add(1, bins + 1, weights * share)


def reliability_loss(
    precision: Tensor, reliability: Tensor, kappa: float = 0.5, floor: float = 0.0
) -> Tensor:
    """Return the mean of 1 - [AP R + (1 - R) kappa].

    Args:
        precision: average precision (Q,).
        reliability: (Q,), from 0 to 1.
        kappa: the precision from which on a pixel is worth matching.
        floor: the gradient of the precision has at least this weight. In the paper it is R itself:
            a network that begins below kappa calls nothing reliable and learns no more.
    """
    value = precision.detach() * reliability + (1 - reliability) * kappa
    # Adds nothing to the value.
    gradient = (precision - precision.detach()) * reliability.detach().clamp(min=floor)
    loss: Tensor = 1 - (value + gradient).mean()
    return loss
