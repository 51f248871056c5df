"""The network gives what kornia's LoFTR gives, image by image and pair by pair."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from sfm_match.matchers import loftr
from sfm_match.models.loftr import CellMatches
from sfm_match.spec import ConfigError
from sfm_match.types import View
from tests.loftr_matching import assert_same, everything, pictures, rows_of, run
from tests.loftr_weights import random_network
from tests.pictures import noise_picture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("layout", ["kornia", "authors", "plain"])
def test_it_gives_what_kornia_gives_in_one_call(checkpoints: dict[str, str], layout: str) -> None:
    left, right = pictures()
    found = run(everything(checkpoints[layout]), left, right[:, :80])
    images = [
        torch.from_numpy(image).float()[None, None] / 255 for image in (left, right[:, :80].copy())
    ]
    with torch.inference_mode():
        expected = random_network()({"image0": images[0], "image1": images[1]})
    assert len(expected["confidence"]) > 5
    np.testing.assert_allclose(found.points0, expected["keypoints0"], atol=1e-5)
    np.testing.assert_allclose(found.points1, expected["keypoints1"], atol=1e-4)
    np.testing.assert_allclose(found.scores, expected["confidence"], atol=1e-5)


def test_the_small_network_gives_what_kornia_s_parts_give(checkpoints: dict[str, str]) -> None:
    network, (left, right) = random_network(coarse_16=True), pictures(96, 128)
    found = run(everything(checkpoints["small"]), left, right)
    data: dict[str, Any] = {"stride_c": 16, "hw0_c": (6, 8), "hw1_c": (6, 8)}
    with torch.inference_mode():
        tokens = [
            network.extract_features(torch.from_numpy(image).float()[None, None] / 255)["coarse"]
            .flatten(2)
            .mT.contiguous()
            for image in (left, right)
        ]
        network.coarse_matching(*network.loftr_coarse(*tokens), data)
    assert len(data["mconf"]) > 3
    np.testing.assert_array_equal(found.points0, data["mkpts0_c"])
    np.testing.assert_array_equal(found.points1, data["mkpts1_c"])
    np.testing.assert_allclose(found.scores, data["mconf"], atol=1e-6)


@pytest.mark.parametrize("refine", ["second", "both"])
def test_cached_images_give_exactly_the_same(checkpoints: dict[str, str], refine: str) -> None:
    matcher = everything(checkpoints["kornia"], refine=refine)
    views = [View(image, None) for image in (*pictures(), noise_picture(64, 96))]
    cached = [matcher.encode(view) for view in views]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        (first,) = matcher.match([(cached[i], cached[j])])
        (again,) = matcher.match([(matcher.encode(views[i]), matcher.encode(views[j]))])
        assert len(first) > 5
        assert_same(first, again)
        assert_same(matcher.match([(cached[i], cached[j])])[0], again)


def test_the_fine_stage_in_both_directions_moves_both_points(checkpoints: dict[str, str]) -> None:
    images = pictures()
    none, second, both = (
        run(everything(checkpoints["kornia"], refine=refine), *images)
        for refine in ("none", "second", "both")
    )
    assert len(none) == len(second) == len(both) > 10
    for grid in (none.points0, none.points1, second.points0):
        np.testing.assert_array_equal(grid % 8, 0)
    moves0, moves1 = both.points0 - none.points0, both.points1 - none.points1
    # Half of what each direction alone would do, which is at most 4 pixels.
    np.testing.assert_allclose(2 * moves1, second.points1 - none.points1, atol=1e-4)
    assert 0 < np.abs(moves0).max() <= 2.0001
    # The other direction is what the images give when they are exchanged after the transformer:
    # it differs from the first.
    assert np.abs(moves0 - moves1).max() > 0


def test_symmetric_does_not_depend_on_the_order(checkpoints: dict[str, str]) -> None:
    left, right = pictures()
    one_way = everything(checkpoints["kornia"])
    assert rows_of(run(one_way, left, right)) != rows_of(run(one_way, right, left).flipped())
    for refine in ("second", "both", "none"):
        matcher = everything(checkpoints["kornia"], symmetric=True, refine=refine)
        found = run(matcher, left, right)
        assert rows_of(found) == rows_of(run(matcher, right, left).flipped())
        assert len(found) >= len(run(one_way, left, right))


def test_pairs_of_several_sizes_are_matched_as_alone(checkpoints: dict[str, str]) -> None:
    matcher = everything(checkpoints["kornia"])
    sizes = [(64, 96), (96, 64), (64, 96), (40, 56)]
    encoded = [matcher.encode(View(noise_picture(*size), None)) for size in sizes]
    pairs = list(itertools.combinations(encoded, 2))
    for pair, together in zip(pairs, matcher.match(pairs), strict=True):
        assert_same(matcher.match([pair])[0], together)
    assert matcher.match([]) == []


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_lower_precision(checkpoints: dict[str, str], precision: str) -> None:
    matcher = everything(checkpoints["small"], precision=precision)
    encoded = matcher.encode(View(noise_picture(96, 128), None))
    assert encoded.features.tokens.dtype == getattr(torch, precision)
    (found,) = matcher.match([(encoded, encoded)])
    assert found.points0.dtype == np.float32


class LimitedNetwork:
    """Has memory for some pairs at once only."""

    stride = 8

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.batches: list[int] = []

    def match(self, pairs: list[Any]) -> list[CellMatches]:
        if len(pairs) > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.batches.append(len(pairs))
        none = torch.zeros(0, dtype=torch.int64)
        return [
            CellMatches(none, none, torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
        ] * len(pairs)


def test_out_of_memory(checkpoints: dict[str, str]) -> None:
    encoded = everything(checkpoints["kornia"]).encode(View(noise_picture(64, 96), None))
    for limit, batches in ((7, [7]), (3, [3, 2, 2]), (1, [1] * 7)):
        network = LimitedNetwork(limit)
        matcher = loftr._LoFTR(loftr.Config(batch_size=7), network, "cuda")  # type: ignore[arg-type]
        assert len(matcher.match([(encoded, encoded)] * 7)) == 7
        assert network.batches == batches
    matcher = loftr._LoFTR(loftr.Config(), LimitedNetwork(0), "cuda")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"out of memory with one pair of images of 96 x 64"):
        matcher.match([(encoded, encoded)])
