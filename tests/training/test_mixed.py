from __future__ import annotations

import numpy as np
import pytest

from sfm_match.training.mixed import mixing, mixture, mixtures
from sfm_match.training.warps import Warps, halvings
from tests.training.test_warps import STILL, difference, picture


def test_the_flow_of_mixtures_says_where_pixels_are() -> None:
    source = mixing([picture(0), picture(1, (150, 260))], Warps(size=96), STILL)
    for seed in range(8):
        pair = source(np.random.default_rng(seed))
        assert pair.image0.shape == pair.image1.shape == (96, 96, 3)
        found, known = difference(pair)
        assert known.any()
        assert found <= 3


def test_every_pair_has_another_picture_and_the_same_state_the_same_one() -> None:
    source = mixing([picture(0)], Warps(size=64), STILL)
    first, second, again = (source(np.random.default_rng(seed)) for seed in (0, 1, 0))
    assert np.array_equal(first.image0, again.image0)
    assert np.array_equal(first.flow, again.flow, equal_nan=True)
    assert abs(np.corrcoef(first.image0.ravel(), second.image0.ravel())[0, 1]) < 0.5


@pytest.mark.parametrize("seed", range(6))
def test_mixtures_are_bright_enough_and_not_flat(seed: int) -> None:
    found = mixture(np.random.default_rng(seed), [halvings(picture(0)), halvings(picture(1))], 96)
    assert found.shape == (96, 96, 3)
    assert found.dtype == np.uint8
    assert 60 < found.mean() < 200
    assert found.std() > 15
    # Hardly anything is cut off.
    assert ((found == 0) | (found == 255)).mean() < 0.15


def test_so_many_are_made_each_unlike_the_others() -> None:
    found = mixtures(3, [picture(0), picture(1)], 5, 48)
    assert [one.shape for one in found] == [(48, 48, 3)] * 5
    assert len({one.tobytes() for one in found}) == 5
    assert np.array_equal(found[2], mixtures(3, [picture(0), picture(1)], 5, 48)[2])
