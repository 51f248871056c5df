"""Generative graph matching: a network that completes two graphs of keypoints with each other.

Self-supervised: see `sfm_match.models.generative_graph`; `sfm-match train generative-graph`.
Its weights belong to one kind of features. A pair of 1,500 keypoints a side takes 0.25 s of a CPU;
time and memory grow with the square of their number. Untrained, its most similar pairs are the
mutual nearest neighbours; what it learns are corrections, by what neighbouring matches say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match import weights
from sfm_match.logs import log
from sfm_match.models.generative_graph import GenerativeGraph, Graph
from sfm_match.models.generative_graph_inputs import (
    EdgeKind,
    Nodes,
    batch_of,
    load_network,
    nodes_of,
)
from sfm_match.models.generative_graph_solvers import (
    Similarity,
    costs_of,
    hungarian,
    log_shares,
    mutual_partners,
    sinkhorn,
    without_twins,
)
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import Features, Matcher, Matches, View

VERSION = 3
NEEDS = frozenset({"features"})
CONCURRENT = True
LICENCE = "Apache-2.0; the weights have their own"

_EMPTY = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `generative_graph`.

    Attributes:
        weights: the path of a file of weights, safetensors or torch.save's, trained on the
            features that are matched; empty for generative-graph-open, which is for `sift`.
        solver: `sinkhorn` keeps the pairs that are most probable for both sides in its plan, and
            more probable than each being unmatched: what the training teaches; `hungarian` takes
            the best match as a whole, with the negative similarity as costs: more matches, more
            of them wrong, and what the `black_box` solver trains; `mutual` keeps the pairs that
            are most similar for both sides and more similar than each to all queries together:
            what a network is made for of which only the consensus was trained.
        min_score: the probability that a match has to exceed.
        iterations: of Sinkhorn, as in training; it scores the matches of `hungarian` too.
        self_query_mask: forbid that a query matches its twin in the other graph, as in training.
        edges: of the graphs: a Delaunay triangulation, or nearest neighbours.
        num_neighbours: of each keypoint, for `knn`.
        max_keypoints: only the best of an image are matched: memory and time grow with the square
            of their number; 0 for all.
    """

    weights: str = ""
    solver: Literal["sinkhorn", "hungarian", "mutual"] = "sinkhorn"
    min_score: Annotated[float, Field(ge=0, lt=1)] = 0.1
    iterations: PositiveInt = 10
    self_query_mask: bool = True
    edges: EdgeKind = "delaunay"
    num_neighbours: PositiveInt = 8
    max_keypoints: NonNegativeInt = 4096


@dataclass(frozen=True)
class Encoded:
    """What depends on one image.

    Attributes:
        graph: its keypoints and their edges.
        rows: int64 (N,), the rows of the features that they are.
        nodes: float32 (1, N, C), from the encoder.
    """

    graph: Nodes
    rows: npt.NDArray[np.int64]
    nodes: Tensor


@dataclass(frozen=True)
class _GenerativeGraph:
    config: Config
    network: GenerativeGraph
    device: str

    @torch.inference_mode()
    def encode(self, view: View) -> Encoded:
        assert view.features is not None
        self._check(view.features)
        rows = _usable_rows(view.features, self.config.max_keypoints)
        features = view.features.take(rows)
        graph = nodes_of(features, self.config.edges, self.config.num_neighbours, self.device)
        if len(rows) == 0:
            channels = self.network.config.channels
            return Encoded(graph, rows, torch.zeros(1, 0, channels, device=self.device))
        return Encoded(graph, rows, self.network.encode(batch_of([graph])))

    def _check(self, features: Features) -> None:
        expected = self.network.config.descriptor_dim
        if features.descriptors.shape[1] != expected:
            raise ConfigError(
                f"the weights {self.config.weights} of generative_graph are for descriptors of "
                f"{expected} numbers, these have {features.descriptors.shape[1]}"
            )

    @torch.inference_mode()
    def match(self, pairs: Sequence[tuple[Encoded, Encoded]]) -> list[Matches]:
        return [self._match_pair(a, b) for a, b in pairs]

    def _match_pair(self, a: Encoded, b: Encoded) -> Matches:
        if len(a.rows) == 0 or len(b.rows) == 0:
            return _EMPTY
        graphs: list[Graph] = [batch_of([side.graph]) for side in (a, b)]
        similarity = self.network.complete(graphs[0], a.nodes, graphs[1], b.nodes).similarity
        if self.config.self_query_mask:
            similarity = without_twins(similarity)
        rows, columns, scores = self._solve(similarity)
        keep = scores > self.config.min_score
        indices = np.stack([a.rows[rows[keep]], b.rows[columns[keep]]], axis=1)
        order = np.argsort(indices[:, 0])
        return Matches(indices[order].astype(np.int32), scores[keep][order])

    def _solve(self, similarity: Similarity) -> tuple[Any, Any, npt.NDArray[np.float32]]:
        """Return the matched rows, columns, and their probabilities."""
        if self.config.solver == "mutual":
            found = mutual_partners(similarity)[0].cpu().numpy()
            scores = log_shares(similarity)[0]
        else:
            plan = sinkhorn(similarity, self.config.iterations)
            scores = plan.nodes[0]
            if self.config.solver == "sinkhorn":
                found = mutual_partners(plan)[0].cpu().numpy()
            else:
                found = _best_as_a_whole(similarity)
        rows = np.flatnonzero(found >= 0)
        columns = found[rows]
        return rows, columns, scores[rows, columns].exp().clamp(max=1).cpu().numpy()


def _best_as_a_whole(similarity: Similarity) -> npt.NDArray[np.int64]:
    """Return the partners (N,) of the first graph's nodes by the Hungarian algorithm, or -1."""
    num_queries = similarity.queries.shape[1]
    solution = hungarian(costs_of(similarity)[0].cpu().numpy(), num_queries)
    nodes = solution[:-num_queries, :-num_queries]
    return np.where(nodes.any(axis=1), nodes.argmax(axis=1), -1)


def _usable_rows(features: Features, max_keypoints: int) -> npt.NDArray[np.int64]:
    """Return the rows of finite descriptors, the best ones if there are too many."""
    rows = np.flatnonzero(np.isfinite(features.descriptors).all(axis=1)).astype(np.int64)
    if len(rows) < len(features):
        bad = len(features) - len(rows)
        log.warning(
            "generative_graph: %d of %d descriptors are not finite: ignored", bad, len(features)
        )
    if max_keypoints and len(rows) > max_keypoints:
        best = np.argsort(-features.scores[rows], kind="stable")[:max_keypoints]
        rows = np.sort(rows[best])
    return rows


def resolve(config: Config, inputs: tuple[Spec, ...]) -> Config:
    """Return the settings with the weights that belong to the extractor, unless some are named.

    Raises:
        ConfigError: no weights come with the package for the extractor's features.
    """
    if config.weights or not inputs:
        return config
    if inputs[0].name not in _WEIGHTS:
        raise ConfigError(
            f"generative_graph has no weights for the features of {inputs[0].name!r}, only for "
            f"those of {', '.join(_WEIGHTS)}; train some (sfm-match train generative-graph PHOTOS "
            f"OUT -o features={inputs[0].name}) and name their file: matcher.weights=FILE"
        )
    return replace(config, weights=_WEIGHTS[inputs[0].name])


_WEIGHTS = dict.fromkeys(("colmap_sift", "sift"), "generative-graph-open")


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Matcher[Encoded, Matches]:
    """Return the matcher.

    Raises:
        ConfigError: no weights are named, nor features.
        WeightsError: the weights are not those of this network.
    """
    if not config.weights:
        raise ConfigError("generative_graph needs weights without features: matcher.weights=FILE")
    network = load_network(str(weights.find(config.weights)))
    return _GenerativeGraph(config, network.to(device), device)
