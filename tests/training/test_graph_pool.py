from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from sfm_match.models.generative_graph_losses import UNMATCHED
from sfm_match.spec import ConfigError, Spec
from sfm_match.training.graph_pairs import GraphPair
from sfm_match.training.graph_pool import PoolConfig, draw_batch, make_pool
from sfm_match.training.graph_training import Batch, TrainingConfig
from sfm_match.training.light import Light
from sfm_match.training.pairs import Source
from sfm_match.training.warps import Warps, warping
from sfm_match.types import Extractor
from tests.training.test_warps import picture

SMALL = PoolConfig(pairs=4, fewest_matches=10, dropped=0.5)


@cache
def sift() -> Extractor:
    built: Extractor = Spec.parse("extractors", "sift", {"max_keypoints": 120}).build()
    return built


@cache
def sources() -> list[tuple[Source, float]]:
    return [(warping([picture(0), picture(1)], Warps(size=160), Light()), 1.0)]


@cache
def pool(pairs: int = SMALL.pairs) -> list[GraphPair]:
    config = PoolConfig(pairs=pairs, fewest_matches=10, dropped=0.5)
    return make_pool(sources(), sift(), config, (7, 0))


def tensors(batch: Batch) -> list[Tensor]:
    return [*batch.graph0, *batch.graph1, *batch.truth]


def test_pairs_depend_on_the_seed_and_their_number_only() -> None:
    assert len(pool()) == 4
    for pair, again in zip(pool(2), pool(), strict=False):
        np.testing.assert_array_equal(pair.features0.keypoints, again.features0.keypoints)
        np.testing.assert_array_equal(pair.partners1, again.partners1)
    (other,) = make_pool(sources(), sift(), PoolConfig(pairs=1, fewest_matches=10), (8, 0))
    assert len(other.features0) != len(pool()[0].features0)
    for pair in pool():
        assert (pair.partners0 >= 0).sum() >= 10
        assert (pair.partners0 == UNMATCHED).sum() > 0


def test_a_share_of_the_pairs_is_of_one_picture() -> None:
    for dropped, expected in ((0.0, 0), (1.0, 3)):
        config = PoolConfig(pairs=3, fewest_matches=10, dropped=dropped)
        found = make_pool(sources(), sift(), config, (7, 0))
        # Only what one picture's keypoints make is known for every one.
        assert sum((pair.partners0 >= UNMATCHED).all() for pair in found) == expected


def test_a_batch_depends_on_its_number_only() -> None:
    torch.set_num_threads(1)
    training = TrainingConfig(batch=2)
    first = draw_batch(pool(), SMALL, training, 3, 5)
    again = draw_batch(pool(), SMALL, training, 3, 5)
    for a, b in zip(tensors(first), tensors(again), strict=True):
        assert torch.equal(a, b)
    assert first.graph0.points.shape[0] == 2
    for seed, number in ((3, 6), (4, 5)):
        other = draw_batch(pool(), SMALL, training, seed, number)
        assert not torch.equal(other.graph0.points[0, :5], first.graph0.points[0, :5])


def test_pictures_that_share_too_little_are_told_of() -> None:
    config = PoolConfig(pairs=1, fewest_matches=9999, dropped=0.0)
    with pytest.raises(ConfigError, match="none of 100 pairs of pictures has 9999 keypoints"):
        make_pool([(warping([picture(0)], Warps(size=32), Light()), 1.0)], sift(), config, (0,))
