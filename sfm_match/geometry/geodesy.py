"""Places on the Earth in Cartesian coordinates."""

from __future__ import annotations

import numpy as np

from sfm_match.types import ArrayF64

_SEMI_MAJOR_AXIS = 6_378_137.0
_FLATTENING = 1 / 298.257223563


def earth_centred(latitude: ArrayF64, longitude: ArrayF64, altitude: ArrayF64) -> ArrayF64:
    """Return Earth-centred, Earth-fixed coordinates of places in WGS 84 (EPSG:4979 to EPSG:4978).

    Straight distances between them are those of any local frame (east, north, up) too.

    Args:
        latitude: float64 (...), in degrees, positive to the north.
        longitude: float64 (...), in degrees, positive to the east.
        altitude: float64 (...), in metres above the ellipsoid.

    Returns:
        float64 (..., 3), in metres.
    """
    eccentricity2 = _FLATTENING * (2 - _FLATTENING)
    sine, cosine = np.sin(np.radians(latitude)), np.cos(np.radians(latitude))
    east = np.radians(longitude)
    # The radius of curvature in the prime vertical.
    radius = _SEMI_MAJOR_AXIS / np.sqrt(1 - eccentricity2 * sine**2)
    x = (radius + altitude) * cosine * np.cos(east)
    y = (radius + altitude) * cosine * np.sin(east)
    z = (radius * (1 - eccentricity2) + altitude) * sine
    return np.asarray(np.stack([x, y, z], axis=-1))
