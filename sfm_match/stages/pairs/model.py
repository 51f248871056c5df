"""Pairs of images that a COLMAP model says see the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.geometry.neighbours import camera_distances, nearest_others, shared_points
from sfm_match.io.model import ModelError, read_model
from sfm_match.io.pairs import PairList
from sfm_match.stages.pairs.config import Config
from sfm_match.stages.pairs.images import ImageSet
from sfm_match.stages.pairs.places import pairs_of_rows, with_unplaced
from sfm_match.types import ArrayF64, Pair


def covisibility(images: ImageSet, config: Config) -> PairList:
    """Pair each image with those that share most points, at least the smallest number.

    Raises:
        FileNotFoundError, ModelError: the model is not there, cannot be read, or does not fit.
    """
    model = read_model(Path(config.model))
    names, placed, ids = _images_of(model, images, config)
    if not model.points3D:
        raise ModelError(
            f"{config.model} has no points, so nothing says which images share some: the method "
            "'poses' needs none"
        )
    row = {image_id: i for i, image_id in enumerate(ids)}
    seen = [
        (row[element.image_id], point)
        for point, found in enumerate(model.points3D.values())
        for element in found.track.elements
        if element.image_id in row
    ]
    observed, points = np.array(seen, np.int64).reshape(-1, 2).T
    shared = shared_points(observed, points, len(placed))

    def costs(rows: slice) -> ArrayF64:
        counts = shared[rows].toarray()
        return np.where(counts >= config.min_shared, -counts.astype(np.float64), np.inf)

    pairs = pairs_of_rows(placed, nearest_others(costs, len(placed), config.neighbours))
    return _with_unplaced(pairs, names, placed, config)


def poses(images: ImageSet, config: Config) -> PairList:
    """Pair each image with the nearest ones that look in much the same direction.

    Raises:
        FileNotFoundError, ModelError: the model is not there, cannot be read, or does not fit.
    """
    model = read_model(Path(config.model))
    names, placed, ids = _images_of(model, images, config)
    centres = np.array([model.images[i].projection_center() for i in ids])
    axes = np.array([model.images[i].viewing_direction() for i in ids])

    def costs(rows: slice) -> ArrayF64:
        distances = camera_distances(centres[rows], axes[rows], centres, axes, config.max_angle)
        too_far = distances > (config.max_distance or np.inf)
        return np.where(too_far, np.inf, distances)

    pairs = pairs_of_rows(placed, nearest_others(costs, len(placed), config.neighbours))
    return _with_unplaced(pairs, names, placed, config)


def _images_of(
    model: pycolmap.Reconstruction, images: ImageSet, config: Config
) -> tuple[list[str], list[str], list[int]]:
    """Return the names of all images, and names and ids of those with a pose in the model."""
    names = sorted(set(images.names))
    ids = {image.name: i for i, image in model.images.items() if image.has_pose}
    placed = [name for name in names if name in ids]
    if not placed:
        example = f", which has images such as {min(ids)!r}" if ids else ", which has no poses"
        raise ModelError(
            f"none of the {len(names)} images, such as {names[0]!r}, is in the model "
            f"{config.model}{example}"
        )
    return names, placed, [ids[name] for name in placed]


def _with_unplaced(
    pairs: list[Pair], names: list[str], placed: list[str], config: Config
) -> PairList:
    known = set(placed)
    unplaced = [name for name in names if name not in known]
    return with_unplaced(pairs, names, unplaced, f"are not in the model {config.model}", config)
