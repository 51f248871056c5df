"""The losses that R2D2 is trained with (Revaud et al., NeurIPS 2019, sections 3.2 and 3.3).

Average precision follows He, Lu, Sclaroff, "Local Descriptors Optimized for Average Precision",
CVPR 2018: similarities are assigned to bins, softly, and precision and recall are those of bins.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sfm_match.models.local_maxima import refine

NUM_BINS = 20
_LEAST_SEEN = 0.25
_REACH = 3


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


def position_loss(
    logits0: Tensor, logits1: Tensor, flow: Tensor, num: int, spread: float = 0.8
) -> Tensor:
    """Return how far the second maps are from a peak where the first ones' peaks are carried to.

    Cross-entropy, less the least there is, of the window of 7 x 7 logits around each carried peak
    against a Gaussian at the very position: below the pixel, and of a shape whose logarithm is the
    quadratic that `refine` fits. The paper has no such term: its map may be flat on top.

    Args:
        logits0: (B, H, W), logarithms of the odds of repeatability.
        logits1: (B, H', W').
        flow: (B, H, W, 2), see `warped`.
        num: at most so many peaks of each first map, the highest of those that are no nearer to
            each other than four pixels.
        spread: standard deviation of the Gaussian, in pixels.
    """
    image, true = _carried_peaks(logits0.detach(), flow, num)
    height, width = logits1.shape[1:]
    reach = torch.arange(-_REACH, _REACH + 1, device=flow.device)
    pixel = true.floor().long()
    columns, rows = (pixel[:, i, None] + reach for i in (0, 1))
    inside = (columns[:, [0, -1]] >= 0) & (columns[:, [0, -1]] < width)
    inside &= (rows[:, [0, -1]] >= 0) & (rows[:, [0, -1]] < height)
    kept = inside.all(dim=1)
    image, true, columns, rows = image[kept], true[kept], columns[kept], rows[kept]
    window = logits1[image[:, None, None], rows[:, :, None], columns[:, None, :]]
    away = (columns[:, None, :] + 0.5 - true[:, 0, None, None]) ** 2 + (
        rows[:, :, None] + 0.5 - true[:, 1, None, None]
    ) ** 2
    target = (-away / (2 * spread**2)).flatten(1).softmax(dim=1)
    divergence = functional.kl_div(
        window.flatten(1).log_softmax(dim=1), target, reduction="none"
    ).sum(dim=1)
    return divergence.sum() / max(1, len(divergence))


def _carried_peaks(logits: Tensor, flow: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Return of which map each peak is, (N,), and its position in the second image, (N, 2)."""
    size = 2 * _REACH + 1
    highest = functional.max_pool2d(logits[:, None], size, stride=1, padding=_REACH)[:, 0]
    across = (flow[:, 1:-1, 2:] - flow[:, 1:-1, :-2]) / 2
    down = (flow[:, 2:, 1:-1] - flow[:, :-2, 1:-1]) / 2
    known = ~(across + down + flow[:, 1:-1, 1:-1]).isnan().any(dim=-1)
    is_peak = functional.pad(known, (1, 1, 1, 1)) & (highest == logits)
    ranked = logits.where(is_peak, -torch.inf).flatten(1)
    values, places = ranked.topk(min(num, ranked.shape[1]), dim=1)
    image, order = (values > -torch.inf).nonzero().unbind(dim=1)
    place = places[image, order]
    rows, columns = place // logits.shape[2], place % logits.shape[2]
    moves = torch.cat(
        [refine(one, rows[image == i], columns[image == i]) for i, one in enumerate(logits)]
    )
    jacobians = torch.stack([across, down], dim=-1)[image, rows - 1, columns - 1]
    return image, flow[image, rows, columns] + (jacobians @ moves[:, :, None])[..., 0]


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


def average_precision_of_one(
    similarity: Tensor, others: Tensor, negative: Tensor, num_bins: int = NUM_BINS
) -> Tensor:
    """Return `average_precision` (Q,) of queries with a single partner, at a tenth of the time.

    Args:
        similarity: (Q,), cosine of each query and its partner.
        others: (Q, D), cosines of what else is ranked.
        negative: bool (Q, D), which of these take part.
        num_bins: two at least.
    """
    last = num_bins - 1
    place = (1 - similarity).clamp(0, 1) * last
    low = place.detach().floor().clamp(max=last - 1)
    share = place - low  # of the farther bin
    # What is in later bins than the partner's two has no effect; that is nearly everything.
    lowest = (1 - (low + 2) / last).where(low < last - 1, -torch.inf)
    rows, columns = (negative & (others > lowest[:, None])).nonzero().unbind(dim=1)
    # The share of each that lies in the partner's nearer bin or before.
    before = others[rows, columns].clamp(0, 1) * last - last + 1 + low[rows]
    none = torch.zeros_like(similarity)
    near, far = (none.index_add(0, rows, (before + i).clamp(0, 1)) for i in (0, 1))
    return (1 - share) ** 2 / (1 - share + near).clamp(min=1e-12) + share / (1 + far)


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
