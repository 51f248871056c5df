"""Training of the generative graph matcher: for `generative_graph` with these weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.models.generative_graph import GenerativeGraph, NetworkConfig
from sfm_match.models.generative_graph_inputs import metadata
from sfm_match.models.generative_graph_layers import Adjacency
from sfm_match.spec import ConfigError, Spec
from sfm_match.training.data import (
    DataConfig,
    Progress,
    divided,
    held_out_sources,
    photographs_of,
    sources_of,
)
from sfm_match.training.graph_evaluation import evaluate
from sfm_match.training.graph_pool import PoolConfig, draw_batch, make_pool
from sfm_match.training.graph_training import Batch, Trainer, TrainingConfig, make_batch
from sfm_match.training.rendered import Rooms
from sfm_match.training.task import Task
from sfm_match.types import Extractor, Image

DESCRIPTION = "graph matcher that completes two graphs of keypoints with each other"

_TRAIN, _TEST = 0, 1


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config(TrainingConfig, PoolConfig, DataConfig):
    """The settings of the training, of its pairs, and of the network.

    Attributes:
        features: that shall be matched: the name of an extractor.
        features_weights: of the extractor; empty for its default.
        max_keypoints: of the extractor: as many as when matching.
        size: side of a crop that keypoints are found in, in pixels; a multiple of 8. Large enough
            that more are found than are kept, as in photographs.
        photographs: share of pairs that are warped photographs.
        made_up: share of pairs that are warped pictures which are computed.
        rendered: share of pairs of views of rendered rooms.
        num_rooms: how many rooms there are.
        num_views: of a room.
        step: typical distance between neighbouring views, in metres; those of a pair are up to
            three views apart.
        turn: typical change of direction between neighbouring views, in degrees.
        tests: held-out pairs of each kind.
        learning_rate: of AdamW.
        channels: of a node.
        adjacency: `geometric` edges, `learned` ones, or `both`.
        num_queries: of each graph: what is unmatched has one of them as partner.
        super_nodes: of the hypergraph; 0 for none.
    """

    features: str = "sift"
    features_weights: str = ""
    max_keypoints: PositiveInt = 1000
    size: Annotated[int, Field(ge=64, multiple_of=8)] = 720
    photographs: NonNegativeFloat = 0.2
    made_up: NonNegativeFloat = 0.1
    rendered: NonNegativeFloat = 0.7
    num_rooms: PositiveInt = 12
    num_views: Annotated[int, Field(ge=2)] = 8
    step: PositiveFloat = 1.2
    turn: PositiveFloat = 18.0
    tests: PositiveInt = 10
    learning_rate: PositiveFloat = 4e-3
    channels: Annotated[int, Field(ge=8, multiple_of=8)] = 32
    adjacency: Adjacency = "geometric"
    num_queries: Annotated[int, Field(ge=2)] = 8
    super_nodes: NonNegativeInt = 0


def prepare(config: Config, data: str, seed: int, progress: Progress) -> Task:
    """Return the training.

    Raises:
        ConfigError: the settings do not fit, or too few keypoints are found in two pictures.
    """
    if config.model:
        raise ConfigError(
            "generative-graph.model: a model does not tell which keypoints have no partner; "
            "leave it out, its photographs are used all the same"
        )
    extractor = _extractor(config)
    photographs, said = photographs_of(data)
    seen, held_out = divided(photographs)
    rooms = _rooms(config, config.num_rooms, config.num_views)
    sources, used = sources_of(seen, data, config, seed, progress, rooms=rooms)
    advance = progress("detect", config.pairs)
    pool = make_pool(sources, extractor, config, (seed, _TRAIN), advance)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tests = _tests(held_out, config, extractor, seed, device)
    torch.manual_seed(seed)
    network = GenerativeGraph(_network(config, pool[0].features0.descriptors.shape[1]))
    trainer = Trainer(network.to(device), config)
    return Task(
        trainer,
        lambda number: draw_batch(pool, config, config, seed, number, device),
        config.steps,
        network.state_dict,
        partial(_figures, network, tests, config),
        [*said, *used, f"keypoints of {config.features}"],
        metadata(network),
    )


def _extractor(config: Config) -> Extractor:
    options: dict[str, Any] = {"max_keypoints": config.max_keypoints}
    if config.features_weights:
        options["weights"] = config.features_weights
    built: Extractor = Spec.parse("extractors", config.features, options, where="features").build()
    return built


def _network(config: Config, descriptor_dim: int) -> NetworkConfig:
    return NetworkConfig(
        descriptor_dim=descriptor_dim,
        channels=config.channels,
        adjacency=config.adjacency,
        num_queries=config.num_queries,
        super_nodes=config.super_nodes,
    )


def _rooms(config: Config, num: int, views: int) -> Rooms:
    """Return rooms whose pictures are hardly larger than a crop, so that it shows much."""
    return Rooms(
        num=num,
        views=views,
        width=config.size * 4 // 3,
        height=config.size,
        step=config.step,
        turn=config.turn,
        size=config.size,
    )


def _tests(
    photographs: list[Image], config: Config, extractor: Extractor, seed: int, device: str
) -> dict[str, list[Batch]]:
    """Return pairs that no step sees: of photographs that are kept back, in a room with them."""
    sources = held_out_sources(photographs, config, seed, rooms=_rooms(config, 1, 6))
    wanted = replace(config, pairs=config.tests, dropped=0.0)
    return {
        kind: [
            make_batch([pair], config, device)
            for pair in make_pool([(source, 1.0)], extractor, wanted, (seed, _TEST))
        ]
        for kind, source in sources.items()
    }


def _figures(
    network: GenerativeGraph, tests: dict[str, list[Batch]], config: Config
) -> dict[str, float]:
    """Return recall and precision on each kind of pairs, beside mutual nearest neighbours'."""
    figures: dict[str, float] = {}
    for kind, batches in tests.items():
        found = evaluate(network, batches, config)
        figures |= {
            f"{kind}_recall": found.recall,
            f"{kind}_precision": found.precision,
            f"{kind}_nearest_recall": found.nearest_recall,
            f"{kind}_nearest_precision": found.nearest_precision,
            f"{kind}_fpr95": found.fpr95,
            f"{kind}_nearest_fpr95": found.nearest_fpr95,
            f"{kind}_loss": found.loss,
        }
    return figures
