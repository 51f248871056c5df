"""Training of the strided R2D2: for `r2d2` with `weights` of this training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match.models.r2d2 import normalised
from sfm_match.models.r2d2_detection import Selection, StridedDetector
from sfm_match.models.r2d2_strided import StridedR2D2
from sfm_match.training.data import DataConfig, Progress, photographs_of, sources_of
from sfm_match.training.evaluation import evaluate_features
from sfm_match.training.light import Light
from sfm_match.training.pairs import DensePair, Source, make_batch
from sfm_match.training.r2d2 import R2D2Trainer, R2D2Training
from sfm_match.training.rendered import Rooms, rendering
from sfm_match.training.task import Task
from sfm_match.training.warps import Warps, warping
from sfm_match.types import Features, Image

DESCRIPTION = "R2D2 on a strided trunk: keypoints and descriptors"

_HELD_OUT = 5
"""Every so many-th photograph is kept for the evaluation, where there are as many."""

_SELECTION = Selection(500, min_reliability=0, min_repeatability=0, subpixel=True)


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config(R2D2Training, DataConfig):
    """The settings of the training and of its data."""


def prepare(config: Config, data: str, seed: int, progress: Progress) -> Task:
    """Return the training."""
    photographs, said = photographs_of(data)
    held_out = photographs[_HELD_OUT - 1 :: _HELD_OUT] or photographs
    seen = [p for i, p in enumerate(photographs) if i % _HELD_OUT != _HELD_OUT - 1] or photographs
    sources, used = sources_of(seen, data, config, seed, progress)
    torch.manual_seed(seed)
    trainer = R2D2Trainer(StridedR2D2(), config)
    pairs = _held_out_pairs(held_out, config, seed)

    def weights() -> dict[str, Tensor]:
        return trainer.averaged.state_dict()

    return Task(
        trainer,
        lambda number: make_batch(sources, seed, number, config.batch),
        config.steps,
        weights,
        lambda: evaluate_features(_extractor(trainer.averaged), pairs),
        [*said, *used],
    )


def _held_out_pairs(photographs: list[Image], config: Config, seed: int) -> list[DensePair]:
    """Return pairs that no step sees: of photographs that are kept back, in a room with them."""
    light, num = Light(), 20
    sources: list[Source] = [warping(photographs, Warps(size=config.size), light)]
    if config.rendered:
        room = Rooms(num=1, views=6, size=config.size)
        sources.append(rendering(photographs, room, light, seed + 1))
    rng = np.random.default_rng([seed, 1])
    return [source(rng) for source in sources for _ in range(num // len(sources))]


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
