"""Colours of values, photographs muted, descriptors as colours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.report.colours import (
    Scale,
    error_scale,
    map_scale,
    muted,
    principal_colours,
    score_scale,
)

BLACK_TO_WHITE = Scale("grey", 1.0, 3.0, ("#000000", "#ffffff"))


def test_values_lie_evenly_between_the_first_and_the_last_colour() -> None:
    found = BLACK_TO_WHITE.colours(np.array([-9, 1, 1.5, 2, 3, np.inf]))
    np.testing.assert_allclose(found, np.array([[0, 0, 0.25, 0.5, 1, 1]] * 3).T)


def test_logarithms_of_errors_lie_evenly() -> None:
    scale = Scale("error", 0.1, 10.0, ("#000000", "#ffffff"), is_log=True)
    found = scale.colours(np.array([0, 0.1, 1, 10, np.inf]))
    np.testing.assert_allclose(found[:, 0], [0, 0, 0.5, 1, 1], atol=1e-6)
    right, wrong = error_scale().colours(np.array([0.0, 100.0]))
    assert right[1] > right[0]  # more green than red
    assert wrong[0] > wrong[1]


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_a_scale_of_any_scores_gives_colours(values: list[float]) -> None:
    scores = np.array(values)
    found = score_scale(scores).colours(scores)
    assert found.shape == (len(scores), 3)
    assert ((found >= 0) & (found <= 1)).all()


def test_outlying_scores_do_not_stretch_the_scale() -> None:
    scores = np.concatenate([np.linspace(0, 1, 1000), [50.0, np.inf]])
    assert score_scale(scores).high < 1.01


def test_maps_go_from_black_to_light() -> None:
    lightness = map_scale().colours(np.linspace(0, 1, 50)).mean(axis=1)
    assert lightness[0] < 0.02
    assert lightness[-1] > 0.85
    assert (np.diff(lightness) > 0).all()


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_a_muted_picture_is_darker_and_in_three_channels(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    found = muted(picture)
    assert found.shape == (4, 5, 3)
    assert found.dtype == np.uint8
    assert (found.max(axis=2) <= np.atleast_3d(picture).max(axis=2)).all()
    if len(shape) == 3:
        assert np.ptp(found.astype(int), axis=2).mean() < np.ptp(picture.astype(int), axis=2).mean()


def test_light_pictures_are_muted_more() -> None:
    light, dark = muted(np.full((3, 3), 250, np.uint8)), muted(np.full((3, 3), 60, np.uint8))
    assert light.max() <= 150
    assert dark.min() > 50


def test_the_same_descriptor_has_the_same_colour_in_all_maps() -> None:
    rng = np.random.default_rng(1)
    kinds = rng.normal(size=(6, 16)).astype(np.float32)
    labels = [rng.integers(6, size=(9, 7)), rng.integers(6, size=(5, 12))]
    first, second = principal_colours(kinds[labels[0]], kinds[labels[1]])
    assert first.shape == (9, 7, 3)
    assert second.shape == (5, 12, 3)
    for kind in range(6):
        of_kind = np.concatenate([first[labels[0] == kind], second[labels[1] == kind]])
        assert np.ptp(of_kind, axis=0).max() <= 1
    everything = np.concatenate([first.reshape(-1, 3), second.reshape(-1, 3)])
    assert len(np.unique(everything // 4, axis=0)) == 6
    assert everything.max() == 255
    assert everything.min() == 0


def test_colours_do_not_depend_on_which_way_the_axes_point() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(8, 8, 5)) * [5, 3, 2, 0.1, 0.1]
    (found,) = principal_colours(values)
    (shifted,) = principal_colours(values + 100)
    np.testing.assert_allclose(found.astype(int), shifted.astype(int), atol=1)
    # The strongest component is the first channel, and follows the first coordinate.
    assert np.corrcoef(found[..., 0].ravel(), values[..., 0].ravel())[0, 1] > 0.95


def test_descriptors_of_less_than_three_numbers_leave_channels_black() -> None:
    values = np.random.default_rng(3).normal(size=(6, 6, 2))
    (found,) = principal_colours(values)
    assert found[..., :2].std(axis=(0, 1)).min() > 10
    np.testing.assert_array_equal(found[..., 2], 0)
    (constant,) = principal_colours(np.ones((3, 3, 4)))
    assert constant.shape == (3, 3, 3)
