"""The training of the strided R2D2: batches in, steps and losses out, no files.

The losses are the paper's (Revaud et al., NeurIPS 2019); what differs is said at the settings. The
network starts from nothing, so kappa follows the precision that it has reached: with a fixed one it
would call nothing reliable at first, and learn no more.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match.models.r2d2 import normalised
from sfm_match.models.r2d2_losses import (
    average_precision_of_one,
    cosine_loss,
    peakiness_loss,
    position_loss,
    reliability_loss,
)
from sfm_match.models.r2d2_samplers import Described, Rings, neighbourhood_ranking
from sfm_match.models.r2d2_strided import STRIDE, StridedMaps, StridedR2D2
from sfm_match.training.optimization import Step, descend, learning_rate, update_average
from sfm_match.training.pairs import Batch

_MEMORY = 0.99
"""Of the running precision, from step to step."""


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class R2D2Training:
    """Settings of the training.

    Attributes:
        steps: how many there are: the learning rate falls to 0 by a cosine.
        warm_up: steps in which it rises from 0.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        clip: the largest length of a gradient.
        batch: pairs in a step.
        precision: number format of the network: bf16 by autocast, or fp32.
        average: how much of the averaged weights, which are the result, stays from step to step.
        patch: side of the patches that peaks are compared and counted in, in pixels.
        repeatability: weight of the losses of the detector.
        zero_mean: compare repeatability maps without their means.
        flat: see `cosine_loss`.
        position: weight of the loss of the peaks' positions, see `position_loss`; 0 for the paper.
        peaks: so many of each picture for it.
        kappa: the precision from which on a pixel is called reliable, as a share of the running
            precision; 0 for the paper's 0.5 from the first step on.
        floor: the precision's gradient has at least this weight, see `reliability_loss`.
        positive: a partner lies within so many pixels of the true position.
        nearest: no negative of the same place is nearer.
        farthest: of the ring of negatives.
        grid: pixels between queries, and between negatives.
        border: descriptors are compared so far inside of the crops only, in pixels.
    """

    steps: PositiveInt = 20_000
    warm_up: NonNegativeInt = 100
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 5e-4
    clip: PositiveFloat = 5.0
    batch: PositiveInt = 3
    precision: Literal["bf16", "fp32"] = "bf16"
    average: Annotated[float, Field(ge=0, lt=1)] = 0.998
    patch: PositiveInt = 16
    repeatability: NonNegativeFloat = 1.0
    zero_mean: bool = True
    flat: NonNegativeFloat = 0.02
    position: NonNegativeFloat = 0.2
    peaks: PositiveInt = 150
    kappa: NonNegativeFloat = 1.0
    floor: NonNegativeFloat = 0.5
    positive: PositiveFloat = 2.9
    nearest: PositiveFloat = 5.0
    farthest: PositiveFloat = 8.5
    grid: PositiveInt = 8
    border: NonNegativeInt = 32


class R2D2Trainer:
    """A network in training, with its running average. `state_dict` holds all, for a checkpoint."""

    def __init__(self, network: StridedR2D2, config: R2D2Training) -> None:
        """Begin at step 0 with the network's present weights."""
        self.network = network
        self.averaged = copy.deepcopy(network)
        self.config = config
        self.number = 0
        self.running_precision = 0.0
        self.optimizer = torch.optim.AdamW(
            network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )

    def step(self, batch: Batch) -> Step:
        """Learn from one batch."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.number, self.config)
        terms, precision = self._terms(batch)
        loss = (
            terms["reliability"]
            + self.config.repeatability * (terms["cosine"] + terms["peakiness"])
            + self.config.position * terms["position"]
        )
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        length = descend(self.optimizer, self.network.parameters(), self.config.clip)
        update_average(self.averaged, self.network, self.number, self.config.average)
        # Without the bias of beginning at 0.
        weight = (1 - _MEMORY) / (1 - _MEMORY ** (self.number + 1))
        self.running_precision += weight * (precision - self.running_precision)
        values = {name: float(term.detach()) for name, term in terms.items()}
        step = Step(self.number, float(loss.detach()), values | {"precision": precision}, length)
        self.number += 1
        return step

    def _terms(self, batch: Batch) -> tuple[dict[str, Tensor], float]:
        config = self.config
        num = len(batch.images0)
        both = normalised(torch.cat([batch.images0, batch.images1]))
        with torch.autocast(both.device.type, torch.bfloat16, config.precision == "bf16"):
            maps = self.network(both)
        repeatability, logits = maps.repeatability, maps.logits
        a, b = (_described(maps, rows) for rows in (slice(0, num), slice(num, None)))
        rings = Rings(config.grid, config.positive, config.nearest, config.farthest, config.border)
        ranking = neighbourhood_ranking(a, b, batch.flow, STRIDE, rings)
        # The partner comes first.
        precision = average_precision_of_one(
            ranking.similarities[:, 0], ranking.similarities[:, 1:], ranking.negative[:, 1:]
        )
        first, second = repeatability[:num], repeatability[num:]
        return {
            "cosine": cosine_loss(
                first, second, batch.flow, config.patch, config.zero_mean, config.flat
            ),
            "peakiness": peakiness_loss(repeatability, config.patch),
            "position": position_loss(logits[:num], logits[num:], batch.flow, config.peaks),
            "reliability": reliability_loss(
                precision, ranking.reliability, self._kappa(), config.floor
            ),
        }, float(precision.detach().mean())

    def _kappa(self) -> float:
        if self.config.kappa == 0:
            return 0.5
        return min(max(self.config.kappa * self.running_precision, 0.1), 0.9)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, to be taken up by `load_state_dict`."""
        return {
            "number": self.number,
            "running_precision": self.running_precision,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state: the next step is the one that would have followed."""
        self.number = state["number"]
        self.running_precision = state["running_precision"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])


def _described(maps: StridedMaps, rows: slice) -> Described:
    return Described(maps.descriptors[rows].float(), maps.reliability[rows].float())
