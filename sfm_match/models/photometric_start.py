"""Where to start an alignment: corners near correspondences, and the motion around them.

Corners: Shi and Tomasi, "Good Features to Track", CVPR 1994.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sfm_match.models.photometric import Motion, smoothed

_NEIGHBOURS = 16
_REWEIGHTINGS = 4
# How much the linear part differs from the identity, a priori: one standard deviation.
_LINEAR_PRIOR = 0.3
_BLOCK = 2048


def corners(image: Tensor, radius: int, window: int = 2) -> tuple[Tensor, Tensor]:
    """Return the corners of a grey image (1, 1, H, W) and how strong they are, strongest first.

    A corner is a maximum, over a square of 2 radius + 1 pixels a side, of the smaller eigenvalue of
    the structure tensor; its position is that of the parabola through three pixels in each axis.

    Args:
        image: from 0 to 255.
        radius: corners are farther apart than this, in pixels along an axis.
        window: how often the structure tensor is smoothed by (1, 2, 1) / 4: its window's radius.

    Returns:
        Points (N, 2) with the first pixel's centre at (0.5, 0.5), and strengths (N,), above zero.
    """
    if min(image.shape[2:]) < 2 * window + 6:
        return image.new_zeros(0, 2), image.new_zeros(0)
    gx = functional.pad((image[..., 2:] - image[..., :-2]) / 2, (1, 1, 0, 0))
    gy = functional.pad((image[:, :, 2:] - image[:, :, :-2]) / 2, (0, 0, 1, 1))
    products = torch.cat([gx * gx, gx * gy, gy * gy], dim=1)
    for _ in range(window):
        products = smoothed(products)
    xx, xy, yy = products[0]
    strength = (xx + yy) / 2 - (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    side = 2 * radius + 1
    across = functional.max_pool2d(strength[None, None], (1, side), 1, (0, radius))
    highest = functional.max_pool2d(across, (side, 1), 1, (radius, 0))[0, 0]
    # What lies at the border has seen too little of its surroundings.
    inner = torch.zeros_like(strength, dtype=torch.bool)
    margin = window + 2
    inner[margin:-margin, margin:-margin] = True
    rows, columns = ((strength == highest) & (strength > 1e-3) & inner).nonzero().T
    values = strength[rows, columns]
    order = values.argsort(descending=True, stable=True)
    rows, columns, values = rows[order], columns[order], values[order]
    x = columns + _peak(strength, rows, columns, 0, 1)
    y = rows + _peak(strength, rows, columns, 1, 0)
    return torch.stack([x, y], dim=1).to(image.dtype) + 0.5, values


def _peak(values: Tensor, rows: Tensor, columns: Tensor, dy: int, dx: int) -> Tensor:
    """Return where the parabola through three neighbours has its peak, from -0.5 to 0.5."""
    before, here = values[rows - dy, columns - dx], values[rows, columns]
    after = values[rows + dy, columns + dx]
    curvature = (before - 2 * here + after).clamp(max=-1e-9)
    return ((before - after) / (2 * curvature)).clamp(-0.5, 0.5)


def anchors(points: Tensor, candidates: Tensor, reach: float, num: int) -> tuple[Tensor, Tensor]:
    """Return which candidates lie near points, up to `num` for each point.

    A candidate belongs to the point nearest to it. Of a point's candidates the first ones are
    taken: sort them with the best first.

    Args:
        points: (M, 2).
        candidates: (N, 2).
        reach: how far a candidate may be, in pixels along an axis.
        num: of candidates for each point.

    Returns:
        int64 (K,), rows of candidates, and int64 (K,), the rows of their points.
    """
    if not len(points) or not len(candidates):
        empty = torch.zeros(0, dtype=torch.int64, device=points.device)
        return empty, empty
    blocks = torch.split(candidates, _BLOCK)
    nearest = [torch.cdist(block, points, p=torch.inf).min(dim=1) for block in blocks]
    distances = torch.cat([block.values for block in nearest])
    owners = torch.cat([block.indices for block in nearest])
    rows = (distances <= reach).nonzero()[:, 0]
    rows = rows[owners[rows].argsort(stable=True)]
    counts = owners[rows].bincount(minlength=len(points))
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(rows), device=points.device) - first[owners[rows]]
    rows = rows[rank < num]
    return rows, owners[rows]


def motion_around(points0: Tensor, points1: Tensor, at: Tensor, noise: float) -> Motion:
    """Return the motion of places in the first image, from the correspondences nearest to them.

    An affine motion is fitted to the nearest correspondences, robustly (iteratively reweighted
    least squares with Cauchy's weights), with a prior that the linear part is near the identity.

    Args:
        points0: (M, 2), correspondences in the first image; M is at least 1.
        points1: (M, 2), in the second image.
        at: (K, 2), places in the first image.
        noise: standard deviation of the correspondences, in pixels.
    """
    num = min(_NEIGHBOURS, len(points0))
    blocks = [_fit_around(points0, points1, block, num, noise) for block in torch.split(at, _BLOCK)]
    return Motion(
        torch.cat([block.points1 for block in blocks]),
        torch.cat([block.linear for block in blocks]),
    )


def _fit_around(points0: Tensor, points1: Tensor, at: Tensor, num: int, noise: float) -> Motion:
    distances, rows = torch.cdist(at, points0).topk(num, dim=1, largest=False)
    u = points0[rows] - at[:, None]  # (K, n, 2)
    moved = points1[rows] - at[:, None]
    # Near ones count more: half the weight at the middle of the neighbours' distances.
    reach = distances.median(dim=1, keepdim=True).values.clamp(min=1.0)
    near = 1 / (1 + (distances / reach) ** 2)
    design = torch.cat([u, torch.ones_like(u[..., :1])], dim=2)  # (K, n, 3)
    prior = torch.diag(u.new_tensor([1.0, 1.0, 0.0])) * (noise / _LINEAR_PRIOR) ** 2
    target = prior[:, :2]  # the prior's right side: an identity
    # Residuals start from the median displacement, which half of the neighbours cannot spoil.
    displacement = (moved - u).median(dim=1, keepdim=True).values
    weights = near / (1 + ((moved - u - displacement) ** 2).sum(dim=2) / (2 * noise) ** 2)
    solution = u.new_zeros(len(at), 3, 2)
    for _ in range(_REWEIGHTINGS):
        weighted = design.mT * weights[:, None]
        system = weighted @ design + prior + 1e-6 * torch.eye(3, device=u.device)
        solution = torch.linalg.solve(system, weighted @ moved + target)
        squared = ((design @ solution - moved) ** 2).sum(dim=2)
        weights = near / (1 + squared / noise**2)
    return Motion(at + solution[:, 2], solution[:, :2].mT.contiguous())
