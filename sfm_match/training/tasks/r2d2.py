"""Training of the strided R2D2: for `r2d2` with `weights` of this training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeFloat
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match.models.r2d2 import normalised
from sfm_match.models.r2d2_detection import Selection, StridedDetector
from sfm_match.models.r2d2_strided import StridedR2D2, load_strided
from sfm_match.training.data import (
    DataConfig,
    Progress,
    divided,
    held_out_sources,
    photographs_of,
    sources_of,
)
from sfm_match.training.evaluation import evaluate_features
from sfm_match.training.pairs import DensePair, make_batch
from sfm_match.training.r2d2 import R2D2Trainer, R2D2Training
from sfm_match.training.rendered import Rooms
from sfm_match.training.task import Task
from sfm_match.training.warps import Warps
from sfm_match.types import Features, Image
from sfm_match.weights import find

DESCRIPTION = "R2D2 on a strided trunk: keypoints and descriptors"

# Partners shall not lie at the same place of both crops: the network can see where that is.
_SHIFT = 0.4

_SELECTION = Selection(500, min_reliability=0, min_repeatability=0, subpixel=True)


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config(R2D2Training, DataConfig):
    """The settings of the training and of its data.

    Attributes:
        start: weights to begin with, of an earlier training; empty to begin with nothing.
    """

    size: Annotated[int, Field(ge=32, multiple_of=8)] = 256
    photographs: NonNegativeFloat = 0.1
    made_up: NonNegativeFloat = 0.2
    mixed: NonNegativeFloat = 0.4
    start: str = ""

    def __post_init__(self) -> None:
        """Refuse a border that leaves nothing."""
        if 2 * self.border + self.grid > self.size:
            raise ValueError(
                f"border {self.border} leaves nothing of crops of {self.size} pixels; "
                f"choose at most {(self.size - self.grid) // 2}"
            )


def prepare(config: Config, data: str, seed: int, progress: Progress) -> Task:
    """Return the training."""
    photographs, said = photographs_of(data)
    seen, held_out = divided(photographs)
    warps = Warps(size=config.size, shift=_SHIFT)
    rooms = Rooms(config.num_rooms, config.num_views, size=config.size, shift=_SHIFT)
    sources, used = sources_of(seen, data, config, seed, progress, warps=warps, rooms=rooms)
    torch.manual_seed(seed)
    network = load_strided(find(config.start)) if config.start else StridedR2D2()
    trainer = R2D2Trainer(network, config)
    pairs = _held_out_pairs(held_out, config, seed)

    def weights() -> dict[str, Tensor]:
        return trainer.averaged.state_dict()

    return Task(
        trainer,
        lambda number: make_batch(sources, seed, number, config.batch),
        config.steps,
        weights,
        lambda: evaluate_features(_extractor(trainer.averaged), pairs),
        [*([f"{config.start}, to begin with"] if config.start else []), *said, *used],
    )


def _held_out_pairs(photographs: list[Image], config: Config, seed: int) -> list[DensePair]:
    """Return pairs that no step sees: of photographs that are kept back, in a room with them."""
    sources, num = held_out_sources(photographs, config, seed), 20
    rng = np.random.default_rng([seed, 1])
    return [source(rng) for source in sources.values() for _ in range(num // len(sources))]


def _extractor(network: StridedR2D2) -> Callable[[Image], Features]:
    detector = StridedDetector(network)

    def extract(image: Image) -> Features:
        values = torch.from_numpy(image).movedim(2, 0)[None].float() / 255
        (found,) = detector.detect(normalised(values), _SELECTION)
        return Features(
            keypoints=found.positions.float().numpy(),
            scores=found.scores.numpy(),
            descriptors=found.descriptors.numpy(),
            image_size=np.array(image.shape[1::-1], np.int32),
        )

    return extract
