"""Layers of the generative graph matcher: convolutions on graphs, attention, centred normalisation.

Nodes are dense tensors (B, N, C), all graphs of a batch of equal size; adjacencies are (B, N, N).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Adjacency = Literal["geometric", "learned", "both"]


class CentredNorm(nn.Module):
    """PairNorm (Zhao, Akoglu, ICLR 2020): what all nodes of a graph have in common is removed.

    Repeated convolutions make nodes alike; that is a common vector, which a normalisation of
    lengths leaves where it is. The same in training and in evaluation: it keeps no statistics.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, nodes: Tensor) -> Tensor:
        """Return nodes (B, N, C) of mean 0, and of mean square 1 before the gain."""
        centred = nodes - nodes.mean(dim=1, keepdim=True)
        power = centred.square().mean(dim=(1, 2), keepdim=True)
        return self.gain * centred * (power + 1e-6).rsqrt()


class Attention(nn.Module):
    """Attention of several heads (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, asking: Tensor, asked: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return what each node of `asking` (B, N, C) gets from those of `asked` (B, M, C).

        Args:
            asking: (B, N, C).
            asked: (B, M, C), at least one.
            bias: (B, N, M), added to the logits of every head; no gradient flows into it.
        """
        # 1. Heads: (B, H, N, C / H), (B, H, M, C / H) twice.
        query = self._split(self.query(asking))
        key, value = (self._split(x) for x in self.key_value(asked).chunk(2, dim=2))
        # 2. The average of the asked, weighted for each head: (B, H, N, C / H).
        mask = None if bias is None else bias.detach()[:, None]
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        # 3. Back to channels: (B, N, C).
        merged: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return merged

    def _split(self, nodes: Tensor) -> Tensor:
        batch, num, channels = nodes.shape
        return nodes.view(batch, num, self.heads, channels // self.heads).transpose(1, 2)


class Exchange(nn.Module):
    """Nodes of one graph hear those of another, with one set of weights for either direction."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(channels, heads)
        self.mix = perceptron(2 * channels, 2 * channels, channels)
        self.norm = CentredNorm(channels)

    def forward(self, nodes: Tensor, others: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the nodes (B, N, C) after a message from the others (B, M, C)."""
        message = self.attention(nodes, others, bias)
        mixed: Tensor = self.norm(nodes + self.mix(torch.cat([nodes, message], dim=2)))
        return mixed


class GraphConvolution(nn.Module):
    """A graph convolution whose edges are given, learned, or both.

    Given edges are averaged over (Kipf, Welling, ICLR 2017, with the row-normalised adjacency).
    A learned adjacency is softmax(q k^T / sqrt C) of the nodes' features: its rows sum to 1 too.
    With `both`, a learned share mixes the two.
    """

    def __init__(self, channels: int, adjacency: Adjacency) -> None:
        super().__init__()
        self.adjacency = adjacency
        self.own = nn.Linear(channels, channels)
        self.neighbours = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.norm = CentredNorm(channels)
        if adjacency != "geometric":
            self.query = nn.Linear(channels, channels)
            self.key = nn.Linear(channels, channels)
        if adjacency == "both":
            self.share = nn.Parameter(torch.zeros(()))

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Return the nodes (B, N, C) after hearing their neighbours.

        Args:
            nodes: (B, N, C).
            adjacency: (B, N, N), rows sum to 1, or to 0 where there is no neighbour.
        """
        # 1. Who hears whom: (B, N, N).
        weights = self.weights(nodes, adjacency)
        # 2. The average neighbour, with the node itself: (B, N, C).
        message = functional.relu(self.own(nodes) + weights @ self.neighbours(nodes))
        convolved: Tensor = self.norm(nodes + self.out(message))
        return convolved

    def weights(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        """Return the adjacency (B, N, N) that the convolution uses."""
        if self.adjacency == "geometric":
            return adjacency
        logits: Tensor = self.query(nodes) @ self.key(nodes).transpose(1, 2) / nodes.shape[2] ** 0.5
        learned: Tensor = logits.softmax(dim=2)
        if self.adjacency == "learned":
            return learned
        share = self.share.sigmoid()
        mixed: Tensor = share * learned + (1 - share) * adjacency
        return mixed


class Decoder(nn.Module):
    """One layer of the decoder (after DETR, Carion et al., ECCV 2020).

    The queries hear each other, the graph that they complete, and the other graph, which has the
    nodes that they are to become.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.among = Attention(channels, heads)
        self.own = Attention(channels, heads)
        self.other = Attention(channels, heads)
        self.mix = perceptron(channels, 2 * channels, channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(4))

    def forward(self, queries: Tensor, own: Tensor, other: Tensor) -> Tensor:
        """Return the queries (B, K, C) of a graph (B, N, C) after hearing it and the other one."""
        queries = self.norms[0](queries + self.among(queries, queries))
        queries = self.norms[1](queries + self.own(queries, own))
        queries = self.norms[2](queries + self.other(queries, other))
        decoded: Tensor = self.norms[3](queries + self.mix(queries))
        return decoded


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return two linear layers with a rectifier between."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def mean_pairwise_cosine(nodes: Tensor) -> float:
    """Return the mean cosine of two different nodes of a graph: near 1 where they are all alike.

    Args:
        nodes: (B, N, C), N at least 2; the mean is over the batch too.
    """
    num = nodes.shape[1]
    directions = functional.normalize(nodes.detach().double(), dim=2)
    sums = directions.sum(dim=1).square().sum(dim=1)
    itself = directions.square().sum(dim=(1, 2))
    return float(((sums - itself) / (num * (num - 1))).mean())
