"""Graph matching of two images' keypoints: a quadratic assignment at the scale of thousands.

Candidates by descriptor, a similarity that most neighbourhoods agree on as a prior, a spectral
stage that finds the candidates which support each other, a mean field with a dustbin that decides.
Nothing takes more memory than some tens of numbers per candidate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfm_match.models.descriptors import Descriptors, comparable, distances, k_nearest
from sfm_match.models.graph_matching_config import Config
from sfm_match.models.graph_matching_field import (
    Sizes,
    best_of_row_and_column,
    contradicted,
    mean_field,
    spectral_matches,
    spectral_scores,
)
from sfm_match.models.graph_matching_geometry import Candidates, Keypoints, vote_for_prior

_MAX_RATIO = 10.0
_MAX_DISTANCE = 2.0
_MIN_DISTANCE = 1e-6


def nearest_candidates(a: Descriptors, b: Descriptors, k: int) -> Candidates:
    """Return the k nearest neighbours of each descriptor, in both directions."""
    a, b = comparable(a, b)
    # Two at least, for the ratios.
    columns0, products0 = k_nearest(a, b, max(k, 2))
    columns1, products1 = k_nearest(b, a, max(k, 2))
    distances0 = distances(products0, a.cosine_per_product)
    distances1 = distances(products1, a.cosine_per_product)
    near0, near1 = columns0[:, :k], columns1[:, :k]
    rows0 = torch.cat([_numbered(near0), near1.flatten()])
    rows1 = torch.cat([near0.flatten(), _numbered(near1)])
    keys, place = torch.unique(rows0 * len(b) + rows1, return_inverse=True)
    # Found from both sides, a distance is the same up to rounding.
    distance = torch.full((len(keys),), _MAX_DISTANCE, device=keys.device)
    both = torch.cat([distances0[:, :k].flatten(), distances1[:, :k].flatten()])
    distance.scatter_reduce_(0, place, both, "amin")
    rows0, rows1 = keys // len(b), keys % len(b)
    other = torch.minimum(
        _least_other(columns0, distances0, rows0, rows1),
        _least_other(columns1, distances1, rows1, rows0),
    )
    return Candidates(
        rows0, rows1, (distance / other.clamp(min=_MIN_DISTANCE)).clamp(max=_MAX_RATIO)
    )


def _numbered(columns: Tensor) -> Tensor:
    """Return the row of each entry (N, K), flat."""
    return torch.arange(len(columns), device=columns.device).repeat_interleave(columns.shape[1])


def _least_other(columns: Tensor, found: Tensor, rows: Tensor, partners: Tensor) -> Tensor:
    """Return the least distance of each row (C,) to another than its partner (C,)."""
    if columns.shape[1] < 2:
        return torch.full((len(rows),), _MAX_DISTANCE, device=rows.device)
    return torch.where(columns[rows, 0] == partners, found[rows, 1], found[rows, 0])


def candidates_of_matches(rows: Tensor, scores: Tensor, best_ratio: float) -> Candidates:
    """Take matches (M, 2) as candidates; their scores (M,) count by rank only.

    The share of matches with a lower score goes from 0 to 1, the ratio from 1 to `best_ratio`.
    """
    order = scores.sort().values
    lower = torch.searchsorted(order, scores) / max(len(scores) - 1, 1)
    return Candidates(rows[:, 0], rows[:, 1], 1 - (1 - best_ratio) * lower.float())


def solve(a: Keypoints, b: Keypoints, found: Candidates, config: Config) -> tuple[Tensor, Tensor]:
    """Decide which candidates are matches, one to one.

    Args:
        a: the keypoints of the first image.
        b: those of the second image.
        found: the candidates.
        config: the constants.

    Returns:
        int64 (M,), which candidates, by descending score; and their scores, float32 (M,):
        probabilities, or for `spectral` the eigenvector over its highest entry.
    """
    sizes = Sizes(len(a), len(b))
    everyone = torch.arange(len(found), device=found.rows0.device)
    certain = best_of_row_and_column(found, -found.ratios, everyone, sizes)
    seeds = certain[found.ratios[certain] <= 1]
    if len(seeds) == 0:
        return seeds, found.ratios[seeds]
    prior = vote_for_prior(a, b, found, seeds, config)
    scores = spectral_scores(a, b, found, seeds, prior, config)
    matched = spectral_matches(found, scores, sizes, config)
    if config.solver == "cascade":
        matched, scores = mean_field(a, b, found, matched, prior, config)
    else:
        scores = scores / scores.max()
    matched = matched[scores[matched].argsort(descending=True, stable=True)]
    if len(matched) < config.fallback_below:
        spare = seeds[~contradicted(found, seeds, matched, sizes)]
        kept = torch.cat([scores[matched], torch.zeros(len(spare), device=scores.device)])
        return torch.cat([matched, spare]), kept
    return matched, scores[matched]
