"""What neighbours' matches say about a possible match: learned messages between candidates.

The quadratic part of graph matching, without a matrix of pairs of pairs. Candidates are the nearest
by descriptor; each hears the seeds around it, the candidates that are best so far: whether one
affine map takes both to their partners, and whether their own scales and orientations agree. What
to make of that is learned, as a correction of the descriptors' word. The correction begins as 0:
before any training the mutual nearest neighbours win over "unmatched", and nobody else.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_match.models.descriptors import Descriptors
from sfm_match.models.graph_matching import nearest_candidates
from sfm_match.models.graph_matching_config import Config
from sfm_match.models.graph_matching_field import Sizes, best_of_row_and_column
from sfm_match.models.graph_matching_geometry import (
    Candidates,
    Edges,
    Keypoints,
    Prior,
    edges_to_seeds,
    spacing,
    vote_for_prior,
    wrapped,
)

_PRIOR = Config()
_NUM_CANDIDATES = 2
_NEIGHBOURS = 8  # in each image
_SEED = 0.1  # the least probability of a seed
_RATIO_WEIGHT = 4.0
_TOLERANCE, _NOISE = 0.35, 0.12  # of a neighbour's place: part of its distance, and spacings
_REACH, _SOFTENING, _PULL = 8.0, 0.6, 0.25  # of the affine fits, in spacings
_NUM_OWN, _NUM_EDGE = 6, 12
_HIDDEN = 32
_MAX_LOGIT = 15.0


class Pair(NamedTuple):
    """Two images' keypoints and their candidates.

    Attributes:
        keypoints0: of the first image, in units of their spacing.
        keypoints1: of the second image.
        found: the candidates.
        seeds: int64 (S,), those that are mutual nearest neighbours.
        prior: the similarity that most neighbourhoods agree on.
        cosines: float32 (C,), of the candidates' descriptors.
    """

    keypoints0: Keypoints
    keypoints1: Keypoints
    found: Candidates
    seeds: Tensor
    prior: Prior
    cosines: Tensor

    @property
    def sizes(self) -> Sizes:
        """The numbers of keypoints."""
        return Sizes(len(self.keypoints0), len(self.keypoints1))

    def best(self, scores: Tensor) -> Tensor:
        """Return which candidates have the highest score (C,) of both their keypoints."""
        everyone = torch.arange(len(scores), device=scores.device)
        return best_of_row_and_column(self.found, scores, everyone, self.sizes)


@torch.no_grad()
def pair_of(sides0: tuple[Tensor, Tensor, Tensor], sides1: tuple[Tensor, Tensor, Tensor]) -> Pair:
    """Find the candidates of two images.

    Args:
        sides0: descriptors (N, D), points (N, 2) and shapes (N, 3) of the first image, as in
            `generative_graph.Graph`.
        sides1: those of the second one.
    """
    (descriptors0, *place0), (descriptors1, *place1) = sides0, sides1
    a, b = _placed(*place0), _placed(*place1)
    found = nearest_candidates(
        Descriptors(descriptors0), Descriptors(descriptors1), _NUM_CANDIDATES
    )
    everyone = torch.arange(len(found), device=descriptors0.device)
    seeds = best_of_row_and_column(found, -found.ratios, everyone, Sizes(len(a), len(b)))
    seeds = seeds[found.ratios[seeds] <= 1]
    prior = vote_for_prior(a, b, found, seeds, _PRIOR) if len(seeds) else Prior(0.0, 0.0)
    cosines = (descriptors0[found.rows0] * descriptors1[found.rows1]).sum(dim=1)
    return Pair(a, b, found, seeds, prior, cosines)


def _placed(points: Tensor, shapes: Tensor) -> Keypoints:
    unit = spacing(points.cpu().numpy())
    log_scales = shapes[:, 0] - math.log(unit) if bool(shapes[:, 0].any()) else None
    turned = bool(shapes[:, 1:].any())
    orientations = torch.atan2(shapes[:, 2], shapes[:, 1]) if turned else None
    return Keypoints((points.T / unit).contiguous(), log_scales, orientations)


def log_probabilities(logits: Tensor, found: Candidates, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Return the logarithms of each candidate's share of its row and of its column, (C,) each.

    Every row and column holds "unmatched" beside its candidates, with a logit of 0.
    """
    unmatched0, unmatched1 = log_unmatched(logits, found, sizes)
    logits = logits.clamp(-_MAX_LOGIT, _MAX_LOGIT)
    return logits + unmatched0[found.rows0], logits + unmatched1[found.rows1]


def log_unmatched(logits: Tensor, found: Candidates, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the nodes' probabilities to be unmatched, (N,) and (M,)."""
    odds = logits.clamp(-_MAX_LOGIT, _MAX_LOGIT).exp()
    rows = odds.new_ones(sizes.num0).index_add(0, found.rows0, odds)
    columns = odds.new_ones(sizes.num1).index_add(0, found.rows1, odds)
    return -rows.log(), -columns.log()


class Votes(NamedTuple):
    """What the neighbourhoods make of the candidates.

    Attributes:
        logits: (C,) after each stage, against "unmatched", which has 0.
        support: (C,), how many neighbours there are, probabilities added up.
    """

    logits: list[Tensor]
    support: Tensor


class Consensus(nn.Module):
    """Some stages of messages, each with new seeds; without any, the descriptors decide alone."""

    def __init__(self, channels: int, stages: int) -> None:
        super().__init__()
        self.ratio_weight = nn.Parameter(torch.tensor(_RATIO_WEIGHT))
        self.stages = nn.ModuleList(_Stage(channels) for _ in range(stages))
        if stages:
            self.enter = nn.Sequential(
                nn.Linear(_NUM_OWN, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, channels)
            )

    def forward(self, pair: Pair, correction: Tensor | None = None) -> Votes:
        """Return the logits of the candidates.

        Args:
            pair: the keypoints and their candidates.
            correction: (C,), is added to what the descriptors say.
        """
        base = self.ratio_weight * (1 - pair.found.ratios).clamp(-1.5, 1.5)
        base = base if correction is None else base + correction
        support = torch.zeros_like(base)
        if not self.stages or len(pair.seeds) == 0:
            return Votes([base], support)
        relative, turn = _relative_shapes(pair)
        nodes = self.enter(_own(pair, relative, turn))
        logits, seeds, every = base, pair.seeds, []
        for stage in self.stages:
            assert isinstance(stage, _Stage)
            # 1. The seeds around each candidate, and what they weigh: (2 K, C).
            a, b = pair.keypoints0, pair.keypoints1
            edges = edges_to_seeds(a, b, pair.found, seeds, _NEIGHBOURS)
            heard = seeds[edges.seeds]
            rows, columns = log_probabilities(logits, pair.found, pair.sizes)
            weights = torch.minimum(rows, columns).exp()[heard] * ~edges.shared
            # 2. How far they agree with the candidate: (2 K, C, 12).
            agreement = _agreement(pair, edges, weights, stage.deviation.exp())
            shapes = _shape_agreement(edges, heard, relative, turn)
            said = torch.stack(
                [*agreement, *shapes, logits[heard] / 4, weights, (logits / 4).expand_as(weights)],
                dim=2,
            )
            # 3. What follows for the candidate: (C, H), (C,).
            nodes, support = stage(nodes, said, weights, heard, logits)
            logits = base + stage.out(nodes)[:, 0]
            every.append(logits)
            best = pair.best(logits.detach())
            rows, columns = log_probabilities(logits.detach(), pair.found, pair.sizes)
            seeds = best[torch.minimum(rows, columns)[best] > math.log(_SEED)]
            if len(seeds) == 0:
                break
        return Votes(every, support)


class _Stage(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edge = nn.Linear(_NUM_EDGE, _HIDDEN)
        self.neighbour = nn.Linear(channels, _HIDDEN, bias=False)
        self.own = nn.Linear(channels, _HIDDEN, bias=False)
        self.message = nn.Linear(_HIDDEN, channels)
        self.update = nn.Sequential(
            nn.Linear(2 * channels + 2, 3 * channels), nn.ReLU(), nn.Linear(3 * channels, channels)
        )
        self.norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, 1)
        self.deviation = nn.Parameter(torch.tensor([_TOLERANCE, _NOISE]).log())
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, nodes: Tensor, said: Tensor, weights: Tensor, heard: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the candidates (C, H) after the messages, and the sum of the weights (C,)."""
        mixed = self.edge(said) + self.neighbour(nodes)[heard] + self.own(nodes)
        messages = functional.relu(self.message(functional.relu(mixed)))
        share = 1 / _NEIGHBOURS
        total = weights.sum(dim=0)
        gathered = share * (weights[..., None] * messages).sum(dim=0)
        told = torch.cat([nodes, gathered, share * total[:, None], logits[:, None] / 4], dim=1)
        updated: Tensor = self.norm(nodes + self.update(told))
        return updated, total


def _relative_shapes(pair: Pair) -> tuple[Tensor, Tensor]:
    """Return log ratios of scales and differences of orientations, (C,); the prior's if unknown."""
    (a, b), found = (pair.keypoints0, pair.keypoints1), pair.found
    relative = torch.full_like(pair.cosines, pair.prior.log_scale)
    turn = torch.full_like(pair.cosines, pair.prior.angle)
    if a.log_scales is not None and b.log_scales is not None:
        relative = (b.log_scales[found.rows1] - a.log_scales[found.rows0]).clamp(-3, 3)
    if a.orientations is not None and b.orientations is not None:
        turn = wrapped(b.orientations[found.rows1] - a.orientations[found.rows0])
    return relative, turn


def _own(pair: Pair, relative: Tensor, turn: Tensor) -> Tensor:
    """Return what is known of each candidate alone, (C, 6)."""
    ratios = pair.found.ratios
    stretch = (relative - pair.prior.log_scale).abs().clamp(max=3)
    alike = (turn - pair.prior.angle).cos()
    known = [(1 - ratios).clamp(-1.5, 1.5), ratios.clamp(min=0.13, max=7.4).log(), pair.cosines]
    return torch.stack([*known, stretch, alike, (ratios < 1).to(ratios)], dim=1)


def _agreement(pair: Pair, edges: Edges, weights: Tensor, deviation: Tensor) -> list[Tensor]:
    """Return how well the prior and an affine map around each candidate fit its edges, (2 K, C).

    The map is fitted by least squares to the edges that the prior does not contradict, drawn
    towards it, and another one backwards: the two images play the same part.
    """
    prior = pair.prior
    area, length = math.exp(2 * prior.log_scale), prior.length
    (dx, dy), (ex, ey), (p, q) = edges.steps0, edges.steps1, prior.matrix
    px, py = p * dx - q * dy, q * dx + p * dy
    lengths = torch.maximum(px.square() + py.square(), ex.square() + ey.square()).sqrt()
    by_prior = (ex - px).square() + (ey - py).square()
    sigma = deviation[0] * lengths + deviation[1] * prior.noise
    near = 1 / (1 + (lengths / (_REACH * length)).square())
    weights = weights * near * (-0.5 * by_prior / sigma.square()).exp()
    weights = weights / (lengths + _SOFTENING * length).square()
    there = residuals(edges.steps0, edges.steps1, weights, prior)
    back = residuals(edges.steps1, edges.steps0, weights * area, prior.inverse)
    # In squares of the length that counts alike in either image.
    by_fit, by_prior = (there + area * back) / (2 * length**2), by_prior / length**2
    lengths = lengths / length
    relative = [x / (lengths.square() + 0.1) for x in (by_fit, by_prior)]
    absolute = [(x + 1e-2).log() / 3 for x in (by_fit, by_prior)]
    return [*absolute, *((x + 1e-3).log() / 3 for x in relative), (lengths + 0.3).log()]


def residuals(
    steps: tuple[Tensor, Tensor], images: tuple[Tensor, Tensor], weights: Tensor, prior: Prior
) -> Tensor:
    """Fit a 2 x 2 matrix to each candidate's edges; return their squared residuals, (2 K, C)."""
    (dx, dy), (p, q) = steps, prior.matrix
    xx = (weights * dx * dx).sum(dim=0) + _PULL
    xy = (weights * dx * dy).sum(dim=0)
    yy = (weights * dy * dy).sum(dim=0) + _PULL
    determinant = xx * yy - xy * xy
    squared = torch.zeros_like(weights)
    for image, (to_x, to_y) in zip(images, ((p, -q), (q, p)), strict=True):
        on_x = (weights * dx * image).sum(dim=0) + _PULL * to_x
        on_y = (weights * dy * image).sum(dim=0) + _PULL * to_y
        along_x, along_y = on_x * yy - on_y * xy, on_y * xx - on_x * xy
        squared = squared + (image - (along_x * dx + along_y * dy) / determinant).square()
    return squared


def _shape_agreement(edges: Edges, heard: Tensor, relative: Tensor, turn: Tensor) -> list[Tensor]:
    """Return how far the neighbours' and the candidates' own scales and orientations fit."""
    (dx, dy), (ex, ey) = edges.steps0, edges.steps1
    theirs, turns = relative[heard], turn[heard]

    def misfit(log_scale: Tensor, angle: Tensor) -> Tensor:
        scale = log_scale.exp()
        p, q = scale * angle.cos(), scale * angle.sin()
        mx, my = p * dx - q * dy, q * dx + p * dy
        squared = (ex - mx).square() + (ey - my).square()
        longer = torch.maximum(mx.square() + my.square(), ex.square() + ey.square())
        return (squared / (longer + 0.1 * scale) + 1e-3).log() / 3

    own = misfit(relative.expand_as(theirs), turn.expand_as(turns))
    return [misfit(theirs, turns), own, (theirs - relative).abs(), (turns - turn).cos()]
