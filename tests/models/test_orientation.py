from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sfm_match.models.orientation import orientations
from sfm_match.models.scale_space import Extrema
from sfm_match.types import ArrayF32, ArrayF64


def ramp(angle: float, size: int = 61) -> ArrayF32:
    """Return a slope that rises in a direction, from x towards y."""
    rows, columns = np.mgrid[:size, :size]
    return np.asarray(np.cos(angle) * columns + np.sin(angle) * rows, np.float32)


def points_of(x: ArrayF64, y: ArrayF64, level: float | ArrayF64) -> Extrema:
    return Extrema(x, y, np.broadcast_to(level, x.shape), np.ones(len(x), np.int64))


def points_at(*places: tuple[float, float, float]) -> Extrema:
    """Return points at x, y and level."""
    return points_of(*np.array(places).T)


def turned(found: ArrayF64, expected: float | ArrayF64) -> ArrayF64:
    """Return how far angles are from others, in degrees."""
    return np.rad2deg(np.abs((found - expected + np.pi) % (2 * np.pi) - np.pi))


@given(angle=st.floats(0, 2 * np.pi), x=st.floats(20, 40), y=st.floats(20, 40))
@example(angle=0.0, x=30.0, y=30.0)  # halfway between two bins
@settings(max_examples=40, deadline=None)
def test_the_orientation_is_the_direction_of_the_slope(angle: float, x: float, y: float) -> None:
    points = points_at((x, y, 1.0), (y, x, 2.4), (30.0, 30.0, 3.7))
    rows, angles = orientations(ramp(angle), points, 2)
    assert sorted(rows.tolist()) == [0, 1, 2]
    assert turned(angles, angle).max() < 1.0


def two_slopes(second: float) -> ArrayF32:
    """Return a picture that rises to the right in its upper half, downwards in its lower one."""
    raster = np.zeros((61, 61), np.float32)
    rows, columns = np.mgrid[:61, :61].astype(np.float32)
    raster = np.where(rows <= 30, columns, 0) + np.where(rows > 30, second * (rows - 30), 0)
    raster[31:] += 30
    return np.asarray(raster, np.float32)


def test_further_peaks_count_if_they_are_high_enough() -> None:
    points = points_at((30.0, 30.6, 2.0))
    for second, expected in ((1.0, [0, 90]), (0.5, [0])):
        # The step between the halves is steep: only where it lies outside of it does it not count.
        raster = two_slopes(second)
        raster[30:32] = raster[30]
        _, angles = orientations(raster, points, 4)
        near = [turned(angles, np.deg2rad(degrees)).min() < 15 for degrees in (0, 90)]
        assert near == [degrees in expected for degrees in (0, 90)]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_no_more_orientations_than_asked_for(most: int) -> None:
    rng = np.random.default_rng(0)
    raster = rng.normal(size=(200, 200)).astype(np.float32)
    x, y = rng.uniform(10, 190, (2, 500))
    rows, angles = orientations(raster, points_of(x, y, 1.0), most)
    counts = np.bincount(rows, minlength=500)
    assert counts.min() >= 1
    assert counts.max() == most
    assert ((angles >= 0) & (angles <= 2 * np.pi + 0.2)).all()


def test_highest_peaks_are_taken() -> None:
    rng = np.random.default_rng(1)
    raster = rng.normal(size=(100, 100)).astype(np.float32)
    x, y = rng.uniform(20, 80, (2, 200))
    points = points_of(x, y, 2.0)
    one, two = (orientations(raster, points, most) for most in (1, 2))
    first = np.unique(two[0], return_index=True)[1]
    highest = dict(zip(one[0].tolist(), one[1].tolist(), strict=True))
    assert [highest[row] for row in two[0][first]] == two[1][first].tolist()


def test_points_are_independent() -> None:
    rng = np.random.default_rng(2)
    raster = rng.normal(size=(90, 120)).astype(np.float32)
    points = points_of(rng.uniform(0, 119, 80), rng.uniform(0, 89, 80), rng.uniform(0.5, 3.5, 80))
    rows, angles = orientations(raster, points, 2)
    for row in range(80):
        alone = orientations(raster, points.take(np.array([row])), 2)[1]
        np.testing.assert_allclose(np.sort(alone), np.sort(angles[rows == row]))


def test_no_points() -> None:
    none = points_of(np.zeros(0), np.zeros(0), 1.0)
    rows, angles = orientations(ramp(0.0), none, 2)
    assert (rows.shape, angles.shape) == ((0,), (0,))
