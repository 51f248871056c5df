"""The training of the generative graph matcher: pairs in, steps and losses out, no files.

Each step takes pairs of `graph_pairs`, as many keypoints a side as there shall be when matching
(a network that has seen few is poor at many), and as few of them with a partner. Judge by real
pairs: what is learned from warps or from rendered views near each other looks better on such than
it is. Train on wide baselines.

The consensus of neighbourhoods is trained first, on its own, without what costs most: the layers
of the nodes, the queries and Sinkhorn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match.models.generative_graph import Completed, GenerativeGraph, Graph, dual_softmax
from sfm_match.models.generative_graph_inputs import EdgeKind, batch_of, nodes_of
from sfm_match.models.generative_graph_layers import mean_pairwise_cosine
from sfm_match.models.generative_graph_losses import (
    Truth,
    contrastive,
    hamming,
    negative_log_likelihood,
    outlier_mask,
    self_connection,
    true_match,
    votes_likelihood,
)
from sfm_match.models.generative_graph_solvers import Plan, black_box, sinkhorn, without_twins
from sfm_match.models.generative_graph_super import membership_loss
from sfm_match.training.graph_pairs import GraphPair
from sfm_match.training.optimization import Step, descend, learning_rate


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingConfig:
    """Settings of the training.

    Attributes:
        steps: how many there are: the learning rate falls to 0 by a cosine, twice: with the steps
            that train the consensus alone, and with those that train all.
        warm_up: steps in which it rises from 0, either time.
        batch: pairs in a step.
        learning_rate: of AdamW.
        scalar_rate: times that for the network's single numbers.
        together: share of the steps, the last ones, that train the whole network, as its matcher's
            solver `sinkhorn` uses it; those before train the consensus alone, and where there are
            no others, `mutual` is its solver.
        weight_decay: of AdamW.
        clip: the largest length of a gradient.
        edges: of the graphs.
        num_neighbours: of a keypoint, for `knn` edges.
        iterations: of Sinkhorn.
        self_query_mask: forbid that a query matches its twin.
        solver: `sinkhorn` trains on the likelihood of its plan; `black_box` adds the Hamming loss
            of the combinatorial solution, with weight `hamming`.
        solver_strength: lambda of the black-box gradient.
        likelihood: weight of the negative log-likelihood.
        hamming: weight of the Hamming loss: of the plan, or of the solution with `black_box`.
        self_connection: weight of the term that keeps nodes apart from each other.
        outlier_mask: weight of the binary cross-entropy of being unmatched.
        contrastive: weight of InfoNCE between partners' embeddings.
        membership: weight of the super-nodes' term, where the network has any.
    """

    steps: PositiveInt = 1000
    warm_up: NonNegativeInt = 50
    batch: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-3
    scalar_rate: PositiveFloat = 1.0
    together: Annotated[float, Field(ge=0, le=1)] = 0.7
    weight_decay: NonNegativeFloat = 1e-4
    clip: PositiveFloat = 1.0
    edges: EdgeKind = "delaunay"
    num_neighbours: PositiveInt = 8
    iterations: PositiveInt = 10
    self_query_mask: bool = True
    solver: Literal["sinkhorn", "black_box"] = "sinkhorn"
    solver_strength: Annotated[float, Field(gt=0)] = 20.0
    likelihood: NonNegativeFloat = 1.0
    hamming: NonNegativeFloat = 0.0
    self_connection: NonNegativeFloat = 0.01
    outlier_mask: NonNegativeFloat = 0.2
    contrastive: NonNegativeFloat = 0.1
    membership: NonNegativeFloat = 0.1


class Batch(NamedTuple):
    """Some pairs of equal size, as tensors."""

    graph0: Graph
    graph1: Graph
    truth: Truth


def make_batch(pairs: Sequence[GraphPair], config: TrainingConfig, device: str = "cpu") -> Batch:
    """Make tensors of pairs; the graphs are built on the keypoints that are left.

    Raises:
        ValueError: they have different numbers of keypoints; see `graph_pairs.strongest_pair`.
    """
    sides = [
        batch_of([nodes_of(side, config.edges, config.num_neighbours, device) for side in features])
        for features in ([p.features0 for p in pairs], [p.features1 for p in pairs])
    ]
    partners = [
        torch.stack([torch.from_numpy(side) for side in found]).to(device)
        for found in ([p.partners0 for p in pairs], [p.partners1 for p in pairs])
    ]
    return Batch(sides[0], sides[1], Truth(partners[0], partners[1]))


class Trainer:
    """A network in training. `state_dict` holds all there is, for a checkpoint."""

    def __init__(self, network: GenerativeGraph, config: TrainingConfig) -> None:
        """Begin at step 0 with the network's present weights."""
        self.network = network
        self.config = config
        self.number = 0
        few = [p for p in network.parameters() if p.ndim == 0]
        many = [p for p in network.parameters() if p.ndim]
        groups = [
            {"params": many, "weight_decay": config.weight_decay, "times": 1.0},
            {"params": few, "weight_decay": 0.0, "times": config.scalar_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)

    def step(self, batch: Batch) -> Step:
        """Learn from one batch.

        The step's terms: those of the loss, unweighted; `sharpness`, how much the cosine of
        descriptors counts; `cosine_0` and so on, the mean pairwise cosine of the node features
        after each layer, in training mode.
        """
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["times"] * rate_of(self.number, self.config)
        monitored = {"sharpness": float(self.network.log_sharpness.detach().exp())}
        if self.number < num_alone(self.config):
            terms = {"votes": mean_votes_likelihood(self.network, batch)}
            loss = terms["votes"]
        else:
            completed = self.network(batch.graph0, batch.graph1)
            terms = loss_terms(completed, batch.truth, self.config)
            loss = weighted_sum(terms, self.config)
            for number, layer in enumerate(completed.layers):
                monitored[f"cosine_{number}"] = mean_pairwise_cosine(layer)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        length = descend(self.optimizer, self.network.parameters(), self.config.clip)
        step = Step(
            self.number,
            float(loss.detach()),
            {name: float(term.detach()) for name, term in terms.items()} | monitored,
            length,
        )
        self.number += 1
        return step

    def state_dict(self) -> dict[str, object]:
        """Return the state, to be taken up by `load_state_dict`."""
        return {
            "number": self.number,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take up a state: the next step is the one that would have followed."""
        number, network, optimizer = (state[k] for k in ("number", "network", "optimizer"))
        assert isinstance(number, int)
        assert isinstance(network, dict)
        assert isinstance(optimizer, dict)
        self.number = number
        self.network.load_state_dict(network)
        self.optimizer.load_state_dict(optimizer)


def num_alone(config: TrainingConfig) -> int:
    """Return how many steps train the consensus alone."""
    return round((1 - config.together) * config.steps)


def rate_of(number: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step: it rises and falls with either part of the training."""
    alone = num_alone(config)
    if number < alone:
        return learning_rate(number, replace(config, steps=alone))
    return learning_rate(number - alone, replace(config, steps=config.steps - alone))


def mean_votes_likelihood(network: GenerativeGraph, batch: Batch) -> Tensor:
    """Return the loss of the consensus, from the descriptors alone."""
    partners = zip(batch.truth.partners0, batch.truth.partners1, strict=True)
    voted = network.vote(batch.graph0, batch.graph1)
    losses = [votes_likelihood(*one, *sides) for one, sides in zip(voted, partners, strict=True)]
    return torch.stack(losses).mean()


def plan_of(completed: Completed, config: TrainingConfig) -> Plan:
    """Return Sinkhorn's plan."""
    similarity = completed.similarity
    if config.self_query_mask:
        similarity = without_twins(similarity)
    return sinkhorn(similarity, config.iterations)


def loss_terms(completed: Completed, truth: Truth, config: TrainingConfig) -> dict[str, Tensor]:
    """Return the terms of the loss whose weight is not 0, by their names in the settings."""
    plan = plan_of(completed, config)
    terms = {}
    if config.likelihood:
        terms["likelihood"] = negative_log_likelihood(plan, truth)
    if config.hamming:
        terms["hamming"] = _hamming(completed, plan, truth, config)
    if config.self_connection:
        terms["self_connection"] = (
            self_connection(completed.nodes0) + self_connection(completed.nodes1)
        ) / 2
    if config.outlier_mask:
        terms["outlier_mask"] = outlier_mask(plan, truth)
    if config.contrastive:
        terms["contrastive"] = contrastive(completed.nodes0, completed.nodes1, truth)
    if config.membership and completed.memberships[0].shape[2]:
        terms["membership"] = _membership(completed, truth)
    return terms


def weighted_sum(terms: dict[str, Tensor], config: TrainingConfig) -> Tensor:
    """Return the loss."""
    weighted = [getattr(config, name) * term for name, term in terms.items()]
    return torch.stack(weighted).sum()


def _hamming(completed: Completed, plan: Plan, truth: Truth, config: TrainingConfig) -> Tensor:
    similarity = completed.similarity
    if config.self_query_mask:
        similarity = without_twins(similarity)
    true = true_match(similarity, truth)
    if config.solver == "black_box":
        return hamming(black_box(similarity, config.solver_strength), true, truth)
    top = torch.cat([plan.nodes, plan.unmatched0], dim=2)
    corner = torch.full_like(similarity.queries, -torch.inf)
    low = torch.cat([plan.unmatched1.mT, corner], dim=2)
    return hamming(torch.cat([top, low], dim=1).exp(), true, truth)


def _membership(completed: Completed, truth: Truth) -> Tensor:
    soft = dual_softmax(completed.similarity.nodes).detach()
    is_match = torch.zeros_like(soft, dtype=torch.bool)
    which, rows = (truth.partners0 >= 0).nonzero(as_tuple=True)
    is_match[which, rows, truth.partners0[which, rows]] = True
    return membership_loss(*completed.memberships, soft, is_match)
