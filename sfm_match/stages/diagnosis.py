"""Why no model came out of a database, with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from sfm_match.geometry.match_graph import components
from sfm_match.geometry.parallax import parallax

_PAIRS_TO_TRY = 50
# Where no pair suffices, COLMAP halves its thresholds for the initial pair twice.
_RELAXATION = 4


def why_no_model(database: Path, mapper: str, options: Mapping[str, Any]) -> str:
    """Return the likeliest reasons, most basic first.

    Args:
        database: a COLMAP database.
        mapper: the name of the mapper.
        options: the mapper's options, for its thresholds where they were changed.
    """
    defaults = pycolmap.IncrementalPipelineOptions().mapper
    table = "incremental_options" if mapper == "hierarchical" else None
    changed = options.get(table, {}).get("mapper", {}) if table else options.get("mapper", {})
    where = f"mapper.{table}.mapper" if table else "mapper.mapper"
    min_inliers = changed.get("init_min_num_inliers", defaults.init_min_num_inliers) // _RELAXATION
    min_angle = changed.get("init_min_tri_angle", defaults.init_min_tri_angle) / _RELAXATION
    with pycolmap.Database.open(database) as opened:
        ids = [image.image_id for image in opened.read_all_images()]
        num_keypoints = [opened.num_keypoints_for_image(image_id) for image_id in ids]
        num_matched = opened.num_matched_image_pairs()
        pair_ids, geometries = opened.read_two_view_geometries()
        pairs = [pycolmap.pair_id_to_image_pair(pair_id) for pair_id in pair_ids]
        inliers = np.array([len(geometry.inlier_matches) for geometry in geometries], int)
        candidates = np.flatnonzero(inliers >= min_inliers)
        best = candidates[np.argsort(-inliers[candidates])][:_PAIRS_TO_TRY]
        angles = [_angle(opened, pairs[i], geometries[i]) for i in best]
    with_keypoints = int(np.count_nonzero(num_keypoints))
    facts = [f"{with_keypoints} of {len(ids)} images have keypoints"]
    if with_keypoints < 2:
        facts.append("at least two are needed")
        return "; ".join(facts)
    facts.append(f"{num_matched} pairs have matches, {len(pairs)} of them a verified geometry")
    if not pairs:
        facts.append(
            "nothing links the images: other pairs, features or a larger overlap are needed"
        )
        return "; ".join(facts)
    facts.append(_components(ids, pairs))
    if mapper not in ("incremental", "hierarchical"):
        return "; ".join(facts)
    facts.append(
        f"{len(candidates)} pairs have the {min_inliers} inliers that an initial pair needs at the "
        f"least (the best has {inliers.max()}; a quarter of {where}.init_min_num_inliers)"
    )
    if len(candidates):
        wide = sum(angle >= min_angle for angle in angles)
        facts.append(
            f"{wide} of the best {len(angles)} of them have the triangulation angle of "
            f"{min_angle:g} degrees (the widest has {max(angles):.1f}; a quarter of "
            f"{where}.init_min_tri_angle)"
        )
        if wide:
            facts.append(
                "few points may be seen by three images: points of two count with "
                f"{where.removesuffix('mapper')}triangulation.ignore_two_view_tracks=false"
            )
    return "; ".join(facts)


def _angle(
    database: pycolmap.Database, ids: tuple[int, int], geometry: pycolmap.TwoViewGeometry
) -> float:
    """Return the median triangulation angle of a pair in degrees, 0 where there is no pose."""
    cameras = [database.read_camera(database.read_image(i).camera_id) for i in ids]
    points = [database.read_keypoints(i)[:, :2].astype(np.float64) for i in ids]
    found = parallax(cameras[0], points[0], cameras[1], points[1], geometry)
    return 0.0 if found is None else found.angle


def _components(ids: list[int], pairs: list[tuple[int, int]]) -> str:
    row = {image_id: i for i, image_id in enumerate(ids)}
    part = components(len(ids), np.array([[row[a], row[b]] for a, b in pairs]))
    sizes = np.bincount(part)
    return f"the verified pairs link {sizes[0]} of {len(ids)} images at most ({len(sizes)} groups)"
