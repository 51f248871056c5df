"""HPatches: 116 sequences of six images with true homographies.

Balntas et al., "HPatches", CVPR 2017. A sequence is a folder `v_NAME` (viewpoint) or `i_NAME`
(illumination) with `1.ppm` to `6.ppm` and `H_1_2` to `H_1_6`, which take pixels of the first image
to the others; the centre of the first pixel is (0, 0). The pairs are the first image with each of
the others. Rules:

- D2-Net (Dusmanu et al., CVPR 2019): full size; the mean matching accuracy at 1 to 10 pixels;
  eight sequences of images above 1200 x 1600 pixels are left out (`LARGE_SEQUENCES`), so that 540
  pairs of 108 sequences are left, 260 of illumination and 280 of viewpoint. A pair without matches
  has the accuracy 0.
- LoFTR (section 4.1): the short side is resized to 480 pixels; at most the 1,000 best matches;
  RANSAC by OpenCV, 3 pixels; AUC of the corner error at 3, 5 and 10 pixels.
- LightGlue (section 5.1): the same size; AUC at 1 and 5 pixels of the direct linear transform,
  weighted by the matches' scores, and of LO-RANSAC.
- SuperPoint (DeTone et al., CVPRW 2018): repeatability and localisation error of at most 300
  keypoints of images of 320 x 240 pixels, at 3 pixels.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.benchmarks.datasets import (
    HomographyPair,
    HomographySet,
    check_images,
    choose_scenes,
)
from sfm_match.benchmarks.settings import HomographyConfig
from sfm_match.geometry.homographies import corner_from_centre
from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64

LARGE_SEQUENCES = (
    "i_contruction",
    "i_crownnight",
    "i_dc",
    "i_pencils",
    "i_whitebuilding",
    "v_artisans",
    "v_astronautis",
    "v_talent",
)
"""The sequences that are usually left out; the names are those of the data set."""

PROTOCOLS: dict[str, dict[str, Any]] = {
    "d2-net": {},
    "loftr": {
        "resize": "short-480",
        "interpolation": "linear",
        "estimators": ("opencv",),
        "auc": (3.0, 5.0, 10.0),
        "max_matches": 1000,
    },
    "lightglue": {
        "resize": "short-480",
        "estimators": ("weighted-dlt", "dlt", "opencv", "poselib"),
        "thresholds": (0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    },
    "superpoint": {"resize": "320x240", "repeatability_keypoints": 300},
}
_GROUPS = {"i": "illumination", "v": "viewpoint"}


def read_hpatches(
    root: Path, index: Path | None, config: HomographyConfig, scenes: Collection[str]
) -> HomographySet:
    """Read the sequences of a folder.

    Raises:
        ConfigError: there is none, or a homography or an image is missing or wrong.
    """
    there = {path.name for path in root.glob("[iv]_*") if path.is_dir()}
    left_out = set() if config.large_sequences or scenes else there & set(LARGE_SEQUENCES)
    pairs = tuple(
        HomographyPair(
            (f"{name}/1.ppm", f"{name}/{number}.ppm"),
            corner_from_centre(_read_homography(root / name / f"H_1_{number}")),
            _GROUPS[name[0]],
        )
        for name in choose_scenes(there - left_out, scenes, root)
        for number in range(2, 7)
    )
    check_images(root, (name for pair in pairs for name in pair.names))
    return HomographySet(root, pairs, tuple(sorted(left_out)))


def _read_homography(path: Path) -> ArrayF64:
    try:
        H = np.array(path.read_text().split(), np.float64)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not nine numbers: {error}") from None
    if H.size != 9 or not np.isfinite(H).all() or np.linalg.det(H.reshape(3, 3)) == 0:
        raise ConfigError(f"{path}: is not nine numbers of an invertible matrix")
    return H.reshape(3, 3)
