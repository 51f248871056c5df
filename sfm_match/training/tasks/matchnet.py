"""Training of MatchNet: for the extractor and the matcher `matchnet` with these weights."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Annotated

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.models.matchnet import MatchNet, NetworkConfig, initialise
from sfm_match.spec import ConfigError, Spec
from sfm_match.training.data import (
    DataConfig,
    Progress,
    divided,
    held_out_sources,
    photographs_of,
    sources_of,
)
from sfm_match.training.matchnet import MatchNetTrainer, MatchNetTraining
from sfm_match.training.pairs import DensePair, Source
from sfm_match.training.patch_batches import Draw, check_pool, draw_batch
from sfm_match.training.patch_evaluation import evaluate_matchnet
from sfm_match.training.patch_pairs import Cut, PatchPairs, gather
from sfm_match.training.task import Task
from sfm_match.types import Extractor, Image

DESCRIPTION = "MatchNet: descriptors of patches, and the network that compares them"

_HELD_OUT_PATCHES = 2000
_TRAIN, _TEST = 0, 1


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config(MatchNetTraining, DataConfig):
    """The settings of the training, of its data, and of the network.

    Attributes:
        size: side of a crop that keypoints are found in, in pixels; a multiple of 8.
        bottleneck: the numbers in a descriptor; 0 for the tower's own 3136.
        hidden: the width of the metric network's two hidden layers.
        detector: of keypoints: the name of an extractor.
        magnification: side of a patch in scales of its keypoint, as for the extractor `matchnet`.
        side: of a patch, in pixels, where the detector's keypoints have no scale.
        batch: pairs of patches of the same in a step, and pairs of different ones.
        together: the most pairs in a step that are from the same two pictures.
        relight: how much the contrast and brightness of a patch change from step to step.
        pictures: pairs of pictures that patches are taken from.
        reservoir: pairs of patches that are kept of them, 9 kilobytes each.
        renew: after so many steps all patches are made anew from other crops; 0 for never.
        tests: pairs of held-out pictures.
    """

    size: Annotated[int, Field(ge=64, multiple_of=8)] = 256
    bottleneck: NonNegativeInt = 128
    hidden: PositiveInt = 512
    detector: str = "sift"
    magnification: PositiveFloat = 12.0
    side: PositiveFloat = 64.0
    batch: Annotated[int, Field(ge=2)] = 64
    together: PositiveInt = 16
    relight: NonNegativeFloat = 0.1
    pictures: PositiveInt = 1000
    reservoir: PositiveInt = 30_000
    renew: NonNegativeInt = 0
    tests: PositiveInt = 50


def prepare(config: Config, data: str, seed: int, progress: Progress) -> Task:
    """Return the training.

    Raises:
        ConfigError: the settings do not fit, or too few patches were found.
    """
    photographs, said = photographs_of(data)
    seen, held_out = divided(photographs)
    sources, used = sources_of(seen, data, config, seed, progress)
    detector = Spec.parse("extractors", config.detector, {}, where="detector").build("cpu")
    cut = Cut(config.magnification, config.side)
    draw = Draw(config.batch, config.together, config.relight)
    advance = progress("cut patches", config.pictures)

    @lru_cache(1)
    def pool(number: int) -> PatchPairs:
        found = gather(
            partial(_one_of, sources=sources),
            detector,
            cut,
            config.pictures,
            config.reservoir,
            (seed, _TRAIN, number),
            advance if number == 0 else lambda _: None,
        )
        check_pool(found, draw)
        return found

    pool(0)  # If there is too little to see, that is said now.
    tests = _held_out_patches(held_out, config, detector, cut, seed)
    network = MatchNet(NetworkConfig(config.bottleneck, config.hidden))
    initialise(network, torch.Generator().manual_seed(seed))
    trainer = MatchNetTrainer(network, config)
    return Task(
        trainer,
        lambda number: draw_batch(
            pool(number // config.renew if config.renew else 0), draw, seed, number
        ),
        config.steps,
        trainer.averaged.state_dict,
        lambda: evaluate_matchnet(trainer.averaged, tests, seed),
        [*said, *used],
    )


def _one_of(rng: np.random.Generator, sources: list[tuple[Source, float]]) -> DensePair:
    shares = np.array([share for _, share in sources])
    return sources[int(rng.choice(len(sources), p=shares / shares.sum()))][0](rng)


def _held_out_patches(
    photographs: list[Image], config: Config, detector: Extractor, cut: Cut, seed: int
) -> PatchPairs:
    """Return patches that no step sees: of photographs that are kept back, in a room with them.

    Raises:
        ConfigError: there are none.
    """
    held_out = held_out_sources(photographs, config, seed)
    sources = [(source, 1.0) for source in held_out.values()]
    found = gather(
        partial(_one_of, sources=sources),
        detector,
        cut,
        config.tests,
        _HELD_OUT_PATCHES,
        (seed, _TEST),
    )
    if len(np.unique(found["pictures"])) < 2:
        raise ConfigError(
            f"{len(found)} pairs of patches were found in {config.tests} pairs of held-out "
            "pictures, which is too few to judge the training; take more with tests="
        )
    return found
