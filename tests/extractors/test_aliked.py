from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.feature.aliked.aliked import DKD
from scipy.spatial import cKDTree

from sfm_match.extractors.aliked import Config, maxima, refine
from sfm_match.io.images import read_image
from sfm_match.models.aliked import load_network
from sfm_match.types import ArrayF32, Features, Image
from tests.components import checkpoint, parse
from tests.pictures import noise_picture


def extract(image: Image, **options: Any) -> Features:
    found: Features = parse("extractors", "aliked", **options).build()(image)
    return found


@torch.inference_mode()
def kornias(image: Image, **options: Any) -> tuple[ArrayF32, ArrayF32, ArrayF32]:
    """Return keypoints (with integer pixel centres), scores and descriptors as kornia finds them.

    Options are those of its detector.
    """
    network: Any = load_network(checkpoint("aliked-n16"))
    network.dkd = DKD(radius=2, **{"scores_th": 0.2, "n_limit": 5000, **options})
    values = torch.from_numpy(image).movedim(2, 0)[None].float() / 255
    (found,) = network(values)
    keypoints, scores = found.keypoints.numpy(), found.keypoint_scores.numpy()
    return keypoints, scores, found.descriptors.numpy()


def assert_same(found: Features, expected: tuple[ArrayF32, ArrayF32, ArrayF32]) -> None:
    """Allow for one in a thousand maxima that rounding decides otherwise."""
    keypoints, scores, descriptors = expected
    distances, rows = map(np.asarray, cKDTree(keypoints).query(found.keypoints - 0.5))
    same = distances < 1e-3
    assert abs(len(found) - len(keypoints)) <= 0.001 * len(keypoints)
    assert same.mean() >= 0.999
    rows = rows[same]
    np.testing.assert_allclose(found.scores[same], scores[rows], atol=1e-4)
    # Half a unit in the last place of float16, for numbers up to one half.
    off = np.abs(found.descriptors[same].astype(np.float32) - descriptors[rows]).max(axis=1)
    # The patch that moves the samples is that of the keypoint's pixel: a leap between two.
    between = np.abs(keypoints[rows] - np.round(keypoints[rows])).min(axis=1) < 1e-3
    assert between.mean() < 0.05
    assert off[~between].max() < 1e-4 + 2**-12


@pytest.mark.slow
def test_a_photograph_has_kornias_keypoints(test_data: Path) -> None:
    image = read_image(test_data / "fountain-P11/images/0003.jpg").pixels
    found = extract(image)
    assert len(found) > 2500
    assert_same(found, kornias(image))


def test_a_part_of_a_photograph_has_kornias_keypoints(test_data: Path) -> None:
    image = read_image(test_data / "fountain-P11/images/0003.jpg").pixels
    part = np.ascontiguousarray(image[200:401, 300:533])
    found = extract(part, centred=False)
    assert len(found) > 100
    assert_same(found, kornias(part))
    best = extract(part, max_keypoints=50, centred=False)
    assert_same(best, kornias(part, n_limit=50))
    np.testing.assert_array_equal(best.keypoints, found.keypoints[:50])
    assert best.scores.mean() > np.quantile(found.scores, 0.75)


def test_where_no_score_is_high_enough_the_mean_decides(test_data: Path) -> None:
    image = read_image(test_data / "fountain-P11/images/0003.jpg").pixels
    part = np.ascontiguousarray(image[200:360, 300:460])
    found = extract(part, min_score=0.999, centred=False)
    assert_same(found, kornias(part, scores_th=0.999))
    assert len(found) > 50
    assert found.scores.max() < 0.999


def test_a_large_image_is_shrunk_to_the_long_side() -> None:
    image = noise_picture(200, 260)
    small = extract(image, resize=130)
    assert small.image_size.tolist() == [260, 200]
    assert 0 < len(small) < len(extract(image))
    assert small.descriptors.dtype == np.float16
    np.testing.assert_allclose(
        np.linalg.norm(small.descriptors.astype(np.float32), axis=1), 1, atol=1e-3
    )


# --- maxima ---------------------------------------------------------------------------------------


def brute_force(scores: torch.Tensor, min_score: float) -> list[tuple[int, int]]:
    height, width = scores.shape
    found = []
    for y in range(2, height - 2):
        for x in range(2, width - 2):
            window = scores[y - 2 : y + 3, x - 2 : x + 3]
            if int((window >= scores[y, x]).sum()) == 1:
                found.append((x, y))
    high = [(x, y) for x, y in found if scores[y, x] > min_score]
    return high or [(x, y) for x, y in found if scores[y, x] > scores.mean()]


@given(
    st.integers(1, 14),
    st.integers(1, 14),
    st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    st.sampled_from([5, 20, 1000]),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_maxima_are_alone_the_highest_of_their_window(
    width: int, height: int, min_score: float, num_values: int, seed: int
) -> None:
    # Few values have many equals.
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, num_values, (height, width), generator=generator) / num_values
    expected = brute_force(scores, min_score)
    found = maxima(scores, min_score, 1000)
    assert sorted(map(tuple, found.tolist())) == sorted(expected)
    values = scores[found[:, 1], found[:, 0]]
    assert (values.diff() <= 0).all()
    assert maxima(scores, min_score, 2).tolist() == found[:2].tolist()


def test_a_maximum_lies_at_the_centre_of_mass_of_its_window() -> None:
    scores = torch.zeros(9, 11)
    scores[4, 5] = 0.8
    pixels = torch.tensor([[5, 4]])
    torch.testing.assert_close(refine(scores, pixels), torch.tensor([[5.0, 4.0]]))
    # A second pixel, lower by a tenth, counts 1 / e as much; the other 23 next to nothing.
    scores[4, 6] = 0.7
    share = np.exp(-1) / (1 + np.exp(-1))
    (x, y) = refine(scores, pixels)[0].tolist()
    assert x == pytest.approx(5 + share, abs=0.01)
    assert y == pytest.approx(4, abs=0.01)
    # The same below instead of to the right.
    (x, y) = refine(scores.T.contiguous(), pixels.flip(1))[0].tolist()
    assert (x, y) == pytest.approx((4, 5 + share), abs=0.01)


def test_refined_keypoints_stay_in_their_windows() -> None:
    scores = torch.rand(40, 50, generator=torch.Generator().manual_seed(0))
    pixels = maxima(scores, 0.5, 1000)
    moves = refine(scores, pixels) - pixels
    assert len(pixels) > 30
    assert moves.abs().max() < 2
    assert moves.abs().max() > 0.3


def test_the_lowest_score_is_a_share() -> None:
    assert Config(min_score=0).min_score == 0
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Config(min_score=1.5)


def test_centring_moves_all_keypoints_alike() -> None:
    image = noise_picture(200, 260)
    raw, centred = extract(image, resize=130, centred=False), extract(image, resize=130)
    inside = raw.keypoints[:, 0] > 2
    # Three quarters of a pixel of the smaller image.
    np.testing.assert_allclose(
        (raw.keypoints - centred.keypoints)[inside], [[1.5, 0]] * inside.sum(), atol=1e-4
    )
    np.testing.assert_array_equal(raw.descriptors, centred.descriptors)
