"""The training of pygmtools' PCA-GM, IPCA-GM and CIE with the CNN in the loop.

Wang et al., "Learning Combinatorial Embedding Networks for Deep Graph Matching", ICCV 2019 (PCA-GM
and the permutation loss); "Combinatorial Learning of Robust Deep Graph Matching", PAMI 2020
(IPCA-GM); Yu et al., "Learning Deep Graph Matching with Channel-Independent Embedding and Hungarian
Attention", ICLR 2020 (CIE). The networks and the loss are those of pygmtools, and what is
trained is what the matcher `pygm` runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor, nn

from sfm_match.models import vgg
from sfm_match.models.generative_graph_layers import mean_pairwise_cosine
from sfm_match.models.pygm_config import Config as SolverConfig
from sfm_match.models.pygm_solvers import hungarian, solve
from sfm_match.training.keypoint_pairs import KeypointBatch
from sfm_match.training.optimization import Step, descend, learning_rate

Solver = Literal["pca_gm", "ipca_gm", "cie"]

_LAYER = "gnn_layer_"


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PygmTraining:
    """Settings of the training.

    Attributes:
        steps: how many there are: the learning rate falls to 0 by a cosine.
        warm_up: steps in which it rises from 0.
        learning_rate: of AdamW.
        cnn_rate: times that for the CNN; 0 for its own: 1 for one that starts from nothing, 0.01
            for one that has weights.
        freeze_cnn: leave the CNN as it is.
        weight_decay: of AdamW.
        clip: the largest length of a gradient.
        batch: pairs in a step.
        fewest: keypoints of a picture, at least: those of a batch all have as many.
        most: at most.
        detected: share of the pairs whose keypoints are corners that are found in both pictures;
            those of the others are anywhere.
        jitter: standard deviation of the keypoints' errors, in pixels.
        unmatched: share of the keypoints that have no partner.
        cnn: weights that the CNN begins with: `vgg16-bn`, or the path of a file; empty for a CNN
            of the same layers that starts from nothing.
        cnn_width: channels of the widest layers of such a CNN, a multiple of 8; VGG16 has 512.
        start: weights that the graph network begins with, and its CNN if they hold one and `cnn`
            is empty: the name of a checkpoint or the path of a file; empty for none.
        channels: of the graph network's layers.
        layers: of the graph network.
    """

    steps: PositiveInt = 2000
    warm_up: NonNegativeInt = 50
    learning_rate: PositiveFloat = 1e-3
    cnn_rate: NonNegativeFloat = 0.0
    freeze_cnn: bool = False
    weight_decay: NonNegativeFloat = 5e-4
    clip: PositiveFloat = 5.0
    batch: PositiveInt = 8
    fewest: Annotated[int, Field(ge=2)] = 8
    most: Annotated[int, Field(ge=2)] = 20
    detected: Annotated[float, Field(ge=0, le=1)] = 0.5
    jitter: NonNegativeFloat = 1.0
    unmatched: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cnn: str = ""
    cnn_width: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    start: str = ""
    channels: PositiveInt = 128
    layers: Annotated[int, Field(ge=2)] = 2


def new_network(solver: Solver, num_features: int, config: PygmTraining) -> nn.Module:
    """Return pygmtools' network of a solver, untrained, by torch's random numbers."""
    import pygmtools

    node = "in_node_channel" if solver == "cie" else "in_channel"
    network: nn.Module = pygmtools.utils.get_network(
        getattr(pygmtools, solver),
        backend="pytorch",
        pretrain=False,
        hidden_channel=config.channels,
        out_channel=config.channels,
        num_layers=config.layers,
        **{node: num_features},
    )
    return network


class PygmTrainer:
    """A CNN and a graph network in training. `state_dict` holds all, for a checkpoint."""

    def __init__(
        self, solver: Solver, network: nn.Module, cnn: vgg.Vgg16, config: PygmTraining
    ) -> None:
        """Begin at step 0 with the present weights of both."""
        self.network = network
        self.cnn = cnn.requires_grad_(not config.freeze_cnn)
        self.config = config
        self.number = 0
        self._solver = SolverConfig(solver=solver)
        self._nodes: dict[str, Tensor] = {}
        for name, layer in network.named_children():
            if name.startswith(_LAYER):
                layer.register_forward_hook(self._keep(name.removeprefix(_LAYER)))
        groups = [{"params": list(network.parameters()), "times": 1.0}]
        if not config.freeze_cnn:
            own = 0.01 if config.cnn or config.start else 1.0
            times = config.cnn_rate or own
            groups.append({"params": list(cnn.parameters()), "times": times})
        self.optimizer = torch.optim.AdamW(
            groups, config.learning_rate, weight_decay=config.weight_decay
        )

    def _keep(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, outputs: Sequence[Tensor]) -> None:
            self._nodes[name] = outputs[0].detach()

        return hook

    def step(self, batch: KeypointBatch) -> Step:
        """Learn from one batch.

        The step's terms: `accuracy`, the share of the keypoints with a partner whose best score is
        the partner's; `cosine_features`, `cosine_0` and so on, how alike a graph's nodes are before
        and after each layer: over-smoothing raises it until all are alike; `gradient_cnn`,
        `gradient_gnn_layer_0` and so on, the lengths of the gradients of the parts.
        """
        batch = batch.to(self._device)
        self.network.train()
        self.cnn.train(not self.config.freeze_cnn)
        for group in self.optimizer.param_groups:
            group["lr"] = group["times"] * learning_rate(self.number, self.config)
        features = self._features(batch)
        scores = self._scores(batch, features)
        loss = permutation_loss(scores, batch.partners)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        terms = {
            "accuracy": _accuracy(scores.detach(), batch.partners),
            "cosine_features": mean_pairwise_cosine(features[0]),
            **{f"cosine_{name}": mean_pairwise_cosine(self._nodes[name]) for name in self._nodes},
            **self._gradients(),
        }
        everything = [*self.network.parameters(), *self.cnn.parameters()]
        length = descend(self.optimizer, everything, self.config.clip)
        step = Step(self.number, float(loss.detach()), terms, length)
        self.number += 1
        return step

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _features(self, batch: KeypointBatch) -> tuple[Tensor, Tensor]:
        # Both sides at once, for the statistics of the batch normalisation.
        images = torch.cat([side.images for side in batch.sides])
        places = torch.cat([side.places for side in batch.sides])
        first, second = vgg.features_of(self.cnn, images, places).chunk(2)
        return first, second

    def _scores(self, batch: KeypointBatch, features: tuple[Tensor, Tensor]) -> Tensor:
        first, second = (
            side.graphs(found) for side, found in zip(batch.sides, features, strict=True)
        )
        return solve(first, second, self.network, self._solver)

    def _gradients(self) -> dict[str, float]:
        parts = dict(self.network.named_children())
        if not self.config.freeze_cnn:
            parts = {"cnn": self.cnn, **parts}
        return {f"gradient_{name}": _gradient_of(part) for name, part in parts.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state, to be taken up by `load_state_dict`."""
        return {
            "number": self.number,
            "network": self.network.state_dict(),
            "cnn": self.cnn.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state: the next step is the one that would have followed."""
        self.number = state["number"]
        self.network.load_state_dict(state["network"])
        self.cnn.load_state_dict(state["cnn"])
        self.optimizer.load_state_dict(state["optimizer"])

    @torch.no_grad()
    def evaluate(self, tests: Mapping[str, Sequence[KeypointBatch]]) -> dict[str, float]:
        """Match batches, each kind on its own, one to one, without a dustbin.

        Returns:
            for every kind `accuracy_`, the share of the keypoints with a partner that are matched
            with it, and `features_`, the same by the CNN's features alone; and `chance`, that of
            guessing.
        """
        self.network.eval()
        self.cnn.eval()
        figures = {}
        guessed = []
        for kind, batches in tests.items():
            right, alone = [], []
            for given in batches:
                batch = given.to(self._device)
                features = self._features(batch)
                right.append(_matched_right(self._scores(batch, features), batch.partners))
                cosines = features[0] @ features[1].mT
                alone.append(_matched_right(cosines - cosines.amin() + 1, batch.partners))
                guessed.append(1 / batch.partners.shape[2])
            figures[f"accuracy_{kind}"] = sum(right) / len(right)
            figures[f"features_{kind}"] = sum(alone) / len(alone)
        return figures | {"chance": sum(guessed) / len(guessed)}


def permutation_loss(scores: Tensor, partners: Tensor) -> Tensor:
    """Return pygmtools' loss of scores (B, N, N) from 0 to 1, for partners (B, N, N) of 0 or 1.

    The cross-entropy of all pairs of keypoints, summed, over the number of keypoints:
    -sum(x log s + (1 - x) log(1 - s)) / (B N), x being `partners` and s `scores`.
    """
    import pygmtools

    with warnings.catch_warnings():
        # Of the library's own: a list where torch wants a tuple.
        warnings.filterwarnings("ignore", "Using a non-tuple sequence")
        found = pygmtools.utils.permutation_loss(scores, partners, backend="pytorch")
    return torch.as_tensor(found)


def _accuracy(scores: Tensor, partners: Tensor) -> float:
    """Return the share of the rows with a partner that have their best score there."""
    right = partners.gather(2, scores.argmax(dim=2, keepdim=True)).sum()
    return float(right / partners.sum().clamp(min=1))


def _matched_right(scores: Tensor, partners: Tensor) -> float:
    right = 0.0
    for own, true in zip(scores, partners, strict=True):
        found = hungarian(own, 0.0)
        right += float(true[found[:, 0], found[:, 1]].sum())
    return right / max(float(partners.sum()), 1.0)


def _gradient_of(part: nn.Module) -> float:
    lengths = [p.grad.norm() for p in part.parameters() if p.grad is not None]
    return float(torch.stack(lengths).norm()) if lengths else 0.0
