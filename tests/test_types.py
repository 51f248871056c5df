"""The shared types: what turning round and resizing keep, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfm_match.types import Correspondences, Features, Matches, Pair

sizes = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)).map(
    lambda size: np.array(size, np.int32)
)
counts = st.integers(0, 6)


def floats(*shape: int) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.float32, shape, elements=st.integers(0, 1 << 22).map(lambda n: n / 256))


@st.composite
def features(draw: st.DrawFn) -> Features:
    num = draw(counts)
    return Features(
        keypoints=draw(floats(num, 2)),
        scores=draw(floats(num)),
        descriptors=draw(floats(num, draw(st.integers(0, 4)))),
        image_size=draw(sizes),
        scales=draw(st.none() | floats(num)),
        orientations=draw(st.none() | floats(num)),
    )


@st.composite
def matches(draw: st.DrawFn) -> Matches:
    num = draw(counts)
    rows = hnp.arrays(np.int32, (num, 2), elements=st.integers(0, 2**31 - 1))
    return Matches(draw(rows), draw(floats(num)))


@st.composite
def correspondences(draw: st.DrawFn) -> Correspondences:
    num = draw(counts)
    return Correspondences(draw(floats(num, 2)), draw(floats(num, 2)), draw(floats(num)))


@given(st.text(), st.text())
def test_a_pair_has_one_form_whichever_way_round(name0: str, name1: str) -> None:
    if name0 == name1:
        with pytest.raises(ValueError, match="the same image twice"):
            Pair.of(name0, name1)
        return
    pair = Pair.of(name0, name1)
    assert pair == Pair.of(name1, name0)
    assert {pair.a, pair.b} == {name0, name1}
    assert pair.a < pair.b
    with pytest.raises(ValueError, match="not in sorted order"):
        Pair(pair.b, pair.a)


@given(matches())
def test_flipped_matches_have_their_columns_exchanged_and_flip_back(found: Matches) -> None:
    flipped = found.flipped()
    np.testing.assert_array_equal(flipped.indices[:, 0], found.indices[:, 1])
    np.testing.assert_array_equal(flipped.indices[:, 1], found.indices[:, 0])
    np.testing.assert_array_equal(flipped.scores, found.scores)
    assert flipped.indices.flags.c_contiguous
    np.testing.assert_array_equal(flipped.flipped().indices, found.indices)


@given(correspondences())
def test_flipped_correspondences_have_their_sides_exchanged(found: Correspondences) -> None:
    flipped = found.flipped()
    np.testing.assert_array_equal(flipped.points0, found.points1)
    np.testing.assert_array_equal(flipped.points1, found.points0)
    np.testing.assert_array_equal(flipped.scores, found.scores)


@given(features(), sizes)
def test_resized_keypoints_are_at_the_same_part_of_the_image(
    found: Features, size: np.ndarray[Any, np.dtype[np.int32]]
) -> None:
    resized = found.resized(size)
    np.testing.assert_array_equal(resized.image_size, size)
    np.testing.assert_allclose(
        resized.keypoints / size, found.keypoints / found.image_size, rtol=1e-6, atol=0
    )
    np.testing.assert_array_equal(resized.descriptors, found.descriptors)
    np.testing.assert_array_equal(resized.scores, found.scores)
    assert (resized.scales is None) == (found.scales is None)
    if resized.scales is not None and found.scales is not None:
        # The area of a feature is the same part of the image's.
        areas = resized.scales.astype(np.float64) ** 2 / size.astype(np.float64).prod()
        before = found.scales.astype(np.float64) ** 2 / found.image_size.astype(np.float64).prod()
        np.testing.assert_allclose(areas, before, rtol=1e-6)
    if found.orientations is not None:
        np.testing.assert_array_equal(resized.orientations, found.orientations)


@given(features(), sizes)
def test_resizing_and_back_is_the_same_up_to_rounding(
    found: Features, size: np.ndarray[Any, np.dtype[np.int32]]
) -> None:
    back = found.resized(size).resized(found.image_size)
    np.testing.assert_allclose(back.keypoints, found.keypoints, rtol=1e-6)
    if back.scales is not None and found.scales is not None:
        np.testing.assert_allclose(back.scales, found.scales, rtol=1e-6)


@given(features(), sizes, st.data())
def test_taking_rows_and_resizing_commute(
    found: Features, size: np.ndarray[Any, np.dtype[np.int32]], data: st.DataObject
) -> None:
    rows = data.draw(hnp.arrays(np.bool_, len(found)))
    np.testing.assert_array_equal(
        found.take(rows).resized(size).keypoints, found.resized(size).take(rows).keypoints
    )


def test_the_corners_of_the_image_stay_its_corners() -> None:
    corners = np.array([[0, 0], [640, 0], [640, 480], [0, 480]], np.float32)
    found = Features(
        keypoints=corners,
        scores=np.ones(4, np.float32),
        descriptors=np.zeros((4, 1), np.float32),
        image_size=np.array([640, 480], np.int32),
        scales=np.full(4, 2, np.float32),
    )
    half = found.resized(np.array([320, 240], np.int32))
    assert half.keypoints.tolist() == (corners / 2).tolist()
    assert half.scales is not None
    assert half.scales.tolist() == [1, 1, 1, 1]
