"""What the steps of all trainings have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Step(NamedTuple):
    """What happened in one step.

    Attributes:
        number: from 0 on.
        loss: what was minimised.
        terms: its parts, and whatever else makes a curve, by name.
        gradient: the length of the gradient before it was clipped.
    """

    number: int
    loss: float
    terms: dict[str, float]
    gradient: float


class Schedule(Protocol):
    """Settings of the learning rate."""

    @property
    def steps(self) -> int:
        """How many there are."""

    @property
    def warm_up(self) -> int:
        """Steps in which the rate rises."""

    @property
    def learning_rate(self) -> float:
        """The highest."""


def learning_rate(number: int, schedule: Schedule) -> float:
    """Return the rate of a step: it rises linearly, then falls to 0 by a cosine."""
    if number < schedule.warm_up:
        return schedule.learning_rate * (number + 1) / schedule.warm_up
    done = (number - schedule.warm_up) / max(schedule.steps - schedule.warm_up, 1)
    return schedule.learning_rate * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def descend(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], clip: float) -> float:
    """Clip the gradient to a length, take the optimizer's step, return the length before.

    A gradient that is not finite is left out: it would end the training for good.
    """
    length = torch.nn.utils.clip_grad_norm_(parameters, clip)
    if torch.isfinite(length):
        optimizer.step()
    return float(length)


@torch.no_grad()
def update_average(averaged: nn.Module, network: nn.Module, number: int, keep: float) -> None:
    """Move averaged weights towards a network's.

    Args:
        averaged: of the same kind as the network.
        network: after a step.
        number: of the step: at first what counts is not how the network began.
        keep: how much of the average stays from step to step.
    """
    keep = min(keep, (number + 1) / (number + 10))
    news = network.state_dict()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(news[name], 1 - keep)
        else:
            value.copy_(news[name])
