from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.synthetic.textures import fractal_noise, to_image
from sfm_match.training.light import Light, changed_light
from sfm_match.training.pairs import DensePair, make_batch
from sfm_match.training.warps import Warps, crop, flow_of, halvings, warping
from sfm_match.types import ArrayBool, Image

STILL = Light(
    gamma=0,
    gain=0,
    colour=0,
    offset=0,
    grey=0,
    shaded=0,
    blurred=0,
    max_noise=0,
    compressed=0,
)


def picture(seed: int, shape: tuple[int, int] = (300, 400)) -> Image:
    rng = np.random.default_rng(seed)
    noise = [fractal_noise(rng, shape, finest=4.0, coarsest=64.0) for _ in range(3)]
    return to_image(128 + 45 * np.stack(noise, axis=2))


def difference(pair: DensePair) -> tuple[float, ArrayBool]:
    """Median difference of the second picture, brought back by the flow, from the first."""
    known = ~np.isnan(pair.flow[..., 0])
    maps = np.nan_to_num(pair.flow - np.float32(0.5), nan=-1)
    there = cv2.remap(pair.image1, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR)
    differences = np.abs(there.astype(int) - pair.image0)[known]
    return float(np.median(differences)), known


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_flow_says_where_pixels_are(seed: int) -> None:
    source = warping([picture(0), picture(1, (150, 260))], Warps(size=96), STILL)
    pair = source(np.random.default_rng(seed))
    assert pair.image0.shape == pair.image1.shape == (96, 96, 3)
    assert pair.flow.shape == (96, 96, 2)
    found, known = difference(pair)
    if known.mean() > 0.05:
        assert found < 6
        # By a pixel off it would be visible.
        moved = DensePair(pair.image0, pair.image1, pair.flow + np.float32(2))
        assert difference(moved)[0] > 1.5 * found
    inside = pair.flow[known]
    assert ((inside >= 0) & (inside < 96)).all()


def test_a_crop_of_a_larger_scale_is_averaged() -> None:
    checks = np.indices((512, 512)).sum(axis=0) % 2 * 255
    pyramid = halvings(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    assert pyramid[3].shape == (64, 64, 3)
    found = crop(pyramid, np.diag([4.0, 4.0, 1.0]), 64)
    assert np.abs(found.astype(int) - 128).max() <= 2
    same = crop(pyramid, np.eye(3), 64)
    np.testing.assert_array_equal(same, pyramid[0][:64, :64])


def test_flow_of_a_homography_by_hand() -> None:
    shift = np.array([[1, 0, 3], [0, 2, -1], [0, 0, 1.0]])
    np.testing.assert_allclose(flow_of(shift, 4)[1, 2], [2.5 + 3, 2 * 1.5 - 1])


def test_batches_depend_on_seed_and_number_only() -> None:
    sources = [
        (warping([picture(0)], Warps(size=48), Light()), 0.5),
        (warping([picture(1)], Warps(size=48), Light()), 0.5),
    ]
    first, again, other = (make_batch(sources, 7, number, 3) for number in (5, 5, 6))
    assert first.images0.shape == (3, 3, 48, 48)
    assert first.flow.shape == (3, 48, 48, 2)
    assert 0 <= first.images0.min() < first.images0.max() <= 1
    for name in ("images0", "images1"):
        assert (getattr(first, name) == getattr(again, name)).all()
        assert (getattr(first, name) != getattr(other, name)).any()
    np.testing.assert_array_equal(first.flow.numpy(), again.flow.numpy())


@pytest.mark.parametrize(
    "light",
    [
        Light(grey=1, shaded=1, blurred=1, compressed=1),
        Light(grey=0, shaded=0, blurred=0, compressed=0),
    ],
)
def test_another_light_leaves_things_where_they_are(light: Light) -> None:
    image = picture(3)
    rng = np.random.default_rng(0)
    assert (changed_light(rng, image, STILL) == image).all()
    for _ in range(5):
        changed = changed_light(rng, image, light)
        assert changed.dtype == np.uint8
        assert changed.shape == image.shape
        greys = [cv2.GaussianBlur(i.mean(axis=2), (0, 0), 1.5) for i in (image, changed)]
        here = np.hanning(300)[:, None] * np.hanning(400) * (greys[0] - greys[0].mean())
        there = np.hanning(300)[:, None] * np.hanning(400) * (greys[1] - greys[1].mean())
        (dx, dy), _ = cv2.phaseCorrelate(here, there)
        assert abs(dx) < 0.5
        assert abs(dy) < 0.5
