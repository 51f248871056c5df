"""The training of MatchNet: batches of patches in, steps and losses out, no files.

Loss, start and balance are the paper's (Han et al., CVPR 2015): cross-entropy on as many pairs of
different patches as of the same. Two things are added, and can be switched off. A share of the
different ones are the nearest of one pair of pictures, as those are that a matcher has to decide
about. And a contrastive term on the descriptors (van den Oord et al., "Representation Learning with
Contrastive Predictive Coding", 2018) makes their distances useful, by which the matcher finds the
candidates.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from sfm_match.models.matchnet import MatchNet, cross_entropy, normalised
from sfm_match.training.optimization import Step, descend, learning_rate, update_average


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MatchNetTraining:
    """Settings of the training.

    Attributes:
        steps: how many there are: the learning rate falls to 0 by a cosine.
        warm_up: steps in which it rises from 0.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        clip: the largest length of a gradient.
        precision: number format of the towers: bf16 by autocast, or fp32.
        average: how much of the averaged weights, which are the result, stays from step to step.
        hard: share of the pairs of different patches that are the nearest, of those of the same
            pictures; 0 for the paper's random ones.
        contrast: weight of the contrastive term; 0 for the paper's loss.
        temperature: of the contrastive term.
    """

    steps: PositiveInt = 20_000
    warm_up: NonNegativeInt = 100
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-4
    clip: PositiveFloat = 5.0
    precision: Literal["bf16", "fp32"] = "bf16"
    average: Annotated[float, Field(ge=0, lt=1)] = 0.998
    hard: Annotated[float, Field(ge=0, le=1)] = 0.5
    contrast: NonNegativeFloat = 1.0
    temperature: PositiveFloat = 0.07


class PatchBatch(NamedTuple):
    """Pairs of patches that show the same, and which of them show something else than others.

    Attributes:
        patches: float32 (2, B, 1, 64, 64), from 0 to 255; [0, i] and [1, i] show the same.
        different: bool (B, B), whether [0, i] and [1, j] are known to show different things.
        together: bool (B, B), whether pairs i and j are from the same two pictures.
        others: int64 (B,), for each i some j, drawn at random, of which it is different.
    """

    patches: Tensor
    different: Tensor
    together: Tensor
    others: Tensor


class MatchNetTrainer:
    """A network in training, with its running average. `state_dict` holds all, for a checkpoint."""

    def __init__(self, network: MatchNet, config: MatchNetTraining) -> None:
        """Begin at step 0 with the network's present weights."""
        convert_conv2d_weight_memory_format(network.tower, torch.channels_last)
        self.network = network
        self.averaged = copy.deepcopy(network)
        self.config = config
        self.number = 0
        self.optimizer = torch.optim.AdamW(
            network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )

    def step(self, batch: PatchBatch) -> Step:
        """Learn from one batch.

        Among the step's terms `right` is the share of the pairs that the network gets right.
        """
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.number, self.config)
        terms, right = self._terms(batch)
        loss = terms["cross_entropy"] + self.config.contrast * terms["contrast"]
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        length = descend(self.optimizer, self.network.parameters(), self.config.clip)
        update_average(self.averaged, self.network, self.number, self.config.average)
        values = {name: float(term.detach()) for name, term in terms.items()}
        step = Step(self.number, float(loss.detach()), values | {"right": right}, length)
        self.number += 1
        return step

    def _terms(self, batch: PatchBatch) -> tuple[dict[str, Tensor], float]:
        both = normalised(batch.patches.flatten(0, 1)).contiguous(memory_format=torch.channels_last)
        with torch.autocast(both.device.type, torch.bfloat16, self.config.precision == "bf16"):
            described = self.network.tower(both)
        a, b = described.float().chunk(2)
        units = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
        cosines = units[0] @ units[1].T
        others = with_nearest(cosines.detach(), batch, self.config.hard)
        first, second = torch.cat([a, a]), torch.cat([b, b[others]])
        # Neither order of a pair is special.
        pairs = torch.cat([torch.cat([first, second], 1), torch.cat([second, first], 1)])
        logits = self.network.metric(pairs)
        is_match = torch.arange(len(pairs), device=logits.device) % (2 * len(a)) < len(a)
        right = (logits.detach().argmax(dim=1) == is_match).float().mean()
        return {
            "cross_entropy": cross_entropy(logits, is_match),
            "contrast": contrastive(cosines / self.config.temperature, batch.different),
        }, float(right)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, to be taken up by `load_state_dict`."""
        return {
            "number": self.number,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state: the next step is the one that would have followed."""
        self.number = state["number"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])


def with_nearest(cosines: Tensor, batch: PatchBatch, share: float) -> Tensor:
    """Return the batch's `others`, a share of them replaced by the nearest.

    Args:
        cosines: (B, B), of the descriptors of first and second patches.
        batch: of which the first pairs get the nearest different patch of the same pictures, where
            there is one.
        share: how many of them.
    """
    allowed = batch.different & batch.together
    nearest = cosines.masked_fill(~allowed, -torch.inf).argmax(dim=1)
    wanted = torch.arange(len(nearest), device=nearest.device) < round(share * len(nearest))
    return torch.where(wanted & allowed.any(dim=1), nearest, batch.others)


def contrastive(similarities: Tensor, different: Tensor) -> Tensor:
    """Return the mean negative log-probability of a patch's partner among what differs from it.

    Args:
        similarities: (B, B), over the temperature, of first and second patches; partners lie on the
            diagonal.
        different: bool (B, B), as in `PatchBatch`.
    """
    partners = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    values = similarities.masked_fill(~(different | partners), -torch.inf)
    rows, columns = (functional.log_softmax(values, dim=d).diagonal().mean() for d in (1, 0))
    return -(rows + columns) / 2
