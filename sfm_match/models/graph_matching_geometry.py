"""The geometry of graph matching: keypoints in units of their spacing, neighbours, the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sfm_match.models.graph_matching_config import Config
from sfm_match.types import ArrayF32, Features

_HISTOGRAM_SMOOTHINGS = 2
_MEDIANS = 4


@dataclass(frozen=True)
class Keypoints:
    """The keypoints of one image, with their mean as origin and their spacing as unit.

    Attributes:
        points: float32 (2, N), x and y.
        log_scales: float32 (N,), or None where there are none or all are equal.
        orientations: float32 (N,) in radians, or None where there are none or all are equal.
    """

    points: Tensor
    log_scales: Tensor | None
    orientations: Tensor | None

    def __len__(self) -> int:
        return self.points.shape[1]


def place_keypoints(features: Features, device: str) -> Keypoints:
    """Return the keypoints in units of their spacing."""
    points = features.keypoints.astype(np.float64)
    unit = spacing(features.keypoints)
    centred = (points - points.mean(axis=0, keepdims=True)) / unit if len(points) else points
    scales, orientations = features.scales, features.orientations
    log_scales = None
    if scales is not None and (scales > 0).all() and _differ(scales):
        log_scales = torch.from_numpy(np.log(scales / unit).astype(np.float32)).to(device)
    if orientations is not None and _differ(orientations):
        angles = torch.from_numpy(orientations.copy()).to(device)
    else:
        angles = None
    placed = torch.from_numpy(np.ascontiguousarray(centred.T, np.float32))
    return Keypoints(placed.to(device), log_scales, angles)


def _differ(values: ArrayF32) -> bool:
    return len(values) > 0 and bool((values != values[0]).any())


def spacing(keypoints: ArrayF32) -> float:
    """Return the distance of neighbouring keypoints (N, 2) if they were spread evenly, in pixels.

    The area is that of the rectangle with their covariance; of points on a line it is their
    length that is divided. It grows with the image and does not turn with it. 1 where all points
    coincide.
    """
    if len(keypoints) < 2:
        return 1.0
    covariance = np.cov(keypoints.astype(np.float64).T, bias=True)
    sides = np.sqrt(12 * np.clip(np.linalg.eigvalsh(covariance), 0, None))
    unit = max(math.sqrt(sides[0] * sides[1] / len(keypoints)), sides[1] / len(keypoints))
    return float(unit) or 1.0


def nearest_points(points: Tensor, queries: Tensor, k: int) -> Tensor:
    """Return which of the points (2, S) are nearest to each of the queries (2, N), int64 (K, N).

    K is k, or S if that is less. A k-d tree on a CPU, all distances on a GPU.
    """
    k = min(k, points.shape[1])
    if points.device.type != "cpu":
        return torch.cdist(queries.T, points.T).topk(k, largest=False).indices.T.contiguous()
    tree = cKDTree(points.T.numpy())
    _, found = tree.query(queries.T.numpy(), k=np.arange(1, k + 1))
    return torch.from_numpy(np.ascontiguousarray(found.T))


class Candidates(NamedTuple):
    """Possible matches, no two alike.

    Attributes:
        rows0: int64 (C,), keypoints of the first image.
        rows1: int64 (C,), keypoints of the second image.
        ratios: float32 (C,), the distance of the descriptors over the least other distance of
            either keypoint; below 1 where each is the other's nearest neighbour.
    """

    rows0: Tensor
    rows1: Tensor
    ratios: Tensor

    def __len__(self) -> int:
        return len(self.rows0)


class Edges(NamedTuple):
    """What leads from each of C candidates to its K neighbours, which are seeds.

    Attributes:
        seeds: int64 (K, C), which of the seeds.
        steps0: two float32 (K, C), the way in the first image, along x and y.
        steps1: two float32 (K, C), the way in the second image.
        shared: bool (K, C), where candidate and neighbour share a keypoint: they exclude each
            other, or are the same.
    """

    seeds: Tensor
    steps0: tuple[Tensor, Tensor]
    steps1: tuple[Tensor, Tensor]
    shared: Tensor


def edges_to_seeds(a: Keypoints, b: Keypoints, found: Candidates, seeds: Tensor, k: int) -> Edges:
    """Lead each candidate to the k seeds nearest to it in either image.

    A seed that is near in both images is there twice: the two images play the same part.

    Args:
        a: the keypoints of the first image.
        b: those of the second image.
        found: the candidates.
        seeds: int64 (S,), which of the candidates are seeds, at least one.
        k: how many neighbours in each image.
    """
    rows0, rows1 = found.rows0, found.rows1
    near0 = nearest_points(a.points[:, rows0[seeds]], a.points, k)
    near1 = nearest_points(b.points[:, rows1[seeds]], b.points, k)
    to = torch.cat([near0.index_select(1, rows0), near1.index_select(1, rows1)])
    flat = to.view(-1)

    def at(values: Tensor) -> Tensor:
        return values[seeds].index_select(0, flat).view(to.shape)

    place0, place1 = a.points[:, rows0], b.points[:, rows1]
    return Edges(
        seeds=to,
        steps0=(at(place0[0]) - place0[0], at(place0[1]) - place0[1]),
        steps1=(at(place1[0]) - place1[0], at(place1[1]) - place1[1]),
        shared=(at(rows0) == rows0) | (at(rows1) == rows1),
    )


class Prior(NamedTuple):
    """The similarity that takes most neighbourhoods of the first image to the second.

    Attributes:
        log_scale: logarithm of the scale, between spacings.
        angle: of the rotation, in radians.
    """

    log_scale: float
    angle: float

    @property
    def matrix(self) -> tuple[float, float]:
        """``a`` and ``b`` of the matrix ``[[a, -b], [b, a]]``."""
        scale = math.exp(self.log_scale)
        return scale * math.cos(self.angle), scale * math.sin(self.angle)

    @property
    def inverse(self) -> Prior:
        """The similarity that takes the second image to the first."""
        return Prior(-self.log_scale, -self.angle)

    @property
    def noise(self) -> float:
        """The noise of a difference in the second image, where both have noise 1/sqrt(2)."""
        return math.sqrt((1 + math.exp(2 * self.log_scale)) / 2)

    @property
    def length(self) -> float:
        """What is a length of 1 between the two images, in the second one."""
        return math.exp(self.log_scale / 2)


def wrapped(angles: Tensor) -> Tensor:
    """Return angles between -pi and pi."""
    return torch.remainder(angles + math.pi, 2 * math.pi) - math.pi


def vote_for_prior(
    a: Keypoints, b: Keypoints, found: Candidates, seeds: Tensor, config: Config
) -> Prior:
    """Find the scale and rotation that most pairs of neighbouring seeds agree on.

    Each pair of seeds votes with the ratio of the two lengths between them and with the angle
    between the two directions. Seeds that are wrong vote for all angles alike, so each scale's
    median over the angles is their part, and is taken off.
    """
    chosen = Candidates(found.rows0[seeds], found.rows1[seeds], found.ratios[seeds])
    everyone = torch.arange(len(seeds), device=seeds.device)
    edges = edges_to_seeds(a, b, chosen, everyone, config.prior_neighbours + 1)
    (dx, dy), (ex, ey) = edges.steps0, edges.steps1
    length0, length1 = torch.hypot(dx, dy), torch.hypot(ex, ey)
    log_scales = length1.log() - length0.log()
    angles = torch.atan2(dx * ey - dy * ex, dx * ex + dy * ey)
    limit = config.prior_max_log_scale
    counts = (torch.minimum(length0, length1) > config.prior_min_length) & ~edges.shared
    counts &= log_scales.abs() < limit
    log_scales, angles = log_scales[counts], angles[counts]
    if len(angles) == 0:
        return Prior(0.0, 0.0)
    scale_bin, angle_bin = (
        2 * limit / config.prior_scale_bins,
        2 * math.pi / config.prior_angle_bins,
    )
    peak = _highest_bin(
        ((log_scales + limit) / scale_bin).long().clamp(0, config.prior_scale_bins - 1),
        ((angles + math.pi) / angle_bin).long() % config.prior_angle_bins,
        (config.prior_scale_bins, config.prior_angle_bins),
    )
    log_scale = (peak[0] + 0.5) * scale_bin - limit
    angle = (peak[1] + 0.5) * angle_bin - math.pi
    # From median to median, until where the bin lay does not matter.
    for _ in range(_MEDIANS):
        offsets = wrapped(angles - angle)
        near = (log_scales - log_scale).abs() < config.prior_scale_window
        near &= offsets.abs() < math.radians(config.prior_angle_window)
        if not bool(near.any()):
            break
        log_scale = float(log_scales[near].quantile(0.5))
        angle += float(offsets[near].quantile(0.5))
    return Prior(log_scale, angle)


def _highest_bin(rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the highest bin of a histogram (columns are a circle), smoothed, less medians."""
    counts = torch.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1])
    votes = counts.view(shape).float()
    for _ in range(_HISTOGRAM_SMOOTHINGS):
        padded = torch.nn.functional.pad(votes, (0, 0, 1, 1))
        votes = padded[:-2] + 2 * padded[1:-1] + padded[2:]
        votes = votes.roll(1, 1) + 2 * votes + votes.roll(-1, 1)
    highest = int((votes - votes.median(dim=1, keepdim=True).values).argmax())
    return highest // shape[1], highest % shape[1]
