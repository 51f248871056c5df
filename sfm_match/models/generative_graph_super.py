"""A hypergraph above the nodes: super-nodes are matched first, nodes inside pairs of them then.

Nodes belong softly to a fixed number of super-nodes, whatever the scale of either image. Hard
one-to-one pairs of super-nodes lose what lies on their borders, so each keeps several partners;
nodes outside, outliers first of all, stay attached weakly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_PARTNERS = 3
_WEAK = 0.02
_TINY = 1e-9


class SuperNodes(nn.Module):
    """Assigns nodes to super-nodes and restricts the match to pairs of these."""

    def __init__(self, channels: int, num: int) -> None:
        super().__init__()
        self.assign = nn.Linear(channels, num)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return how much each node (B, N, C) belongs to each super-node, (B, N, G), rows sum 1."""
        logits: Tensor = self.assign(nodes)
        return logits.softmax(dim=2)


def match_super_nodes(memberships0: Tensor, memberships1: Tensor, soft: Tensor) -> Tensor:
    """Return how far super-nodes are partners, (B, G, G), from 0 to 1, by the votes of the nodes.

    Args:
        memberships0: (B, N, G).
        memberships1: (B, M, G).
        soft: (B, N, M), weights of the matches of nodes.
    """
    votes = memberships0.mT @ soft @ memberships1
    rows, columns = votes.sum(dim=2, keepdim=True), votes.sum(dim=1, keepdim=True)
    return votes / (rows * columns + _TINY).sqrt()


def kept_partners(partners: Tensor) -> Tensor:
    """Return the partners (B, G, G) without all but the best few of each super-node's, of both."""
    few = min(_PARTNERS, partners.shape[1])
    least0 = partners.topk(few, dim=2).values[:, :, -1:]
    least1 = partners.topk(few, dim=1).values[:, -1:, :]
    return torch.where((partners >= least0) | (partners >= least1), partners, 0)


def compatibility(memberships0: Tensor, memberships1: Tensor, partners: Tensor) -> Tensor:
    """Return how far two nodes are in partner super-nodes, (B, N, M), from 0 to 1.

    Args:
        memberships0: (B, N, G).
        memberships1: (B, M, G).
        partners: (B, G, G).
    """
    return (memberships0 @ partners @ memberships1.mT).clamp(0, 1)


def attach(scores: Tensor, memberships0: Tensor, memberships1: Tensor, soft: Tensor) -> Tensor:
    """Return scores (B, N, M) lowered where the nodes are not in partner super-nodes.

    Args:
        scores: (B, N, M), logits.
        memberships0: (B, N, G).
        memberships1: (B, M, G).
        soft: (B, N, M), weights of the matches of nodes.
    """
    partners = kept_partners(match_super_nodes(memberships0, memberships1, soft))
    return scores + (_WEAK + compatibility(memberships0, memberships1, partners)).log()


def membership_loss(
    memberships0: Tensor, memberships1: Tensor, soft: Tensor, is_match: Tensor
) -> Tensor:
    """Return -log of the compatibility of true partners, plus what keeps super-nodes in use.

    The latter is log G less the entropy of the mean membership: without it all nodes would join
    one super-node, where everything is compatible.

    Args:
        memberships0: (B, N, G).
        memberships1: (B, M, G).
        soft: (B, N, M), weights of the matches of nodes.
        is_match: bool (B, N, M), the true ones.
    """
    partners = match_super_nodes(memberships0, memberships1, soft)
    together = compatibility(memberships0, memberships1, partners)[is_match]
    unused = memberships0.new_zeros(())
    for memberships in (memberships0, memberships1):
        mean = memberships.mean(dim=1)
        entropy = -(mean * (mean + _TINY).log()).sum(dim=1).mean()
        unused = unused + torch.tensor(float(mean.shape[1])).log().to(mean) - entropy
    if not len(together):
        return unused
    return unused - (_WEAK + together).log().mean()
