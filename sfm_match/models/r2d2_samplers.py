"""Which pixels R2D2's descriptors are compared at in training: three ways to make rankings.

Maps may be smaller than their images by a whole `stride`; flows are those of the images, (B, H, W,
2), x and y in the second image of each pixel of the first, in corner-origin pixels, NaN where there
is none.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sfm_match.models.r2d2_losses import Ranking, seen, warped


class Described(NamedTuple):
    """What a network says of one side of a batch of pairs.

    Attributes:
        descriptors: (B, C, h, w), of length 1.
        reliability: (B, h, w), from 0 to 1.
    """

    descriptors: Tensor
    reliability: Tensor


class Rings(NamedTuple):
    """Distances of the neighbourhood sampler, in pixels.

    Attributes:
        grid: side of the cells that have a query each; between negatives that are taken from all
            over the batch.
        positive: a partner lies within so many of the true position.
        nearest: a negative lies no nearer than this,
        farthest: and those of the ring no farther than this.
        border: queries, partners and negatives from all over lie at least so far inside. Where a
            network sees the padding, it can tell where in the picture it is.
    """

    grid: int = 8
    positive: float = 3.0
    nearest: float = 5.0
    farthest: float = 7.0
    border: int = 0


def full_ranking(a: Described, b: Described, flow: Tensor) -> Ranking:
    """Return every pixel of the first images, each ranking all of the second, warped onto them.

    Memory grows with the square of the number of pixels: for small crops.
    """
    return grid_ranking(a, b, flow, border=0, query_stride=1, database_stride=1)


def grid_ranking(
    a: Described,
    b: Described,
    flow: Tensor,
    *,
    border: int = 16,
    query_stride: int = 8,
    database_stride: int = 8,
    within_image: bool = False,
) -> Ranking:
    """Return pixels on a grid, each ranking the warped descriptors of pixels on another grid.

    Args:
        a: of the first images, as large as the flow.
        b: of the second images.
        flow: (B, H, W, 2).
        border: pixels left out on every side.
        query_stride: between queries.
        database_stride: between what they rank.
        within_image: rank what is in the same pair only, not in the whole batch.
    """
    num, channels, height, width = a.descriptors.shape
    maps = torch.cat([b.descriptors, b.reliability[:, None]], dim=1)
    there = warped(maps, flow)
    descriptors = functional.normalize(there[:, :channels], dim=1)
    mask = seen(flow, *b.reliability.shape[1:])
    numbers = torch.arange(num * height * width, device=flow.device).view(num, height, width)

    def pixels(stride: int) -> Tensor:
        inner = numbers[:, border : height - border : stride, border : width - border : stride]
        return inner[mask.flatten()[inner]]

    def at(values: Tensor, rows: Tensor) -> Tensor:
        return values.movedim(1, 3).flatten(0, 2)[rows]

    queries, database = pixels(query_stride), pixels(database_stride)
    similarities = at(a.descriptors, queries) @ at(descriptors, database).T
    # The same pixel of the first image is the partner.
    positive = queries[:, None] == database[None]
    negative = ~positive
    if within_image:
        negative &= (queries // (height * width))[:, None] == (database // (height * width))[None]
    # A query that is not in the database has nothing to find.
    found = positive.any(dim=1)
    reliability = (a.reliability.flatten() + there[:, channels].flatten()) / 2
    return Ranking(
        similarities[found], positive[found], negative[found], reliability[queries][found]
    )


def neighbourhood_ranking(
    a: Described, b: Described, flow: Tensor, stride: int = 1, rings: Rings | None = None
) -> Ranking:
    """Return pixels on a grid; near the true position is the partner, around it are negatives.

    The query of a cell of the grid is the known pixel nearest to its middle.

    Of the candidates for the partner only the most similar counts. Negatives are the pixels of the
    ring around the true position, and the grid of all second images of the batch as far as it is
    not near it.

    Args:
        a: of the first images.
        b: of the second images.
        flow: (B, H, W, 2), of the images.
        stride: pixels of an image for one of a map.
        rings: the distances; those of the paper's training if None.
    """
    rings = rings or Rings()
    size1 = flow.new_tensor([b.reliability.shape[2], b.reliability.shape[1]]) * stride
    # 1. Queries: which image (Q,), where in the first one and in the second one (Q, 2).
    image, here, true = _queries(flow, size1, rings.grid, rings.border)
    vectors, reliability0 = sampled(a, image, here, stride)
    # 2. Candidates around the true position: (Q, P) and (Q, N).
    best, reliability1 = _best_partner(vectors, b, image, true, stride, rings.positive)
    ring = _disc(rings.nearest, rings.farthest, stride, flow)
    around = true[:, None] + ring
    near = sampled(b, image[:, None].expand(around.shape[:2]), around, stride)[0]
    near = (near @ vectors[:, :, None])[..., 0]
    near_inside = ((around >= 0) & (around < size1)).all(dim=-1)
    # 3. The grid of all second images: (Q, G).
    far, far_is_negative = _distractors(vectors, b, image, true, stride, rings)
    similarities = torch.cat([best[:, None], near, far], dim=1)
    negative = torch.cat([torch.zeros_like(near_inside[:, :1]), near_inside, far_is_negative], 1)
    positive = torch.zeros_like(negative)
    positive[:, 0] = True
    return Ranking(similarities, positive, negative, (reliability0 + reliability1) / 2)


def _queries(flow: Tensor, size1: Tensor, grid: int, border: int) -> tuple[Tensor, Tensor, Tensor]:
    inside = ((flow >= border) & (flow < size1 - border)).all(dim=-1)  # not where there is none
    if border:
        inner = torch.zeros_like(inside)
        inner[:, border:-border, border:-border] = True
        inside &= inner
    height, width = (side // grid * grid for side in flow.shape[1:3])
    # (B, cells down, cells across, pixels of a cell), the nearest to the middle first.
    cells = inside[:, :height, :width].unfold(1, grid, grid).unfold(2, grid, grid).flatten(3)
    axis = torch.arange(grid, device=flow.device)
    y, x = (values.flatten() for values in torch.meshgrid(axis, axis, indexing="ij"))
    order = ((x - grid // 2) ** 2 + (y - grid // 2) ** 2).argsort(stable=True)
    known = cells[..., order]
    image, row, column = known.any(dim=-1).nonzero().unbind(dim=1)
    pixel = order[known[image, row, column].to(torch.uint8).argmax(dim=-1)]
    y, x = row * grid + pixel // grid, column * grid + pixel % grid
    return image, torch.stack([x, y], dim=1) + 0.5, flow[image, y, x]


def corners(
    image: Tensor, positions: Tensor, size: tuple[int, int], stride: int
) -> tuple[Tensor, Tensor]:
    """Return which values of a map positions lie between, and their shares, both (..., 4).

    Args:
        image: int64 (...), which of the batch.
        positions: (..., 2), x and y in corner-origin pixels of the image; beyond the outermost
            centres of the map its border goes on.
        size: rows and columns of the map; its values are numbered row by row, image by image.
        stride: pixels of an image for one of the map.
    """
    height, width = size
    x = (positions[..., 0] / stride - 0.5).clamp(0, width - 1)
    y = (positions[..., 1] / stride - 0.5).clamp(0, height - 1)
    left, top = x.floor().clamp(max=max(0, width - 2)), y.floor().clamp(max=max(0, height - 2))
    fx, fy = x - left, y - top
    base = (image * height + top.long()) * width + left.long()
    right, below = int(width > 1), width * int(height > 1)
    rows = torch.stack([base, base + right, base + below, base + below + right], dim=-1)
    shares = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], dim=-1)
    return rows, shares


def sampled(of: Described, image: Tensor, positions: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Return descriptors (..., C), of length 1, and reliability (...) at positions, bilinearly.

    Args:
        of: the maps.
        image: int64 (...), which of the batch.
        positions: (..., 2), x and y in corner-origin pixels of the image; beyond the outermost
            centres of the map its border goes on.
        stride: pixels of an image for one of the map.
    """
    num, channels, height, width = of.descriptors.shape
    rows, shares = corners(image, positions, (height, width), stride)
    table = torch.cat([of.descriptors, of.reliability[:, None]], dim=1)
    table = table.movedim(1, 3).reshape(num * height * width, channels + 1)
    # Faster than gathering and summing.
    values = functional.embedding_bag(
        rows.reshape(-1, 4),
        table,
        per_sample_weights=shares.reshape(-1, 4).to(table.dtype),
        mode="sum",
    ).view(*image.shape, channels + 1)
    return functional.normalize(values[..., :channels], dim=-1), values[..., channels]


def _best_partner(
    vectors: Tensor, b: Described, image: Tensor, true: Tensor, stride: int, radius: float
) -> tuple[Tensor, Tensor]:
    """Return the highest similarity (Q,) within a radius, and the reliability there."""
    around = true[:, None] + _disc(0, radius, stride, true)
    found, reliability = sampled(b, image[:, None].expand(around.shape[:2]), around, stride)
    best = (found @ vectors[:, :, None])[..., 0].max(dim=1)
    return best.values, reliability.gather(1, best.indices[:, None])[:, 0]


def _disc(inner: float, outer: float, stride: int, like: Tensor) -> Tensor:
    """Return offsets (N, 2) on the map's grid whose length is from inner to outer pixels."""
    reach = int(outer // stride) * stride
    axis = torch.arange(-reach, reach + 1, stride, device=like.device, dtype=like.dtype)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    offsets = torch.stack([x.flatten(), y.flatten()], dim=1)
    length = offsets.norm(dim=1)
    return offsets[(length >= inner) & (length <= outer)]


def _distractors(
    vectors: Tensor, b: Described, image: Tensor, true: Tensor, stride: int, rings: Rings
) -> tuple[Tensor, Tensor]:
    """Return similarities (Q, G) to the grid of all second images, and which are no partners."""
    num, height, width = b.reliability.shape
    step, margin = max(1, rings.grid // stride), rings.border // stride
    rows, columns = (
        torch.arange(margin + step // 2, side - margin, step, device=true.device)
        for side in (height, width)
    )
    descriptors = b.descriptors[:, :, rows[:, None], columns].movedim(1, 3)
    # (Q, B, rows, columns), in the same image only.
    x, y = ((axis + 0.5) * stride for axis in (columns, rows))
    squared = (true[:, 0, None, None] - x) ** 2 + (true[:, 1, None, None] - y[:, None]) ** 2
    distant = torch.ones(len(true), num, len(rows), len(columns), dtype=torch.bool)
    distant = distant.to(true.device)
    distant[torch.arange(len(true), device=true.device), image] = squared >= rings.nearest**2
    return vectors @ descriptors.flatten(0, 2).T, distant.flatten(1)
