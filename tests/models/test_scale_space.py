from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.models.scale_space import (
    SCALES,
    SIGMA,
    Extrema,
    Octave,
    _extreme_samples,
    extrema,
    scale_space,
)
from sfm_match.types import ArrayF32, ArrayF64

ANY_CONTRAST, ANY_EDGE = 1e-9, 1e9


def gaussian(shape: tuple[int, int], centre: tuple[float, float], variance: float) -> ArrayF64:
    """Return a bell around (x, y) whose integral is 1."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    squared = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2
    return np.asarray(np.exp(-squared / (2 * variance)) / (2 * np.pi * variance))


def octave_of(differences: ArrayF32, spacing: float = 1.0) -> Octave:
    """Return the octave that has given differences (5, H, W) between its levels."""
    first = np.zeros((1, *differences.shape[1:]), np.float32)
    levels = np.cumsum(np.concatenate([first, differences]), axis=0, dtype=np.float64)
    return Octave(levels.astype(np.float32), spacing)


def quadratic(
    shape: tuple[int, int, int], centre: tuple[float, float, float], matrix: ArrayF64, height: float
) -> ArrayF32:
    """Return height - d^T M d / 2 at the samples, where d is the distance (level, y, x)."""
    distances = np.moveaxis(np.mgrid[: shape[0], : shape[1], : shape[2]], 0, -1) - centre
    return np.asarray(
        height - np.einsum("...i,ij,...j->...", distances, matrix, distances) / 2, np.float32
    )


@pytest.mark.parametrize("first_octave", [-1, 0])
def test_each_level_has_its_scale(first_octave: int) -> None:
    # A picture counts as blurred by 0.5 pixels; so this one is in truth a bell of another width.
    variance = 25.0
    bell = gaussian((160, 200), (100, 80), variance)
    picture = (255 * bell / bell.max()).round().astype(np.uint8)
    octaves = scale_space(picture, first_octave)
    assert [octave.spacing for octave in octaves] == [
        2.0**i for i in range(first_octave, first_octave + 4)
    ]
    for octave in octaves:
        assert len(octave.levels) == SCALES + 3
        for i, level in enumerate(octave.levels):
            sigma = SIGMA * 2 ** (i / SCALES) * octave.spacing
            expected = gaussian((160, 200), (100, 80), variance + sigma**2 - 0.25)
            expected *= 255 / bell.max()
            step = octave.spacing
            rows, columns = (np.arange(n) * step for n in level.shape)
            inside = np.ix_(rows % 1 == 0, columns % 1 == 0)
            at = np.ix_(
                rows[rows % 1 == 0].astype(int).clip(0, 159),
                columns[columns % 1 == 0].astype(int).clip(0, 199),
            )
            assert np.abs(level[inside] - expected[at]).max() < 1.5


def test_small_pictures_have_fewer_octaves() -> None:
    flat = np.zeros((10, 40), np.uint8)
    assert [octave.levels[0].shape for octave in scale_space(flat, 0)] == [
        (10, 40),
        (5, 20),
        (3, 10),
    ]
    assert scale_space(flat[:2], 0) == []


def by_loops(differences: ArrayF32) -> set[tuple[int, int, int]]:
    """Return the samples that exceed all of their neighbours, or are below all."""
    found = set()
    levels, height, width = differences.shape
    for level, y, x in itertools.product(
        range(1, levels - 1), range(1, height - 1), range(1, width - 1)
    ):
        cube = differences[level - 1 : level + 2, y - 1 : y + 2, x - 1 : x + 2].ravel()
        others = np.delete(cube, 13)
        if (cube[13] > others).all() or (cube[13] < others).all():
            found.add((level, y, x))
    return found


@given(seed=st.integers(0, 10_000), coarse=st.booleans(), contrast=st.floats(0.1, 2.5))
@settings(max_examples=15, deadline=None)
def test_extreme_samples_are_those_that_loops_find(
    seed: int, coarse: bool, contrast: float
) -> None:
    # Tall enough to be searched in three parts.
    differences = np.random.default_rng(seed).normal(size=(SCALES + 2, 140, 6)).astype(np.float32)
    if coarse:  # many are equal
        differences = differences.round()
    levels = octave_of(differences).levels
    differences = np.diff(levels, axis=0)
    expected = {at for at in by_loops(differences) if abs(differences[at]) >= contrast}
    found = [tuple(sample) for sample in _extreme_samples(levels, contrast).tolist()]
    assert len(found) == len(set(found))
    assert set(found) == expected


# So small that no other sample is more extreme than the one in the middle.
@given(
    offset=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    sign=st.sampled_from([-1, 1]),
    mixed=st.tuples(*[st.floats(-0.15, 0.15)] * 3),
)
@settings(max_examples=40, deadline=None)
def test_the_extremum_of_a_quadratic_is_found_exactly(
    offset: tuple[float, float, float], sign: int, mixed: tuple[float, float, float]
) -> None:
    a, b, c = mixed
    matrix = np.array([[1.0, a, b], [a, 1.3, c], [b, c, 0.9]])
    centre = (2 + offset[0], 7 + offset[1], 9 + offset[2])
    differences = sign * quadratic((SCALES + 2, 15, 20), centre, matrix, 50.0)
    found = extrema(octave_of(differences.astype(np.float32)), ANY_CONTRAST, ANY_EDGE)
    assert found.found_at.tolist() == [2]
    np.testing.assert_allclose([found.level[0], found.y[0], found.x[0]], centre, atol=2e-4, rtol=0)


def one_peak(height: float, ratio: float = 1.0) -> Octave:
    matrix = np.diag([1.0, 1.0, ratio])
    return octave_of(quadratic((SCALES + 2, 9, 9), (2.0, 4.0, 4.0), matrix, height))


def test_contrast_is_compared_where_the_extremum_is() -> None:
    octave = one_peak(2.55)
    assert len(extrema(octave, 0.00999, ANY_EDGE)) == 1
    assert len(extrema(octave, 0.01001, ANY_EDGE)) == 0


@pytest.mark.parametrize("ratio", [1.0, 4.0, 11.0])
def test_edges_are_left_out(ratio: float) -> None:
    octave = one_peak(200.0, ratio)
    assert len(extrema(octave, ANY_CONTRAST, ratio * 1.01)) == 1
    if ratio > 1:
        assert len(extrema(octave, ANY_CONTRAST, ratio * 0.99)) == 0


def test_flat_pictures_have_no_extrema() -> None:
    for value in (0, 128, 255):
        for octave in scale_space(np.full((50, 60), value, np.uint8), -1):
            assert len(extrema(octave, ANY_CONTRAST, ANY_EDGE)) == 0


def test_scales_of_points() -> None:
    points = Extrema(np.zeros(3), np.arange(3.0), np.array([0.2, 1.5, 3.0]), np.arange(1, 4))
    np.testing.assert_allclose(points.sigma[2], 2 * SIGMA)
    some = points.take(np.array([2, 0]))
    assert (some.y.tolist(), some.level.tolist(), some.found_at.tolist()) == (
        [2.0, 0.0],
        [3.0, 0.2],
        [3, 1],
    )
