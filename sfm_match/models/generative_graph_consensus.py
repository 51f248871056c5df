"""Where the neighbours' matches say that a node's partner is: local affine maps, coarse to fine.

The quadratic part of graph matching, without a matrix of pairs of pairs: two matches agree where
one affine map takes both keypoints of the one image to those of the other. Each node has a map of
its own, fitted to the soft matches around it with weights that fall with the distance and with the
residual (iteratively reweighted least squares with Cauchy's weight, Holland, Welsch 1977).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

_WIDTHS = (0.5, 0.25)  # of the neighbourhoods, in units of the keypoints' spread; all nodes first
_TOLERANCES = (0.25, 0.12, 0.06)  # of the positions, in the same unit
_RIDGE_GLOBAL, _RIDGE = 0.01, 0.3
_REWEIGHTINGS_GLOBAL, _REWEIGHTINGS = 4, 1
_SHARPNESS = 2.0
_LEAST_WEIGHT = 1e-4


class Prediction(NamedTuple):
    """What the neighbourhoods of N nodes say.

    Attributes:
        points: (B, N, 2), where the partners should be.
        maps: (B, N, 2, 2), the linear part of each node's affine map.
        support: (B, N), how many matches say so, weights added up.
        agreement: (B, N), from 0 to 1, which share that is of all matches in the neighbourhood.
    """

    points: Tensor
    maps: Tensor
    support: Tensor
    agreement: Tensor


class Consensus(nn.Module):
    """Lowers the scores of matches that their neighbourhoods contradict.

    Each of three stages makes soft matches of the scores, fits the maps, in both directions, and
    subtracts strength * agreement * log(1 + (miss / tolerance)^2). Widths, tolerances, strengths
    and the sharpness of the soft matches are learned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_widths = nn.Parameter(torch.tensor(_WIDTHS).log())
        self.log_tolerances = nn.Parameter(torch.tensor(_TOLERANCES).log())
        self.log_strengths = nn.Parameter(torch.zeros(len(_TOLERANCES)))
        self.log_sharpness = nn.Parameter(torch.full((len(_TOLERANCES),), _SHARPNESS).log())

    def forward(
        self, scores: Tensor, points0: Tensor, points1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new scores (B, N, M), and the support of the nodes (B, N), (B, M).

        Args:
            scores: (B, N, M), logits of the matches.
            points0: (B, N, 2), centred, with a mean square length of 1.
            points1: (B, M, 2), the same.
        """
        found = scores
        forth = back = None
        squared0, squared1 = (
            _squared_distances(points0, points0),
            _squared_distances(points1, points1),
        )
        for stage in range(len(_TOLERANCES)):
            tolerance = self.log_tolerances[stage].exp()
            width = self.log_widths[stage - 1].exp() if stage else None
            # 1. Soft matches: (B, N, M).
            sharp = self.log_sharpness[stage].exp() * found
            soft = sharp.softmax(dim=2) * sharp.softmax(dim=1)
            # 2. Where the partners should be, seen from either side.
            forth = predict(soft, points0, points1, squared0, width, tolerance, forth)
            back = predict(soft.mT, points1, points0, squared1, width, tolerance, back)
            # 3. One more than how far each possible match misses it, squared: (B, N, M).
            miss0 = 1 + _squared_distances(forth.points / tolerance, points1 / tolerance)
            miss1 = 1 + _squared_distances(points0 / tolerance, back.points / tolerance)
            # 4. What neighbourhoods say counts as much as they agree within themselves.
            agreed = (forth.agreement[:, :, None] * back.agreement[:, None, :]).sqrt()
            strength = self.log_strengths[stage].exp() * agreed
            found = scores - strength * (miss0 * miss1).log()
        assert forth is not None
        assert back is not None
        return found, forth.support, back.support


def predict(
    soft: Tensor,
    points: Tensor,
    others: Tensor,
    squared: Tensor,
    width: Tensor | None,
    tolerance: Tensor,
    coarser: Prediction | None,
) -> Prediction:
    """Fit an affine map around each node to the soft matches.

    Args:
        soft: (B, N, M), weights of the matches.
        points: (B, N, 2).
        others: (B, M, 2).
        squared: (B, N, N), the squared distances of the points.
        width: of the Gaussian neighbourhood; None for one that holds all nodes alike.
        tolerance: the miss at which a match weighs half.
        coarser: the maps that the fit is drawn towards, or None for the identity.
    """
    # 1. Where the matches of each node lie on average, and how much they weigh: (B, N, 2), (B, N).
    total = soft.sum(dim=2)
    partner = (soft @ others) / (total[..., None] + 1e-9)
    near = _neighbourhoods(squared, width)
    extent = torch.ones_like(tolerance) if width is None else width.square()
    if coarser is None:
        maps = torch.eye(2, device=points.device, dtype=points.dtype).expand(*total.shape, 2, 2)
        weights, pull, times = total, _RIDGE_GLOBAL * extent, _REWEIGHTINGS_GLOBAL
    else:
        maps = coarser.maps
        weights = total * _agreement(coarser.points, partner, tolerance)
        pull, times = _RIDGE * extent, _REWEIGHTINGS
    # 2. Fit, weigh by the residual, fit again.
    fitted = _fit(near, weights, points, partner, maps, pull)
    for _ in range(times):
        weights = total * _agreement(fitted.points, partner, tolerance)
        fitted = _fit(near, weights, points, partner, maps, pull)
    everyone = (near @ total[..., None])[..., 0]
    return fitted._replace(agreement=fitted.support / (everyone + _LEAST_WEIGHT))


def _neighbourhoods(squared: Tensor, width: Tensor | None) -> Tensor:
    """Return the weights (B, N, N), or (B, 1, N) where all nodes are in one neighbourhood."""
    if width is None:
        return torch.ones_like(squared[:, :1])
    return (-0.5 * squared / width.square()).exp()


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distances (B, N, M) of points of which no two are far from the origin."""
    left: Tensor = torch.cat(
        [-2 * x, x.square().sum(dim=2, keepdim=True), torch.ones_like(x[..., :1])], 2
    )
    right = torch.cat([y, torch.ones_like(y[..., :1]), y.square().sum(dim=2, keepdim=True)], 2)
    return (left @ right.mT).clamp_min(0)


def _agreement(predicted: Tensor, partner: Tensor, tolerance: Tensor) -> Tensor:
    return 1 / (1 + (predicted - partner).square().sum(dim=2) / tolerance.square())


def _fit(
    near: Tensor, weights: Tensor, x: Tensor, y: Tensor, prior: Tensor, ridge: Tensor
) -> Prediction:
    """Fit y = A x + t by weighted least squares around each node, A drawn towards a prior."""
    # 1. Sums over each neighbourhood, of the weights and of the first and second moments.
    outer = torch.cat([_outer(x, x), _outer(y, x)], dim=2)
    moments = weights[..., None] * torch.cat([torch.ones_like(x[..., :1]), x, y, outer], dim=2)
    sums = near @ moments
    support = sums[..., 0]
    means = sums[..., 1:] / (support[..., None] + _LEAST_WEIGHT)
    mean_x, mean_y = means[..., :2], means[..., 2:4]
    # 2. Covariances (B, N, 2, 2) and the linear part.
    xx = _square(means[..., 4:8] - _outer(mean_x, mean_x))
    yx = _square(means[..., 8:12] - _outer(mean_y, mean_x))
    eye = torch.eye(2, device=x.device, dtype=x.dtype)
    linear = (yx + ridge * prior) @ _inverse(xx + ridge * eye)
    # 3. What the map says of the node itself.
    predicted = mean_y + (linear @ (x - mean_x)[..., None])[..., 0]
    support = support.expand(x.shape[:2])
    return Prediction(predicted, linear, support, torch.ones_like(support))


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """Return the products (..., 4) of the components of a and b (..., 2), row by row."""
    return (a[..., :, None] * b[..., None, :]).flatten(-2)


def _square(values: Tensor) -> Tensor:
    return values.view(*values.shape[:-1], 2, 2)


def _inverse(matrices: Tensor) -> Tensor:
    """Return the inverses of symmetric positive definite 2 x 2 matrices."""
    a, b, c, d = matrices.flatten(-2).unbind(-1)
    adjugate = _square(torch.stack([d, -b, -c, a], dim=-1))
    return adjugate / (a * d - b * c).clamp_min(1e-12)[..., None, None]
