"""MegaDepth-1500 and ScanNet-1500: pairs of the LoFTR protocol, with their cameras and poses.

Sun et al., "LoFTR: Detector-Free Local Feature Matching with Transformers", CVPR 2021, section 4.2,
and the authors' published configuration and index files.

MegaDepth-1500: 1,500 pairs of the scenes 0015 and 0022 (Sacre Coeur and St. Peter's Square), 12 of
them twice, in both orders. The images are those of MegaDepth's undistorted reconstructions. Rules:

- LoFTR: the long side is resized to 840 pixels (`loftr`; 1200 in the paper's text, `loftr-1200`),
  sides rounded down to multiples of 8, by OpenCV's `resize` (linear); OpenCV's RANSAC of the
  essential matrix with 0.5 pixels of the full-size images, confidence 0.99999; precision at a
  squared symmetric epipolar distance of 1e-4.
- LightGlue (Lindenberger et al., ICCV 2023, section 5.2): the long side is resized to 1600 pixels,
  averaged; RANSAC of OpenCV and LO-RANSAC of PoseLib, each at 0.5 to 3 pixels, of which the best is
  published.

Its K have the principal point in the very middle, (w / 2, h / 2), as COLMAP's undistorter gives it:
they are in pixels with their origin at the corner, and taken as they are. (The published numbers
use them with pixel centres at whole numbers, half a pixel off.)

ScanNet-1500: 1,500 pairs of 100 scans, chosen by SuperGlue's authors (Sarlin et al., CVPR 2020).
Frames are resized to 640 x 480 pixels (linear), for which the K of the index are; these count from
the centre of the first pixel, and get half a pixel more. RANSAC by OpenCV with 0.5 pixels of those
(`loftr`) or 1 pixel (`superglue`), precision at 5e-4.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.benchmarks.datasets import (
    PosePairs,
    PoseSet,
    check_images,
    choose_scenes,
    pinhole,
)
from sfm_match.benchmarks.resizing import Size
from sfm_match.benchmarks.settings import PairConfig
from sfm_match.io.loftr_index import IndexPair, read_megadepth_index, read_scannet_index
from sfm_match.stages.pair_truth import PairTruth, TruePair

_SWEEP = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0)

MEGADEPTH_PROTOCOLS: dict[str, dict[str, Any]] = {
    "loftr": {"resize": "long-840/8", "max_epipolar_error": 1e-4},
    "loftr-1200": {"resize": "long-1200/8", "max_epipolar_error": 1e-4},
    "lightglue": {
        "resize": "long-1600",
        "interpolation": "area",
        "estimators": ("opencv", "poselib"),
        "thresholds": _SWEEP,
        "max_epipolar_error": 1e-4,
    },
}
SCANNET_PROTOCOLS: dict[str, dict[str, Any]] = {
    "loftr": {"resize": "640x480", "max_epipolar_error": 5e-4},
    "superglue": {"resize": "640x480", "thresholds": (1.0,), "max_epipolar_error": 5e-4},
}
_SCANNET_SIZE = 640, 480
_HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def read_megadepth(
    root: Path, index: Path | None, config: PairConfig, scenes: Collection[str]
) -> PoseSet:
    """Read the index, by default `megadepth_test_1500_scene_info` in the root.

    Raises:
        ConfigError: the index cannot be read, or images are missing.
    """
    folder = index or root / "megadepth_test_1500_scene_info"
    found = _chosen(read_megadepth_index(folder), root, scenes)
    return _pose_set(root, folder, found, lambda K: K, None)


def read_scannet(
    root: Path, index: Path | None, config: PairConfig, scenes: Collection[str]
) -> PoseSet:
    """Read the index, by default `scannet_test_1500` in the root.

    Raises:
        ConfigError: the index cannot be read, or images are missing.
    """
    folder = index or root / "scannet_test_1500"
    found = _chosen(read_scannet_index(folder), root, scenes)
    return _pose_set(root, folder, found, lambda K: K + _HALF, _SCANNET_SIZE)


def _chosen(pairs: Sequence[IndexPair], root: Path, scenes: Collection[str]) -> list[IndexPair]:
    chosen = set(choose_scenes({pair.part for pair in pairs}, scenes, root))
    kept = [pair for pair in pairs if pair.part in chosen]
    check_images(root, (name for pair in kept for name in pair.names))
    return kept


def _pose_set(
    root: Path,
    folder: Path,
    pairs: Sequence[IndexPair],
    corner: Callable[[Any], Any],
    frame: Size | None,
) -> PoseSet:
    size = frame or (0, 0)
    true = tuple(
        TruePair(
            pair.names,
            (
                pinhole(corner(pair.calibrations[0]), size),
                pinhole(corner(pair.calibrations[1]), size),
            ),
            pair.cam1_from_cam0,
        )
        for pair in pairs
    )
    groups = tuple(pair.part for pair in pairs)
    return PoseSet(root, PosePairs(PairTruth(folder, true, {}), groups, frame))
