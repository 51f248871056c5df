"""Pairs of images that were taken near each other, by GPS."""

from __future__ import annotations

import numpy as np

from sfm_match.geometry.geodesy import earth_centred
from sfm_match.geometry.neighbours import nearest_others
from sfm_match.io.gps import GpsPosition
from sfm_match.io.pairs import PairList
from sfm_match.spec import ConfigError
from sfm_match.stages.pairs.config import Config
from sfm_match.stages.pairs.images import ImageSet
from sfm_match.stages.pairs.places import pairs_of_rows, with_unplaced
from sfm_match.types import ArrayF64


def spatial(images: ImageSet, config: Config) -> PairList:
    """Pair each image with the nearest ones within the largest distance.

    Raises:
        ConfigError: no image has a position; or altitudes count and an image has none.
    """
    names = sorted(set(images.names))
    placed = [name for name in names if name in images.positions]
    if not placed:
        raise ConfigError(
            f"pairs.method: spatial needs GPS positions, and none of the {len(names)} images has "
            "one in its EXIF data: choose another method"
        )
    altitudes = [_altitude(name, images.positions[name], config) for name in placed]
    degrees = np.array(
        [(images.positions[name].latitude, images.positions[name].longitude) for name in placed]
    )
    points = earth_centred(degrees[:, 0], degrees[:, 1], np.array(altitudes))

    def costs(rows: slice) -> ArrayF64:
        distances = np.linalg.norm(points[rows, None] - points[None], axis=2)
        return np.where(distances > (config.max_distance or np.inf), np.inf, distances)

    pairs = pairs_of_rows(placed, nearest_others(costs, len(placed), config.neighbours))
    unplaced = [name for name in names if name not in images.positions]
    return with_unplaced(pairs, names, unplaced, "have no GPS position", config)


def _altitude(name: str, position: GpsPosition, config: Config) -> float:
    if config.ignore_altitude:
        return 0.0
    if position.altitude is None:
        raise ConfigError(
            f"pairs.ignore_altitude is false, but {name!r} has no altitude: leave altitudes out"
        )
    return position.altitude
