"""The two solvers of graph matching: the seeded spectral stage and the affine mean field.

The association graph has the candidates as nodes. Its edges lead to the nearest seeds only, so it
has some tens of edges per candidate where the textbook's affinity is dense. The spectral stage is
that of Leordeanu and Hebert, "A Spectral Technique for Correspondence Problems Using Pairwise
Constraints" (ICCV 2005): the principal eigenvector of the affinities. The mean field approximates
the marginals of the same assignment with a dustbin for keypoints without partner; its affinities
come from an affine map that is fitted around each candidate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sfm_match.models.graph_matching_config import Config
from sfm_match.models.graph_matching_geometry import (
    Candidates,
    Edges,
    Keypoints,
    Prior,
    edges_to_seeds,
    wrapped,
)

_MAX_LOG_ODDS = 30.0


class Sizes(NamedTuple):
    """The numbers of keypoints of both images."""

    num0: int
    num1: int


def best_of_row_and_column(
    found: Candidates, scores: Tensor, alive: Tensor, sizes: Sizes
) -> Tensor:
    """Return which of some candidates have the highest score of both their keypoints.

    Of equal scores the candidate that comes first counts.

    Args:
        found: the candidates.
        scores: float32 (C,).
        alive: int64 (L,), which candidates compete, ascending.
        sizes: the numbers of keypoints.

    Returns:
        int64, ascending.
    """
    values = scores[alive]
    keep = torch.ones(len(alive), dtype=torch.bool, device=alive.device)
    for rows, num in ((found.rows0[alive], sizes.num0), (found.rows1[alive], sizes.num1)):
        best = torch.full((num,), -torch.inf, dtype=values.dtype, device=alive.device)
        best.scatter_reduce_(0, rows, values, "amax")
        which = torch.where(values == best[rows], alive, len(scores))
        first = torch.full((num,), len(scores), device=alive.device)
        first.scatter_reduce_(0, rows, which, "amin")
        keep &= alive == first[rows]
    return alive[keep]


def greedy_matches(found: Candidates, scores: Tensor, floor: float, sizes: Sizes) -> Tensor:
    """Match the highest score first, then the highest of what is left, one to one.

    Candidates that are the best of both their keypoints are matched at once in rounds: the result
    is that of matching them one by one.

    Returns:
        int64 (M,), candidates with a score above the floor.
    """
    alive = (scores > floor).nonzero()[:, 0]
    matched = []
    while len(alive):
        best = best_of_row_and_column(found, scores, alive, sizes)
        matched.append(best)
        alive = alive[~contradicted(found, alive, best, sizes)]
    return torch.cat([alive, *matched])


def contradicted(found: Candidates, which: Tensor, matched: Tensor, sizes: Sizes) -> Tensor:
    """Return which of some candidates share a keypoint with a match, bool."""
    taken = torch.zeros(len(which), dtype=torch.bool, device=which.device)
    for rows, num in ((found.rows0, sizes.num0), (found.rows1, sizes.num1)):
        used = torch.zeros(num, dtype=torch.bool, device=which.device)
        used[rows[matched]] = True
        taken |= used[rows[which]]
    return taken


def _lengths(edges: Edges, predicted: tuple[Tensor, Tensor]) -> Tensor:
    """Return the longer of the predicted and the true step in the second image, float32 (K, C)."""
    (px, py), (ex, ey) = predicted, edges.steps1
    return torch.maximum(px * px + py * py, ex * ex + ey * ey).sqrt_()


def _squared_residuals(edges: Edges, predicted: tuple[Tensor, Tensor]) -> Tensor:
    (px, py), (ex, ey) = predicted, edges.steps1
    return (ex - px).square_() + (ey - py).square_()


def _by_prior(edges: Edges, prior: Prior) -> tuple[Tensor, Tensor]:
    (dx, dy), (a, b) = edges.steps0, prior.matrix
    return a * dx - b * dy, b * dx + a * dy


def spectral_scores(
    a: Keypoints, b: Keypoints, found: Candidates, seeds: Tensor, prior: Prior, config: Config
) -> Tensor:
    """Return how far each candidate agrees with its neighbours and they with theirs, float32 (C,).

    That is the principal eigenvector of the symmetric matrix that has the affinities of
    candidates and seeds, both ways, and the descriptors' word on the diagonal.
    """
    edges = edges_to_seeds(a, b, found, seeds, config.spectral_neighbours)
    predicted = _by_prior(edges, prior)
    lengths, squared = _lengths(edges, predicted), _squared_residuals(edges, predicted)
    sigma = config.spectral_tolerance * lengths + config.spectral_noise * prior.noise
    weights = (squared / sigma.square_()).mul_(-0.5).exp_()
    weights *= ~edges.shared & (squared <= (config.spectral_cutoff * lengths).square_())
    odds = (config.ratio_weight * (config.spectral_ratio - found.ratios)).clamp(
        -config.max_unary, config.max_unary
    )
    own = torch.sigmoid(odds)
    ends = edges.seeds.view(-1)
    scores = own
    for _ in range(config.spectral_iterations):
        heard = scores[seeds].index_select(0, ends).view(weights.shape).mul_(weights).sum(dim=0)
        said = torch.zeros(len(seeds), device=scores.device)
        said.index_add_(0, ends, (weights * scores).view(-1))
        heard.index_add_(0, seeds, said)
        scores = heard.add_(config.spectral_unary * own * scores)
        scores /= scores.norm()
    return scores


def spectral_matches(found: Candidates, scores: Tensor, sizes: Sizes, config: Config) -> Tensor:
    """Return the matches of the spectral scores, int64 (M,), one to one."""
    num_high = min(len(scores), max(50, min(sizes) // 10))
    high = float(scores.topk(num_high).values.median())
    return greedy_matches(found, scores, config.spectral_floor * high, sizes)


def _unary(a: Keypoints, b: Keypoints, found: Candidates, prior: Prior, config: Config) -> Tensor:
    """Return what descriptors, scales and orientations say for each candidate, in log odds."""
    odds = (config.ratio_weight * (1 - found.ratios)).clamp(-config.max_unary, config.max_unary)
    penalty = torch.zeros_like(odds)
    if a.log_scales is not None and b.log_scales is not None:
        change = b.log_scales[found.rows1] - a.log_scales[found.rows0] - prior.log_scale
        penalty += (change / config.scale_deviation).square_()
    if a.orientations is not None and b.orientations is not None:
        turn = b.orientations[found.rows1] - a.orientations[found.rows0] - prior.angle
        penalty += (wrapped(turn) / config.orientation_deviation).square_()
    return odds - penalty.clamp(max=config.max_penalty)


def _probabilities(log_odds: Tensor, found: Candidates, sizes: Sizes) -> Tensor:
    """Return the probability of each candidate against its rivals and the dustbin, float32 (C,)."""
    odds = log_odds.clamp(max=_MAX_LOG_ODDS).exp()
    totals = []
    for rows, num in ((found.rows0, sizes.num0), (found.rows1, sizes.num1)):
        total = torch.ones(num, device=odds.device).index_add_(0, rows, odds)
        totals.append(total[rows])
    return odds / torch.maximum(*totals)


def _evidence(
    edges: Edges, weights: Tensor, prior: Prior, tolerance: float, config: Config
) -> Tensor:
    """Return what the neighbours say for each candidate, in log odds, float32 (C,).

    Affinities of the prior weight the fit of an affine map around each candidate, drawn towards
    the prior, and of one back; affinities of these maps are the evidence. Neighbours that do not
    agree count against the candidate.

    Args:
        edges: from candidates to seeds.
        weights: float32 (K, C), the probabilities of the seeds.
        prior: the prior.
        tolerance: the part of a neighbour's distance that its place may vary by.
        config: the constants.
    """
    predicted = _by_prior(edges, prior)
    lengths = _lengths(edges, predicted)
    weights = weights / (lengths / (config.reach * prior.length)).square_().add_(1)
    sigma = tolerance * lengths + config.noise * prior.noise
    exponent = -0.5 / sigma.square_()
    agreeing = weights * (_squared_residuals(edges, predicted) * exponent).exp_()
    h = agreeing / (lengths + config.softening * prior.length).square_()
    # The weights h are inverse squared lengths in the second image, and residuals squared ones.
    area = math.exp(2 * prior.log_scale)
    there = _squared_residuals(edges, _fit(edges.steps0, edges.steps1, h, prior, config))
    back = _squared_residuals(
        Edges(edges.seeds, edges.steps1, edges.steps0, edges.shared),
        _fit(edges.steps1, edges.steps0, h * area, prior.inverse, config),
    )
    agreeing = weights * (there.add_(back, alpha=area).mul_(0.5) * exponent).exp_()
    total = agreeing.sum(dim=0) - config.disagreement * weights.sum(dim=0)
    return total.clamp(-config.max_evidence, config.max_evidence)


def _fit(
    steps: tuple[Tensor, Tensor],
    images: tuple[Tensor, Tensor],
    h: Tensor,
    prior: Prior,
    config: Config,
) -> tuple[Tensor, Tensor]:
    """Fit a 2 x 2 matrix to each candidate's edges (weights h, (K, C)) and apply it to them.

    ``A = (sum h e d^T + w A0) (sum h d d^T + w I)^-1`` for steps d, their images e, the prior's
    matrix A0 and its weight w.
    """
    (dx, dy), (a, b), w = steps, prior.matrix, config.prior_weight
    hx, hy = h * dx, h * dy
    xx = (hx * dx).sum(dim=0) + w
    xy = (hx * dy).sum(dim=0)
    yy = (hy * dy).sum(dim=0) + w
    determinant = xx * yy - xy * xy
    predicted = []
    for image, prior_row in zip(images, ((a, -b), (b, a)), strict=True):
        on_x = (hx * image).sum(dim=0) + w * prior_row[0]
        on_y = (hy * image).sum(dim=0) + w * prior_row[1]
        to_x = (on_x * yy - on_y * xy) / determinant
        to_y = (on_y * xx - on_x * xy) / determinant
        predicted.append((to_x * dx).addcmul_(to_y, dy))
    return predicted[0], predicted[1]


def mean_field(
    a: Keypoints, b: Keypoints, found: Candidates, start: Tensor, prior: Prior, config: Config
) -> tuple[Tensor, Tensor]:
    """Return the matches of the mean field, int64 (M,), and all probabilities, float32 (C,).

    Args:
        a: the keypoints of the first image.
        b: those of the second image.
        found: the candidates.
        start: int64 (S,), the matches to start from.
        prior: the prior.
        config: the constants.
    """
    sizes, everyone = Sizes(len(a), len(b)), torch.arange(len(found), device=start.device)
    unary = _unary(a, b, found, prior, config)
    probabilities = _probabilities(unary, found, sizes)
    probabilities[start] = probabilities[start].clamp(min=config.start_probability)
    seeds = start
    for iteration in range(config.iterations):
        if len(seeds) == 0:
            break
        edges = edges_to_seeds(a, b, found, seeds, config.neighbours)
        weights = probabilities[seeds].index_select(0, edges.seeds.view(-1))
        weights = weights.view(edges.seeds.shape) * ~edges.shared
        progress = iteration / (config.iterations - 1) if config.iterations > 1 else 1.0
        tolerance = config.first_tolerance ** (1 - progress) * config.last_tolerance**progress
        log_odds = unary + _evidence(edges, weights, prior, tolerance, config) - config.bias
        probabilities = _probabilities(log_odds, found, sizes)
        best = best_of_row_and_column(found, probabilities, everyone, sizes)
        seeds = best[probabilities[best] > config.seed_probability]
    best = best_of_row_and_column(found, probabilities, everyone, sizes)
    return best[probabilities[best] > config.min_probability], probabilities
