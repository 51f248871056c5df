"""Pairs of few keypoints with known partners, as graph matching networks are trained on.

Keypoints are those of `DensePair`s: found in both pictures by a corner detector, or anywhere. Their
number is the same for all pairs of a batch, so that nothing has to be padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sfm_match.geometry.keypoint_graphs import adjacency, delaunay_edges
from sfm_match.models import vgg
from sfm_match.models.pygm_solvers import Graphs
from sfm_match.spec import ConfigError
from sfm_match.training.pairs import DensePair, Source
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Image

_NEAR = 3.0
"""Pixels within which a corner is found again."""
_CORNERS = 150
_CANDIDATES = 3
"""Of so many times the keypoints that are needed the most distant ones are taken."""
_TRIES = 100


@dataclass(frozen=True)
class Keypoints:
    """Which keypoints a pair has.

    Attributes:
        fewest: of each picture; the number of a batch is drawn between this and `most`.
        most: of each picture.
        detected: share of the pairs whose keypoints are corners, found in either picture by
            itself; those of the others are anywhere.
        jitter: standard deviation of their positions' errors, in pixels.
        unmatched: share of each picture's keypoints that have no partner.
    """

    fewest: int = 8
    most: int = 20
    detected: float = 0.5
    jitter: float = 1.0
    unmatched: float = 0.0


@dataclass(frozen=True, eq=False)
class KeypointPair:
    """Keypoints of two pictures.

    Attributes:
        image0: uint8 (H, W, 3).
        image1: uint8 (H', W', 3).
        points0: float32 (N, 2), corner-origin pixels.
        points1: float32 (N, 2).
        partners: bool (N, N), True where a row's keypoint of the first picture and a column's of
            the second one are the same thing: once at most in every row and column.
    """

    image0: Image
    image1: Image
    points0: ArrayF32
    points1: ArrayF32
    partners: ArrayBool


@dataclass(frozen=True)
class KeypointSide:
    """One side of the pairs of a batch.

    Attributes:
        images: float32 (B, 3, H, W), as `vgg.square` makes them but for the size.
        points: float32 (B, N, 2), in corner-origin pixels.
        linked: bool (B, N, N), the Delaunay graphs.
    """

    images: Tensor
    points: Tensor
    linked: Tensor

    def graphs(self, features: Tensor) -> Graphs:
        """Return the graphs with these features (B, N, C) of their keypoints."""
        return Graphs(features, self.points, self.places, self.linked)

    @property
    def places(self) -> Tensor:
        """The keypoints as if the images were squares of `vgg.SIDE` pixels."""
        height, width = self.images.shape[2:]
        return self.points * self.points.new_tensor([vgg.SIDE / width, vgg.SIDE / height])


@dataclass(frozen=True)
class KeypointBatch:
    """Pairs with as many keypoints each.

    Attributes:
        sides: the first pictures, the second ones.
        partners: float32 (B, N, N), 1 for partners.
    """

    sides: tuple[KeypointSide, KeypointSide]
    partners: Tensor

    def to(self, device: torch.device) -> KeypointBatch:
        """Return it on a device."""
        first, second = (
            KeypointSide(side.images.to(device), side.points.to(device), side.linked.to(device))
            for side in self.sides
        )
        return KeypointBatch((first, second), self.partners.to(device))


def make_batch(
    sources: Sequence[tuple[Source, float]], seed: int, number: int, size: int, wanted: Keypoints
) -> KeypointBatch:
    """Return a batch that depends on nothing but the sources, the seed and its number.

    Args:
        sources: each with how often it is drawn.
        seed: of the training.
        number: of the batch, from 0.
        size: how many pairs.
        wanted: which keypoints.

    Raises:
        ConfigError: the pictures of a hundred pairs share too little for so many keypoints.
    """
    rng = np.random.default_rng([seed, number])
    shares = np.array([share for _, share in sources], np.float64)
    num = int(rng.integers(wanted.fewest, wanted.most + 1))
    pairs = []
    for which in rng.choice(len(sources), size=size, p=shares / shares.sum()):
        pairs.append(_pair_of(rng, sources[which][0], num, wanted))
    return batch_of(pairs)


def _pair_of(rng: np.random.Generator, source: Source, num: int, wanted: Keypoints) -> KeypointPair:
    for _ in range(_TRIES):
        found = keypoint_pair(rng, source(rng), num, wanted)
        if found is not None:
            return found
    raise ConfigError(
        f"none of {_TRIES} pairs of pictures shares enough for {num} keypoints: "
        "take larger pictures, or fewer keypoints"
    )


def batch_of(pairs: Sequence[KeypointPair]) -> KeypointBatch:
    """Return tensors of pairs whose images have one size, with as many keypoints each."""
    first = _side([pair.image0 for pair in pairs], [pair.points0 for pair in pairs])
    second = _side([pair.image1 for pair in pairs], [pair.points1 for pair in pairs])
    partners = torch.from_numpy(np.stack([pair.partners for pair in pairs])).float()
    return KeypointBatch((first, second), partners)


def _side(images: Sequence[Image], points: Sequence[ArrayF32]) -> KeypointSide:
    planes = torch.from_numpy(np.stack(images)).movedim(3, 1).float() / vgg.DIVISOR
    linked = np.stack([adjacency(delaunay_edges(p), len(p)) for p in points])
    return KeypointSide(planes, torch.from_numpy(np.stack(points)), torch.from_numpy(linked))


def keypoint_pair(
    rng: np.random.Generator, pair: DensePair, num: int, wanted: Keypoints
) -> KeypointPair | None:
    """Return keypoints of a pair of pictures, far from each other, the second ones shuffled.

    Args:
        rng: source of all choices.
        pair: the pictures.
        num: how many keypoints each picture has.
        wanted: which ones.

    Returns:
        None where the pictures share too little.
    """
    num_alone = round(wanted.unmatched * num)
    needed = num + num_alone
    candidates = np.zeros((2, 0, 2), np.float32)
    if rng.random() < wanted.detected:
        candidates = _corners(pair)
    if candidates.shape[1] < needed:
        candidates = np.concatenate([candidates, _anywhere(rng, pair, 2 * needed)], axis=1)
    if candidates.shape[1] < needed:
        return None
    some = rng.permutation(candidates.shape[1])[: _CANDIDATES * needed]
    chosen = rng.permutation(some[_spread(candidates[0, some], needed)])
    shared, alone0, alone1 = np.split(chosen, [num - num_alone, num])
    rows0 = np.concatenate([shared, alone0])
    rows1 = rng.permutation(np.concatenate([shared, alone1]))
    points = []
    for image, positions in (
        (pair.image0, candidates[0, rows0]),
        (pair.image1, candidates[1, rows1]),
    ):
        moved = positions + wanted.jitter * rng.standard_normal(positions.shape)
        points.append(np.clip(moved, 0, image.shape[1::-1]).astype(np.float32))
    partners = np.asarray(rows0[:, None] == rows1, np.bool_)
    return KeypointPair(pair.image0, pair.image1, points[0], points[1], partners)


def _anywhere(rng: np.random.Generator, pair: DensePair, num: int) -> ArrayF32:
    """Return up to `num` positions in both pictures (2, M, 2): centres of pixels of the first."""
    rows, columns = np.nonzero(~np.isnan(pair.flow[..., 0]))
    some = rng.permutation(len(rows))[:num]
    here = np.stack([columns[some], rows[some]], axis=1) + np.float32(0.5)
    return np.stack([here.astype(np.float32), pair.flow[rows[some], columns[some]]])


def _corners(pair: DensePair) -> ArrayF32:
    """Return corners that are found in both pictures, within 3 px, (2, M, 2)."""
    found0, found1 = _detect(pair.image0), _detect(pair.image1)
    columns, rows = np.floor(found0).astype(np.int64).T
    inside = found0 - (np.stack([columns, rows], axis=1) + np.float32(0.5))
    carried = pair.flow[rows, columns] + inside
    seen = np.flatnonzero(~np.isnan(carried[:, 0]))
    if len(seen) == 0 or len(found1) == 0:
        return np.zeros((2, 0, 2), np.float32)
    distances, there = (np.asarray(x) for x in cKDTree(found1).query(carried[seen]))
    back = np.asarray(cKDTree(carried[seen]).query(found1)[1])
    again = (distances <= _NEAR) & (back[there] == np.arange(len(seen)))
    return np.stack([found0[seen[again]], found1[there[again]]])


def _detect(image: Image) -> ArrayF32:
    """Return the corners of Shi and Tomasi (CVPR 1994), (N, 2), in corner-origin pixels."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(grey, _CORNERS, 0.01, 5)
    # OpenCV's may be none at all, which its types do not tell.
    corners = np.zeros((0, 2)) if found is None else found.reshape(-1, 2)
    return np.asarray(corners + 0.5, np.float32)


def _spread(points: ArrayF32, num: int) -> npt.NDArray[np.int64]:
    """Return the rows of `num` points: the first one, then always the farthest from all these."""
    chosen = [0]
    distances: ArrayF64 = np.full(len(points), np.inf)
    for _ in range(num - 1):
        near = np.linalg.norm(points - points[chosen[-1]], axis=1)
        distances = np.minimum(distances, near)
        chosen.append(int(distances.argmax()))
    return np.array(chosen, np.int64)
