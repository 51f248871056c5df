"""Generative graph matching: two graphs of keypoints, each completed by what only the other has.

1. An encoder of graph convolutions on each image's keypoints alone.
2. An exchange between the two graphs. What it says, and the consensus of neighbourhoods, a
   quadratic term, are corrections of the descriptors' similarity; both begin as 0.
3. A decoder after DETR (Carion et al., ECCV 2020): learned queries hear the own graph and the
   other one, and become the embeddings of the nodes that are missing.
4. The similarity of the completed graphs, of equal structure now. A keypoint whose partner is a
   query is unmatched. `generative_graph_solvers` finds the match.

All layers are the same for either graph, and permute with the nodes. Before any training the
mutual nearest neighbours are more similar to each other than to any query, and no other nodes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor, nn

from sfm_match.models.generative_graph_consensus import Consensus, Pair, Votes, pair_of
from sfm_match.models.generative_graph_layers import (
    Adjacency,
    CentredNorm,
    Decoder,
    Exchange,
    GraphConvolution,
    perceptron,
)
from sfm_match.models.generative_graph_solvers import Similarity
from sfm_match.models.generative_graph_super import SuperNodes, attach

_EVIDENCE = 6
_REST = -5.0
NUM_SHAPE = 3


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NetworkConfig:
    """The structure of the network; a file of weights holds it.

    Attributes:
        descriptor_dim: the length of the descriptors.
        channels: of a node.
        heads: of the attentions; they divide the channels.
        convolutions: graph convolutions of the encoder.
        exchanges: how often the two graphs hear each other, a graph convolution after each.
        decoders: layers of the decoder.
        num_queries: learned queries of each graph.
        adjacency: `geometric` takes the edges as they are given, `learned` makes them from the
            nodes' features, `both` mixes the two.
        consensus: stages in which neighbourhoods vote; 0 for none.
        votes: channels of a candidate match in these.
        super_nodes: of the hypergraph; 0 for none.
    """

    descriptor_dim: PositiveInt = 128
    channels: PositiveInt = 32
    heads: PositiveInt = 2
    convolutions: NonNegativeInt = 2
    exchanges: NonNegativeInt = 1
    decoders: PositiveInt = 1
    num_queries: Annotated[int, Field(ge=2)] = 8
    adjacency: Adjacency = "geometric"
    consensus: NonNegativeInt = 2
    votes: PositiveInt = 16
    super_nodes: NonNegativeInt = 0

    def __post_init__(self) -> None:
        if self.channels % (2 * self.heads):
            raise ValueError(
                f"channels must be a multiple of twice the heads, got {self.channels} channels "
                f"and {self.heads} heads"
            )


class Graph(NamedTuple):
    """Keypoints as nodes of graphs, a batch of equal size.

    Attributes:
        descriptors: float32 (B, N, D), of length 1.
        points: float32 (B, N, 2), centred, with a mean square length of 1.
        shapes: float32 (B, N, 3), the logarithm of the scale in units of the points' spread, and
            the cosine and sine of the orientation; 0 where there are none.
        adjacency: float32 (B, N, N), rows sum to 1, or to 0 where there is no neighbour.
    """

    descriptors: Tensor
    points: Tensor
    shapes: Tensor
    adjacency: Tensor


@dataclass(frozen=True)
class Completed:
    """Two completed graphs.

    Attributes:
        similarity: of their nodes and queries.
        nodes0: (B, N, C), embeddings of the nodes of the first graph, as they are compared.
        nodes1: (B, M, C), of the second.
        memberships: (B, N, G) and (B, M, G), of the super-nodes; G is 0 where there are none.
        layers: the node features (B, N, C) after each layer, of both graphs in turn.
    """

    similarity: Similarity
    nodes0: Tensor
    nodes1: Tensor
    memberships: tuple[Tensor, Tensor]
    layers: list[Tensor]


class GenerativeGraph(nn.Module):
    """The network. It begins as a comparison of descriptors alone."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels, heads = config.channels, config.heads
        # Encoder.
        self.describe = nn.Linear(config.descriptor_dim, channels)
        self.frequencies = nn.Linear(2, channels // 2, bias=False)
        self.place = perceptron(channels + NUM_SHAPE, channels, channels)
        self.enter = CentredNorm(channels)
        self.convolutions = nn.ModuleList(
            GraphConvolution(channels, config.adjacency) for _ in range(config.convolutions)
        )
        # Exchange.
        self.exchanges = nn.ModuleList(Exchange(channels, heads) for _ in range(config.exchanges))
        self.after = nn.ModuleList(
            GraphConvolution(channels, config.adjacency) for _ in range(config.exchanges)
        )
        self.compare = nn.Linear(channels, channels)
        self.log_sharpness = nn.Parameter(torch.tensor(30.0).log())
        self.weight = nn.Parameter(torch.tensor(0.0))
        self.rest = nn.Parameter(torch.tensor(_REST))
        self.consensus = Consensus(config.votes, config.consensus)
        self.super_nodes = SuperNodes(channels, config.super_nodes) if config.super_nodes else None
        # Decoder.
        self.evidence = perceptron(_EVIDENCE, channels, channels)
        self.queries = nn.Parameter(torch.randn(config.num_queries, channels))
        self.decoders = nn.ModuleList(Decoder(channels, heads) for _ in range(config.decoders))
        self.to_query = nn.Linear(channels, channels)
        self.as_query = nn.Linear(channels, channels)
        # All queries together have a logit of 0.
        self.threshold = nn.Parameter(-torch.tensor(float(config.num_queries)).log())
        nn.init.normal_(self.frequencies.weight, std=2.0)
        nn.init.zeros_(self.to_query.weight)
        nn.init.zeros_(self.to_query.bias)

    def encode(self, graph: Graph, layers: list[Tensor] | None = None) -> Tensor:
        """Return nodes (B, N, C) that know of their own image.

        Args:
            graph: the keypoints of the image.
            layers: the node features after each layer are appended to it.
        """
        waves = self.frequencies(graph.points)
        place = self.place(torch.cat([waves.cos(), waves.sin(), graph.shapes], dim=2))
        nodes: Tensor = self.enter(self.describe(graph.descriptors) + place)
        _record(layers, nodes)
        for convolution in self.convolutions:
            nodes = convolution(nodes, graph.adjacency)
            _record(layers, nodes)
        return nodes

    def complete(self, graph0: Graph, nodes0: Tensor, graph1: Graph, nodes1: Tensor) -> Completed:
        """Complete two graphs with each other and compare them.

        Args:
            graph0: the first image's keypoints, N of them, at least 1.
            nodes0: (B, N, C), `encode` of it.
            graph1: the second image's keypoints, M of them, at least 1.
            nodes1: (B, M, C), `encode` of it.
        """
        layers: list[Tensor] = []
        cosines = graph0.descriptors @ graph1.descriptors.mT
        scores = self.log_sharpness.exp() * (cosines - 1)
        # 1. Each graph hears the other, and then itself: (B, N, C), (B, M, C).
        for exchange, convolution in zip(self.exchanges, self.after, strict=True):
            heard0 = exchange(nodes0, nodes1, scores)
            heard1 = exchange(nodes1, nodes0, scores.mT)
            nodes0 = convolution(heard0, graph0.adjacency)
            nodes1 = convolution(heard1, graph1.adjacency)
            layers += [nodes0, nodes1]
        # 2. Similarity of nodes: descriptors, what was heard, what neighbours say: (B, N, M).
        root = self.config.channels**0.5
        seen0, seen1 = self.compare(nodes0), self.compare(nodes1)
        rest = scores + self.rest
        compared = []
        for which in range(len(rest)):
            pair = _pair(graph0, graph1, which)
            rows0, rows1 = pair.found.rows0, pair.found.rows1
            products = (seen0[which, rows0] * seen1[which, rows1]).sum(dim=1)
            votes = self.consensus(pair, self.weight * products / root)
            compared.append(_dense(rest[which], pair, votes))
        scores, support0, support1 = (torch.stack(parts) for parts in zip(*compared, strict=True))
        scores, memberships = self._within_super_nodes(scores, nodes0, nodes1)
        # 3. What that tells each node: (B, N, C), (B, M, C).
        told0 = nodes0 + self.evidence(evidence(scores, cosines, support0))
        told1 = nodes1 + self.evidence(evidence(scores.mT, cosines.mT, support1))
        # 4. The queries become the missing nodes: (B, K, C) each.
        queries0 = self._decode(told0, told1)
        queries1 = self._decode(told1, told0)
        # 5. Similarity of the completed graphs.
        own0, own1 = self.to_query(told0), self.to_query(told1)
        similarity = Similarity(
            nodes=scores,
            unmatched0=own0 @ queries1.mT / root + self.threshold,
            unmatched1=own1 @ queries0.mT / root + self.threshold,
            queries=queries0 @ queries1.mT / root,
        )
        return Completed(similarity, seen0, seen1, memberships, layers)

    def forward(self, graph0: Graph, graph1: Graph) -> Completed:
        """Encode two graphs and complete them; `layers` holds those of the encoder too."""
        layers: list[Tensor] = []
        nodes0, nodes1 = self.encode(graph0, layers), self.encode(graph1, layers)
        completed = self.complete(graph0, nodes0, graph1, nodes1)
        completed.layers[:0] = layers
        return completed

    def vote(self, graph0: Graph, graph1: Graph) -> list[tuple[Pair, Votes]]:
        """Return what descriptors and neighbourhoods say, without the nodes' layers, by pair."""
        pairs = [_pair(graph0, graph1, which) for which in range(len(graph0.points))]
        return [(pair, self.consensus(pair)) for pair in pairs]

    def _decode(self, own: Tensor, other: Tensor) -> Tensor:
        queries = self.queries.expand(len(own), -1, -1)
        for decoder in self.decoders:
            queries = decoder(queries, own, other)
        decoded: Tensor = self.as_query(queries)
        return decoded

    def _within_super_nodes(
        self, scores: Tensor, nodes0: Tensor, nodes1: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        if self.super_nodes is None:
            return scores, (nodes0[:, :, :0], nodes1[:, :, :0])
        memberships0, memberships1 = self.super_nodes(nodes0), self.super_nodes(nodes1)
        attached = attach(scores, memberships0, memberships1, dual_softmax(scores))
        return attached, (memberships0, memberships1)


def _pair(graph0: Graph, graph1: Graph, which: int) -> Pair:
    sides = [(g.descriptors[which], g.points[which], g.shapes[which]) for g in (graph0, graph1)]
    return pair_of(sides[0], sides[1])


def _dense(rest: Tensor, pair: Pair, votes: Votes) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores (N, M) with those of the candidates, and the nodes' support (N,), (M,)."""
    rows0, rows1 = pair.found.rows0, pair.found.rows1
    scores = rest.index_put((rows0, rows1), votes.logits[-1])
    support0 = rest.new_zeros(len(rest)).scatter_reduce(0, rows0, votes.support, "amax")
    support1 = rest.new_zeros(rest.shape[1]).scatter_reduce(0, rows1, votes.support, "amax")
    return scores, support0, support1


def dual_softmax(scores: Tensor) -> Tensor:
    """Return the product of the softmax over rows and that over columns, (B, N, M)."""
    return scores.softmax(dim=2) * scores.softmax(dim=1)


def evidence(scores: Tensor, cosines: Tensor, support: Tensor) -> Tensor:
    """Return what tells whether the best partner of each node of a graph is one, (B, N, 6).

    Args:
        scores: (B, N, M), logits; columns are the other graph.
        cosines: (B, N, M), of the descriptors.
        support: (B, N), from the consensus.
    """
    best = scores.topk(min(2, scores.shape[2]), dim=2)
    first, second = best.values[..., 0], best.values[..., -1]
    column = best.indices[..., 0]
    share_of_row = first - scores.logsumexp(dim=2)
    share_of_column = first - scores.logsumexp(dim=1).gather(1, column)
    cosine = cosines.gather(2, column[..., None])[..., 0]
    told = (first / 5, (first - second) / 5, share_of_row, share_of_column, cosine)
    return torch.stack([*told, (support + 1).log()], dim=2).clamp(-10, 10)


def _record(layers: list[Tensor] | None, *nodes: Tensor) -> None:
    if layers is not None:
        layers.extend(nodes)
