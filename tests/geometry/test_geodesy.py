"""Earth-centred coordinates against pycolmap's and against known distances."""

from __future__ import annotations

import numpy as np
import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.geometry.geodesy import earth_centred

WGS84 = pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)
PLACES = st.tuples(st.floats(-90, 90), st.floats(-180, 180), st.floats(-500, 9000))


@given(st.lists(PLACES, min_size=1, max_size=5))
def test_agrees_with_pycolmap(places: list[tuple[float, float, float]]) -> None:
    given_places = np.array(places)
    expected = WGS84.ellipsoid_to_ecef(given_places)
    np.testing.assert_allclose(earth_centred(*given_places.T), expected, rtol=0, atol=1e-6)


def test_distances_are_those_of_the_local_frame() -> None:
    # A second of latitude at 45 degrees: the meridian's radius of curvature is 6367.382 km.
    second = 1 / 3600
    a, b, c = earth_centred(np.array([45, 45 + second, 45]), np.zeros(3), np.array([0.0, 0, 30]))
    assert np.linalg.norm(b - a) == pytest.approx(np.radians(second) * 6_367_382, rel=1e-6)
    assert np.linalg.norm(c - a) == pytest.approx(30, rel=1e-9)
