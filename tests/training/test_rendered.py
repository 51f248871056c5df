from __future__ import annotations

import cv2
import numpy as np

from sfm_match.training.pairs import DensePair
from sfm_match.training.rendered import Rooms, cropped, rendering
from sfm_match.types import ArrayF32
from tests.training.test_warps import STILL, picture

SMALL = Rooms(num=1, views=4, width=160, height=120, farthest=2, size=96)


def likeness(pair: DensePair, shift: float = 0.0) -> float:
    """Correlation of the second picture, brought back by the flow, with the first.

    Every view has an exposure of its own.
    """
    known = ~np.isnan(pair.flow[..., 0])
    maps = np.nan_to_num(pair.flow - np.float32(0.5 + shift), nan=-1)
    there = cv2.remap(pair.image1, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR)
    return float(np.corrcoef(there[known].mean(axis=1), pair.image0[known].mean(axis=1))[0, 1])


def test_rendered_pairs_have_true_parallax() -> None:
    rendered: list[int] = []
    source = rendering([picture(0), picture(1)], SMALL, STILL, seed=3, progress=rendered.append)
    assert rendered == [1]
    for seed in range(6):
        pair = source(np.random.default_rng(seed))
        assert pair.image0.shape == pair.image1.shape == (96, 96, 3)
        assert 0.15 <= (~np.isnan(pair.flow[..., 0])).mean() < 1
        assert likeness(pair) > max(0.9, likeness(pair, shift=3.0))
        again = source(np.random.default_rng(seed))
        np.testing.assert_array_equal(again.flow, pair.flow)
        np.testing.assert_array_equal(again.image1, pair.image1)


def still(height: int, width: int) -> ArrayF32:
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], axis=2).astype(np.float32)


def test_crops_move_the_flow_with_them() -> None:
    rng = np.random.default_rng(0)
    first = picture(0, (80, 100))
    second = np.roll(first, (7, -4), axis=(0, 1))
    flow = still(80, 100) + np.array([-4, 7], np.float32)
    found = cropped(rng, first, second, flow, 32)
    assert found is not None
    image0, image1, there = found
    known = ~np.isnan(there[..., 0])
    rows, columns = np.nonzero(known)
    x, y = (there[known] - 0.5).astype(int).T
    np.testing.assert_array_equal(image1[y, x], image0[rows, columns])
    nothing = np.full_like(flow, np.nan)
    assert cropped(rng, first, second, nothing, 32) is None
