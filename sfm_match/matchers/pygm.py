"""pygmtools' graph matching: RRWM, SM, IPFP, and the networks NGM, PCA-GM, IPCA-GM and CIE.

The solvers of the literature, made for ten to a hundred keypoints that nearly all have a partner.
Larger images are divided into overlapping parts, whose matches are merged by vote; for thousands of
keypoints `graph` is better and far faster.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sfm_match import weights
from sfm_match.geometry.keypoint_graphs import adjacency, delaunay_edges, full_edges, knn_edges
from sfm_match.logs import log
from sfm_match.models import pygm_solvers, vgg
from sfm_match.models.descriptors import Descriptors, encode_descriptors
from sfm_match.models.graph_matching import nearest_candidates
from sfm_match.models.graph_matching_config import Config as GraphConfig
from sfm_match.models.graph_matching_field import Sizes, best_of_row_and_column
from sfm_match.models.graph_matching_geometry import (
    Keypoints,
    Prior,
    place_keypoints,
    vote_for_prior,
)
from sfm_match.models.pygm_config import CLASSICAL, EMBEDDING, Config
from sfm_match.models.pygm_parts import Indices, cut_parts, merge_votes
from sfm_match.models.pygm_solvers import Graphs, hungarian, memory, solve, with_dustbins
from sfm_match.models.pygm_weights import parted, read_tensors
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Features, Matcher, Matches, View

__all__ = ["CONCURRENT", "LICENCE", "NEEDS", "VERSION", "Config", "build", "resolve"]

VERSION = 1
NEEDS = frozenset({"features", "image"})
CONCURRENT = True
LICENCE = "Apache-2.0; pygmtools: MulanPSL-2.0"
LIBRARIES = ("pygmtools",)

_WEIGHTS = {
    "ngm": "ngm-voc",
    "pca_gm": "pca-gm-voc",
    "ipca_gm": "ipca-gm-voc",
    "cie": "cie-voc",
}
_DESCRIPTORS = "descriptors"
_DIGEST = re.compile("@[0-9a-f]{16}$")
_EMPTY = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
_VGG_WEIGHTS = "vgg16-bn"
_OWN_CNN = "{} holds the CNN of its node features too: set node_features to the same file"
# What solvers may keep of the parts that are matched at once.
_BYTES_AT_ONCE = 100_000_000


@dataclass(frozen=True)
class Encoded:
    """What depends on one image.

    Attributes:
        rows: int64 (N,), the rows of the features that the keypoints are.
        keypoints: in units of their spacing.
        places: float32 (N, 2), in pixels of the image squeezed into a square of 256 pixels.
        features: float32 (N, D), what keypoints are compared by.
        descriptors: the same, normalised, for nearest neighbours.
    """

    rows: Tensor
    keypoints: Keypoints
    places: Tensor
    features: Tensor
    descriptors: Descriptors

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class _Side:
    """One image's keypoints, as they are compared with those of another: see `Graphs`.

    Attributes:
        points: float32 (N, 2), turned and scaled as the other image is.
        own: float64 (N, 2), not turned: who is near to whom does not depend on the other image.
        places: float32 (N, 2).
        features: float32 (N, D).
    """

    points: Tensor
    own: ArrayF64
    places: Tensor
    features: Tensor

    def graphs(self, parts: Indices, config: Config) -> Graphs:
        """Return the graphs of some parts, rows int64 (B, n)."""
        linked = np.stack([_linked(points, config) for points in self.own[parts]])
        rows = torch.from_numpy(parts).to(self.points.device)
        return Graphs(
            features=self.features[rows],
            points=self.points[rows],
            places=self.places[rows],
            linked=torch.from_numpy(linked).to(rows.device),
        )


def _linked(points: ArrayF64, config: Config) -> ArrayBool:
    if config.graph == "delaunay":
        edges = delaunay_edges(points)
    elif config.graph == "knn":
        edges = knn_edges(points, config.neighbours)
    else:
        edges = full_edges(len(points))
    return adjacency(edges, len(points))


@dataclass(frozen=True)
class _Pygm:
    config: Config
    device: str
    solver: nn.Module | None
    vgg16: vgg.Vgg16 | None

    @torch.inference_mode()
    def encode(self, view: View) -> Encoded:
        assert view.features is not None
        kept = self._usable(view.features)
        found = view.features.take(kept)
        squeezed = found.keypoints * (np.float32(vgg.SIDE) / found.image_size).astype(np.float32)
        places = torch.from_numpy(squeezed).to(self.device)
        features = self._node_features(view, found, places)
        self._check(features)
        return Encoded(
            rows=torch.from_numpy(kept).to(self.device),
            keypoints=place_keypoints(found, self.device),
            places=places,
            features=features,
            descriptors=encode_descriptors(features),
        )

    def _usable(self, features: Features) -> npt.NDArray[np.int64]:
        """Return the rows that can be compared; the log says how many cannot."""
        if self.vgg16 is not None:
            return np.arange(len(features))
        finite = np.flatnonzero(np.isfinite(features.descriptors).all(axis=1))
        if len(finite) < len(features):
            bad = len(features) - len(finite)
            log.warning("pygm: %d of %d descriptors are not finite: ignored", bad, len(features))
        return finite

    def _node_features(self, view: View, found: Features, places: Tensor) -> Tensor:
        if self.vgg16 is None:
            descriptors = torch.from_numpy(found.descriptors).to(self.device).float()
            return nn.functional.normalize(descriptors, dim=1)
        assert view.image is not None
        image = view.image if view.image.ndim == 3 else np.stack([view.image] * 3, axis=2)
        return vgg.features_at(self.vgg16, torch.from_numpy(image).to(self.device), places)

    def _check(self, features: Tensor) -> None:
        if self.solver is None or self.config.solver not in EMBEDDING:
            return
        expected = pygm_solvers.num_features(self.solver)
        if features.shape[1] != expected:
            raise ConfigError(
                f"the weights {self.config.weights} of {self.config.solver} are for node features "
                f"of {expected} numbers, those of {self.config.node_features} have "
                f"{features.shape[1]}; the published weights are for node_features = "
                f"{_VGG_WEIGHTS!r}"
            )

    @torch.inference_mode()
    def match(self, pairs: Sequence[tuple[Encoded, Encoded]]) -> list[Matches]:
        return [self._match_pair(a, b) for a, b in pairs]

    def _match_pair(self, a: Encoded, b: Encoded) -> Matches:
        if len(a) == 0 or len(b) == 0:
            return _EMPTY
        seeds, prior = self._seeds(a, b)
        sides = _aligned(a, b, prior)
        if len(a) * len(b) <= self.config.largest**2:
            found, scores = self._match_at_once(*sides)
        elif self.config.partition:
            found, scores = self._match_parts(*sides, seeds)
        else:
            raise ConfigError(_too_large(self.config, len(a), len(b)))
        indices = torch.stack([a.rows[found[:, 0]], b.rows[found[:, 1]]], dim=1)
        return Matches(indices.cpu().numpy().astype(np.int32), scores.cpu().numpy())

    def _seeds(self, a: Encoded, b: Encoded) -> tuple[Tensor, Prior]:
        """Return mutual nearest neighbours, int64 (S, 2), the clearest first, and the prior."""
        found = nearest_candidates(a.descriptors, b.descriptors, 2)
        everyone = torch.arange(len(found), device=found.rows0.device)
        mutual = best_of_row_and_column(found, -found.ratios, everyone, Sizes(len(a), len(b)))
        mutual = mutual[found.ratios[mutual] <= 1]
        mutual = mutual[found.ratios[mutual].argsort(stable=True)]
        prior = Prior(0.0, 0.0)
        if self.config.align and len(mutual):
            prior = vote_for_prior(a.keypoints, b.keypoints, found, mutual, GraphConfig())
        return torch.stack([found.rows0[mutual], found.rows1[mutual]], dim=1), prior

    def _scores(self, a: Graphs, b: Graphs) -> Tensor:
        there = with_dustbins(solve(a, b, self.solver, self.config), self.config)
        if not self.config.symmetric:
            return there
        back = with_dustbins(solve(b, a, self.solver, self.config), self.config)
        return (there + back.transpose(1, 2)) / 2

    def _match_at_once(self, a: _Side, b: _Side) -> tuple[Tensor, Tensor]:
        graphs = [side.graphs(np.arange(len(side.own))[None], self.config) for side in (a, b)]
        (scores,) = self._scores(*graphs)
        found = hungarian(scores, self.config.min_score if self.config.dustbin else 0.0)
        return found, scores[found[:, 0], found[:, 1]]

    def _match_parts(self, a: _Side, b: _Side, seeds: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        parts = cut_parts(a.own, b.own, seeds.cpu().numpy(), config.part_nodes, config.overlap)

        def votes(block: slice) -> ArrayF32:
            graphs = a.graphs(parts[0][block], config), b.graphs(parts[1][block], config)
            return self._scores(*graphs).cpu().numpy()

        def similarity(rows0: Indices, rows1: Indices) -> ArrayF32:
            return (a.features[rows0] * b.features[rows1]).sum(dim=1).cpu().numpy()

        sizes = parts[0].shape[1], parts[1].shape[1]
        step = max(1, _BYTES_AT_ONCE // memory(config.solver, *sizes))
        found, scores = merge_votes(parts, votes, step, similarity)
        kept = scores > config.min_votes
        return torch.from_numpy(found[kept]).to(self.device), torch.from_numpy(scores[kept])


def _aligned(a: Encoded, b: Encoded, prior: Prior) -> tuple[_Side, _Side]:
    """Turn and scale the first image's keypoints as the prior says, half of the scale each way."""
    cos, sin = math.cos(prior.angle), math.sin(prior.angle)
    scale = math.exp(prior.log_scale / 2)
    x, y = a.keypoints.points
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=1)
    own0, own1 = (side.keypoints.points.T.double().cpu().numpy() for side in (a, b))
    return (
        _Side(turned * scale, own0, a.places, a.features),
        _Side(b.keypoints.points.T / scale, own1, b.places, b.features),
    )


def _too_large(config: Config, num0: int, num1: int) -> str:
    needed = memory(config.solver, num0, num1)
    return (
        f"{config.solver} on {num0} and {num1} keypoints would take {needed / 1e9:,.1f} GB "
        f"for what it keeps of every pair; its limit is {config.largest} keypoints in each image "
        f"(max_nodes). Set partition = true, which divides them into parts, take fewer keypoints, "
        "or use the matcher 'graph'"
    )


def resolve(config: Config, inputs: tuple[Spec, ...]) -> Config:
    """Name the weights of a network, and append their digest to the path of VGG's.

    Raises:
        LookupError: there are no such weights of VGG.
    """
    named = _DIGEST.sub("", config.node_features)
    if named != _DESCRIPTORS and named not in weights.CHECKPOINTS:
        config = replace(config, node_features=f"{named}@{weights.digest(named)[:16]}")
    return replace(config, weights=config.weights or _WEIGHTS.get(config.solver, ""))


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Matcher[Encoded, Matches]:
    """Return the matcher.

    Raises:
        ConfigError: a file of weights is not of this network.
        WeightsError: the weights are not to be had.
    """
    config = resolve(config, inputs)
    solver, vgg16 = None, None
    try:
        if config.solver not in CLASSICAL:
            state, cnn = parted(_read(config.weights))
            if cnn and config.node_features == _DESCRIPTORS:
                raise ConfigError(_OWN_CNN.format(config.weights))
            solver = pygm_solvers.network_from_state(config.solver, state).to(device)
        if config.node_features != _DESCRIPTORS:
            state = _read(_DIGEST.sub("", config.node_features))
            vgg16 = vgg.network_from_state(state).to(device)
    except ValueError as error:
        raise ConfigError(f"pygm: {error}") from None
    return _Pygm(config, device, solver, vgg16)


def _read(name: str) -> dict[str, Tensor]:
    """Return the tensors of a file of weights."""
    return read_tensors(weights.find(name))
