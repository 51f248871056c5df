"""The pairs of keypoint sets that a training of the generative graph matcher draws from.

They are detected once: a step drops and moves keypoints, and runs no detector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.spec import ConfigError
from sfm_match.training.graph_pairs import (
    GraphPair,
    dropped_pair,
    moved_pair,
    redetected_pair,
    strongest_pair,
    swapped_pair,
    thinned_pair,
)
from sfm_match.training.graph_training import Batch, TrainingConfig, make_batch
from sfm_match.training.pairs import Source
from sfm_match.types import Extractor

_TRIES = 100
_DROPPED = 0.1, 0.6
"""Range of the share of keypoints that each side of a pair of one picture loses."""


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PoolConfig:
    """Options of the pairs.

    Attributes:
        pairs: how many are detected.
        fewest_matches: pairs with fewer partners are not taken.
        dropped: share of the pairs whose two sides are keypoints of one picture, of which each
            side has lost some.
        drop: the largest share of a side's keypoints that a step leaves out.
        swing: standard deviation, in degrees, of the rotation of the second side in a step.
        stretch: standard deviation of the logarithm of its scales along two directions.
    """

    pairs: PositiveInt = 300
    fewest_matches: PositiveInt = 30
    dropped: Annotated[float, Field(ge=0, le=1)] = 0.1
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.2
    swing: NonNegativeFloat = 40.0
    stretch: NonNegativeFloat = 0.3


def make_pool(
    sources: Sequence[tuple[Source, float]],
    extractor: Extractor,
    config: PoolConfig,
    seed: Sequence[int],
    progress: Callable[[int], object] = lambda _: None,
) -> list[GraphPair]:
    """Detect pairs; each depends on the sources, the seed and its own number only.

    Args:
        sources: of pictures with dense flow, each with how often it is drawn.
        extractor: what finds the keypoints.
        config: how many pairs, and which.
        seed: of all choices.
        progress: is called with 1 after each pair.

    Raises:
        ConfigError: a hundred pairs of pictures in a row have too few partners.
    """
    pool = []
    for number in range(config.pairs):
        rng = np.random.default_rng([*seed, number])
        pool.append(_detected(rng, sources, extractor, config))
        progress(1)
    return pool


def _detected(
    rng: np.random.Generator,
    sources: Sequence[tuple[Source, float]],
    extractor: Extractor,
    config: PoolConfig,
) -> GraphPair:
    shares = np.array([share for _, share in sources], np.float64)
    most = 0
    for _ in range(_TRIES):
        pictures = sources[int(rng.choice(len(sources), p=shares / shares.sum()))][0](rng)
        if rng.random() < config.dropped:
            found = dropped_pair(rng, extractor(pictures.image0), rng.uniform(*_DROPPED))
        else:
            found = redetected_pair(pictures, extractor)
        num = int((found.partners0 >= 0).sum())
        if num >= config.fewest_matches:
            return found
        most = max(most, num)
    raise ConfigError(
        f"none of {_TRIES} pairs of pictures has {config.fewest_matches} keypoints that are found "
        f"in both, the best one has {most}: set a larger size, or fewest_matches"
    )


def draw_batch(
    pool: Sequence[GraphPair],
    config: PoolConfig,
    training: TrainingConfig,
    seed: int,
    number: int,
    device: str = "cpu",
) -> Batch:
    """Return the batch of a step, which depends on the pool, the seed and the step only."""
    rng = np.random.default_rng([seed, number])
    pairs = []
    for which in rng.integers(len(pool), size=training.batch):
        pair = swapped_pair(pool[which]) if rng.random() < 0.5 else pool[which]
        thinned = thinned_pair(rng, pair, rng.uniform(0, config.drop))
        pairs.append(moved_pair(rng, thinned, turn=config.swing, stretch=config.stretch))
    num0 = min(len(pair.features0) for pair in pairs)
    num1 = min(len(pair.features1) for pair in pairs)
    return make_batch([strongest_pair(pair, num0, num1) for pair in pairs], training, device)
