"""The data of the Image Matching Challenge's phototourism part: read.

Jin et al., "Image Matching across Wide Baselines: From Paper to Practice", IJCV 2020; layout and
files are those of the authors' benchmark. A scene is a folder `SCENE/set_100` with

- `images/NAME.jpg`;
- `calibration/calibration_NAME.h5`: `K` (3, 3), `R` (3, 3) and `T` (3,), camera from world, of a
  reconstruction by COLMAP of far more images, undistorted;
- `sub_set/Nbag_III.txt`: the images of the III-th subset of N, one a line, `images/NAME.jpg`;
- `new-vis-pairs/keys-th-0.1.npy`: the pairs of the stereo task, `NAME1-NAME2`, which see enough in
  common.

K is in COLMAP's pixels, with the origin at the image's corner.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64

_SUBSET = re.compile(r"(\d+)bag_(\d+)\.txt")


@dataclass(frozen=True, eq=False, slots=True)
class ImcCalibration:
    """The camera and the pose of an image.

    Attributes:
        K: float64 (3, 3).
        cam_from_world: float64 (3, 4).
    """

    K: ArrayF64
    cam_from_world: ArrayF64


def read_calibration(path: Path) -> ImcCalibration:
    """Read a calibration file.

    Raises:
        ConfigError: it is missing, damaged, or lacks something.
    """
    try:
        with h5py.File(path) as file:
            K, R, T = (np.asarray(file[name], np.float64) for name in ("K", "R", "T"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, KeyError) as error:
        raise ConfigError(f"{path}: is no calibration with K, R and T: {error}") from None
    if K.shape != (3, 3) or R.shape != (3, 3) or T.size != 3:
        raise ConfigError(f"{path}: expected K (3, 3), R (3, 3), T (3,)")
    return ImcCalibration(K, np.column_stack([R, T.ravel()]))


def list_subsets(folder: Path) -> dict[str, list[str]]:
    """Return the images of each subset, by its name such as `5bag_000`, sorted.

    Images are as the file has them, relative to the folder above.
    """
    found = {}
    for path in sorted(folder.glob("*bag_*.txt")):
        if _SUBSET.fullmatch(path.name):
            found[path.stem] = path.read_text(encoding="utf-8").split()
    return found


def read_pair_keys(path: Path, names: set[str]) -> list[tuple[str, str]]:
    """Return the pairs of a list of keys; names may hold hyphens themselves.

    Args:
        path: the file.
        names: the images that there are, without folder and suffix.

    Raises:
        ConfigError: it cannot be read, or a key is not two of the names.
    """
    try:
        keys = np.load(path).tolist()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is no list of pairs: {error}") from None
    return [_divide(str(key), names, path) for key in keys]


def _divide(key: str, names: set[str], path: Path) -> tuple[str, str]:
    cuts = (match.start() for match in re.finditer("-", key))
    fitting = [(key[:c], key[c + 1 :]) for c in cuts if key[:c] in names and key[c + 1 :] in names]
    if len(fitting) != 1:
        raise ConfigError(f"{path}: {key!r} is not NAME1-NAME2 of two images")
    return fitting[0]
