"""What the trainings of PCA-GM, IPCA-GM and CIE begin with: networks, data, tests."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor, nn

from sfm_match import weights
from sfm_match.models import vgg
from sfm_match.models.pygm_solvers import network_from_state, num_features
from sfm_match.models.pygm_weights import joined, parted, read_tensors
from sfm_match.spec import ConfigError
from sfm_match.training.data import (
    DataConfig,
    Progress,
    divided,
    held_out_sources,
    photographs_of,
    sources_of,
)
from sfm_match.training.keypoint_pairs import KeypointBatch, Keypoints, make_batch
from sfm_match.training.pygm import PygmTrainer, PygmTraining, Solver, new_network
from sfm_match.training.task import Task
from sfm_match.types import Image

_TESTS, _TEST_SIZE = 8, 8


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config(PygmTraining, DataConfig):
    """The settings of the training and of its data.

    Attributes:
        size: side of a crop, in pixels; a multiple of 8. The matcher squeezes images into a square
            of 256 pixels, of which a crop may be a part.
    """

    size: Annotated[int, Field(ge=64, multiple_of=8)] = 128


def prepare_solver(
    solver: Solver, config: Config, data: str, seed: int, progress: Progress
) -> Task:
    """Return the training of a solver's network.

    Raises:
        ConfigError: options contradict each other, or weights are of something else.
        LookupError: there are no weights of this name.
        WeightsError: they are not to be had.
    """
    if config.fewest > config.most:
        raise ConfigError(f"fewest is {config.fewest}, which is above most, {config.most}")
    network, cnn = _networks(solver, config, seed)
    photographs, said = photographs_of(data)
    seen, held_out = divided(photographs)
    sources, used = sources_of(seen, data, config, seed, progress)
    tests = _tests(held_out, config, seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = PygmTrainer(solver, network.to(device), cnn.to(device), config)

    def state() -> dict[str, Tensor]:
        # A CNN that was not trained has its own file.
        own = {} if config.freeze_cnn and config.cnn else cnn.state_dict()
        return joined(network.state_dict(), own)

    return Task(
        trainer,
        lambda number: make_batch(sources, seed, number, config.batch, _wanted(config)),
        config.steps,
        state,
        lambda: trainer.evaluate(tests),
        [*said, *used, *_begun_with(config)],
    )


def _wanted(config: Config) -> Keypoints:
    return Keypoints(config.fewest, config.most, config.detected, config.jitter, config.unmatched)


def _tests(photographs: list[Image], config: Config, seed: int) -> dict[str, list[KeypointBatch]]:
    """Return pairs that no step sees: of photographs that are kept back, in a room with them."""
    sources = held_out_sources(photographs, config, seed)
    return {
        kind: [
            make_batch([(source, 1.0)], seed + 1, number, _TEST_SIZE, _wanted(config))
            for number in range(_TESTS)
        ]
        for kind, source in sources.items()
    }


def _begun_with(config: Config) -> list[str]:
    """Return what the card says of the weights that the training began with."""
    names = list(dict.fromkeys(name for name in (config.cnn, config.start) if name))
    return [f"from the weights {_described(name)}" for name in names]


def _described(name: str) -> str:
    checkpoint = weights.CHECKPOINTS.get(name)
    return name if checkpoint is None else f"{name}: {checkpoint.licence}"


def _networks(solver: Solver, config: Config, seed: int) -> tuple[nn.Module, vgg.Vgg16]:
    """Return the graph network and the CNN, with the weights that the settings name."""
    try:
        started, its_cnn = parted(_read(config.start)) if config.start else ({}, {})
        begun = _read(config.cnn) if config.cnn else its_cnn
        torch.manual_seed(seed)
        cnn = vgg.network_from_state(begun) if begun else vgg.Vgg16(config.cnn_width)
        if not started:
            return new_network(solver, 2 * cnn.width, config), cnn
        network = network_from_state(solver, started)
    except ValueError as error:
        raise ConfigError(f"{solver}: {error}") from None
    if num_features(network) != 2 * cnn.width:
        raise ConfigError(
            f"{config.start} is for node features of {num_features(network)} numbers, and the CNN "
            f"gives {2 * cnn.width}; set cnn, or cnn_width to half of the former"
        )
    return network, cnn


def _read(name: str) -> dict[str, Tensor]:
    return read_tensors(weights.find(name))
