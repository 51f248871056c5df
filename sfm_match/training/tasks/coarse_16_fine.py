"""Training of a fine stage for `coarse-16`: for `loftr` with `weights` of this training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match import weights
from sfm_match.geometry.raster import to_grey
from sfm_match.models.loftr import CellMatches, Transport, TwoPhaseLoFTR
from sfm_match.models.loftr_losses import warp_cells
from sfm_match.models.loftr_network import load_network
from sfm_match.spec import ConfigError
from sfm_match.training.data import (
    DataConfig,
    Progress,
    divided,
    held_out_sources,
    photographs_of,
    sources_of,
)
from sfm_match.training.loftr import LoFTRTrainer, LoFTRTraining, with_fine_stage
from sfm_match.training.pairs import DensePair, make_batch
from sfm_match.training.task import Task
from sfm_match.training.warps import Warps
from sfm_match.types import Image

DESCRIPTION = "LoFTR's fine stage on the small coarse network"

_BIN_SCORE = 1.0  # where the authors' training starts


def _warps(size: int) -> Warps:
    """Return how far crops differ: the coarse network finds little beyond."""
    return Warps(size=size, max_zoom=1.4, turn=8.0, tilt=0.1)


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config(LoFTRTraining, DataConfig):
    """The settings of the training and of its data.

    Attributes:
        size: side of a crop, in pixels; a multiple of 16.
        start: the coarse network: the name of a checkpoint, or a file; one that has a fine stage
            already is trained on.
    """

    size: Annotated[int, Field(ge=64, multiple_of=16)] = 256
    start: str = "coarse-16"


def prepare(config: Config, data: str, seed: int, progress: Progress) -> Task:
    """Return the training.

    Raises:
        ConfigError: tracks, which are too sparse, are asked for, or a network of another grid.
        WeightsError: the weights are not to be had, or not those of LoFTR.
    """
    if config.model:
        raise ConfigError(
            "coarse-16-fine.model: a fine stage needs dense truth, and tracks are not"
        )
    coarse, bin_score = load_network(weights.find(config.start))
    if coarse.config["resolution"] != (16, 4):
        raise ConfigError(
            f"coarse-16-fine.start: {config.start} is the published LoFTR, which is trained "
            "already; have coarse-16 or a file of its layout"
        )
    photographs, said = photographs_of(data)
    seen, held_out = divided(photographs)
    sources, used = sources_of(seen, data, config, seed, progress, warps=_warps(config.size))
    torch.manual_seed(seed)
    network = with_fine_stage(coarse, config.width)
    trainer = LoFTRTrainer(network, config, _BIN_SCORE if bin_score is None else bin_score)
    pairs = _held_out_pairs(held_out, config, seed)
    return Task(
        trainer,
        lambda number: make_batch(sources, seed, number, config.batch),
        config.steps,
        trainer.weights,
        lambda: evaluate(trainer, pairs),
        [f"{config.start}, for the coarse network", *said, *used],
    )


def _held_out_pairs(photographs: list[Image], config: Config, seed: int) -> list[DensePair]:
    """Return pairs that no step sees: of photographs that are kept back, in a room with them."""
    sources, num = held_out_sources(photographs, config, seed, _warps(config.size)), 40
    rng = np.random.default_rng([seed, 1])
    return [source(rng) for source in sources.values() for _ in range(num // len(sources))]


def evaluate(trainer: LoFTRTrainer, pairs: Sequence[DensePair]) -> dict[str, float]:
    """Return figures of the averaged network, over all pairs.

    Returns:
        `matches`: how many mutual nearest cells a pair has, however unsure. `precision`: share of
        those with a known truth that are right, within a cell's width. Of these, the median
        distance from the true position in pixels without (`coarse_error`) and with the fine stage
        (`fine_error`), and the share within a pixel (`within_1`).
    """
    config = trainer.config
    transport = None
    if config.assignment == "sinkhorn":
        transport = Transport(float(trainer.bin_score.detach()), config.sinkhorn_iterations)
    network = trainer.averaged.eval()
    network.coarse_matching.thr = 0.0
    stride: int = network.config["resolution"][0]
    matched = [_matched(TwoPhaseLoFTR(network, "second", transport), pair) for pair in pairs]
    errors = []
    for pair, found in zip(pairs, matched, strict=True):
        columns = pair.image1.shape[1] // stride
        cells1 = torch.stack([found.cells1 % columns, found.cells1 // columns], dim=1) * stride
        (warped,) = warp_cells(torch.from_numpy(pair.flow)[None], stride)
        true = warped[found.cells0]
        away = torch.stack([cells1 - true, found.points1 - true])
        errors.append(away[:, ~torch.isnan(true[:, 0])])
    coarse, fine = torch.cat(errors, dim=1)
    right = (coarse.abs() < stride).all(dim=1)
    coarse, fine = coarse[right].norm(dim=1), fine[right].norm(dim=1)
    return {
        "matches": float(np.mean([len(found.scores) for found in matched])),
        "precision": float(right.float().mean()),
        "coarse_error": float(coarse.median()) if len(coarse) else float("nan"),
        "fine_error": float(fine.median()) if len(fine) else float("nan"),
        "within_1": float((fine < 1).float().mean()),
    }


def _matched(network: TwoPhaseLoFTR, pair: DensePair) -> CellMatches:
    a, b = (
        network.encode(torch.from_numpy(to_grey(image))) for image in (pair.image0, pair.image1)
    )
    (found,) = network.match([(a, b)])
    return found
