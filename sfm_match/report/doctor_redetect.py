"""Findings on the pixel convention, by detecting the keypoints of some images again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycolmap
from scipy.spatial import KDTree

from sfm_match.io.database_access import Connection
from sfm_match.io.database_images import read_image_keypoints
from sfm_match.io.images import ImageError, read_image
from sfm_match.report.doctor_rows import half_pixel_finding
from sfm_match.report.doctor_tables import Survey
from sfm_match.report.doctor_thresholds import Thresholds
from sfm_match.report.findings import Finding, Place
from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF32, ArrayF64, Image

_NUM_IMAGES = 3
_REACH = 1.5  # pixels
_TIGHT = 0.2  # pixels


def examine_convention(
    found: Survey, connection: Connection, folder: Path, limits: Thresholds
) -> Iterator[Finding]:
    """Yield that keypoints are off from where COLMAP's SIFT finds the same points.

    Only SIFT's and other keypoints on the same blobs say something; of others too few are found
    again.
    """
    images = found.images
    enough = np.flatnonzero(
        (images.num_keypoints >= limits.min_keypoints) & (images.num_whole == 0)
    )
    if not any((folder / name).is_file() for name in images.names):
        raise ConfigError(f"{folder}: has none of the database's images, such as {images.names[0]}")
    chosen = [int(i) for i in enough if (folder / images.names[i]).is_file()]
    spread = chosen[:: max(1, len(chosen) // _NUM_IMAGES)][:_NUM_IMAGES]
    off = {}
    for row in spread:
        points = read_image_keypoints(connection, int(images.ids[row]))
        try:
            pixels = read_image(folder / images.names[row], grey=True).pixels
        except ImageError:
            continue  # a run reports such images
        if points is not None and points.shape[1] >= 2:
            offset = keypoint_offset(points[:, :2], pixels, limits.share_redetected)
            if offset is not None and (np.abs(offset) > limits.max_offset).all():
                off[row] = offset
    if off:
        x, y = np.mean(list(off.values()), axis=0)
        yield half_pixel_finding(
            f"keypoints are off by ({x:+.2f}, {y:+.2f}) pixels from where COLMAP's SIFT finds the "
            f"same points, in {len(off)} of {len(spread)} images",
            tuple(
                Place((images.names[row],), f"{o[0]:+.2f}, {o[1]:+.2f}") for row, o in off.items()
            ),
        )


def keypoint_offset(points: ArrayF32, image: Image, min_share: float) -> ArrayF64 | None:
    """Return by how much keypoints are off, (x, y) in pixels, from those that COLMAP's SIFT finds.

    It is the centre of the densest cluster of the differences to the nearest detections.

    Args:
        points: float32 (N, 2).
        image: uint8 (H, W), grey, in the raster that the keypoints refer to.
        min_share: of the keypoints, that must differ by nearly the same.

    Returns:
        None where too few do.
    """
    extractor = pycolmap.FeatureExtractor.create(pycolmap.FeatureExtractionOptions(use_gpu=False))
    detected, _ = extractor.extract_from_uint8_array(image)
    again = np.unique(pycolmap.keypoints_to_matrix(detected)[:, :2], axis=0)
    if not len(again):
        return None
    distances, nearest = map(np.asarray, KDTree(again).query(points, distance_upper_bound=_REACH))
    near = np.isfinite(distances)
    differences = (points[near] - again[nearest[near]]).astype(np.float64)
    if not len(differences):
        return None
    tree = KDTree(differences)
    num_close = np.asarray(tree.query_ball_point(differences, _TIGHT, return_length=True))
    densest = differences[int(np.argmax(num_close))]
    cluster = np.linalg.norm(differences - densest, axis=1) <= _TIGHT
    if np.count_nonzero(cluster) < min_share * len(points):
        return None
    return np.asarray(np.median(differences[cluster], axis=0))
