"""Where a photograph was taken, as EXIF says it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL.ExifTags import GPS

# 2 and 3 (Exif 3.0) count from the ellipsoid.
_BELOW = (1, 3, b"\x01", b"\x03")


@dataclass(frozen=True, slots=True)
class GpsPosition:
    """A place on the Earth in WGS 84.

    Attributes:
        latitude: in degrees, positive to the north.
        longitude: in degrees, positive to the east.
        altitude: in metres, or None where it is not known.
    """

    latitude: float
    longitude: float
    altitude: float | None = None


def gps_position(tags: Mapping[int, Any]) -> GpsPosition | None:
    """Return the position of an EXIF GPS directory (CIPA DC-008), None where there is no valid one.

    Degrees without a letter for the hemisphere count as north and east, as in pycolmap. Cameras
    write 0, 0 where they have no fix, so that is no position either.
    """
    latitude = _degrees(tags.get(GPS.GPSLatitude), 90.0)
    longitude = _degrees(tags.get(GPS.GPSLongitude), 180.0)
    if latitude is None or longitude is None or latitude == longitude == 0:
        return None
    if _letter(tags.get(GPS.GPSLatitudeRef)) == "S":
        latitude = -latitude
    if _letter(tags.get(GPS.GPSLongitudeRef)) == "W":
        longitude = -longitude
    altitude = _number(tags.get(GPS.GPSAltitude))
    if altitude is not None and tags.get(GPS.GPSAltitudeRef) in _BELOW:
        altitude = -altitude
    return GpsPosition(latitude, longitude, altitude)


def _degrees(value: object, limit: float) -> float | None:
    """Return degrees, minutes and seconds, of which the last may be left out, as degrees."""
    if not isinstance(value, tuple | list) or not 1 <= len(value) <= 3:
        return None
    parts = [_number(part) for part in value]
    degrees = sum(math.nan if p is None else p / 60**i for i, p in enumerate(parts))
    return degrees if 0 <= degrees <= limit else None


def _number(value: object) -> float | None:
    """Return an EXIF number as a float if it is finite."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None


def _letter(value: object) -> str:
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.strip(" \0").upper()[:1]
