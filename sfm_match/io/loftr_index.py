"""The index files of LoFTR's test sets: which pairs there are, with their cameras and poses.

Sun et al., "LoFTR", CVPR 2021; the files are in the authors' repository, Apache-2.0.

- MegaDepth: a text file with the names of the parts, and `NAME.npz` for each. A part holds
  `image_paths` (relative to the data set's root, None where there is no image), `intrinsics` (3, 3)
  of the undistorted images at full size, `poses` (4, 4), camera from world, and `pair_infos`, each
  of two rows of these, their overlap and central matches. Despite their names, the parts are
  pickles: they are read with an unpickler that builds arrays and numbers of numpy and nothing else.
- ScanNet: `test.npz` with `name` (1500, 4), the scene, its scan and the two frames, and `rel_pose`
  (1500, 12), the second camera from the first by rows; `intrinsics.npz` with K (3, 3) of each scan
  for frames of 640 x 480 pixels.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64

_SAFE = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
}
_DAMAGE = (pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError, TypeError)
_DAMAGED = (*_DAMAGE, AttributeError, zipfile.BadZipFile)


@dataclass(frozen=True, eq=False, slots=True)
class IndexPair:
    """A pair of an index.

    Attributes:
        names: of the two images, relative to the data set's root.
        calibrations: K of each, float64 (3, 3), as in the file.
        cam1_from_cam0: float64 (3, 4).
        part: the part of the index, or the scene.
    """

    names: tuple[str, str]
    calibrations: tuple[ArrayF64, ArrayF64]
    cam1_from_cam0: ArrayF64
    part: str


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"it would call {module}.{name}")
        return super().find_class(module, name)


def read_megadepth_index(folder: Path) -> list[IndexPair]:
    """Read the parts that `megadepth_test_1500.txt` names, in its order.

    Raises:
        ConfigError: a file is missing or damaged, or would run code.
    """
    listing = folder / "megadepth_test_1500.txt"
    if not listing.is_file():
        raise ConfigError(f"{folder}: has no {listing.name}, the list of the index's parts")
    parts = listing.read_text().split()
    return [pair for part in parts for pair in _read_part(folder / f"{part}.npz")]


def _read_part(path: Path) -> list[IndexPair]:
    try:
        content = _load(path)
        names, poses = content["image_paths"], content["poses"]
        calibrations = content["intrinsics"]
        found = []
        for (row0, row1), *_ in content["pair_infos"]:
            relative = np.asarray(poses[row1]) @ np.linalg.inv(np.asarray(poses[row0], np.float64))
            found.append(
                IndexPair(
                    (str(names[row0]), str(names[row1])),
                    (_matrix(calibrations[row0]), _matrix(calibrations[row1])),
                    relative[:3],
                    path.stem,
                )
            )
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; the index names it") from None
    except _DAMAGED as error:
        raise ConfigError(f"{path}: is no part of a MegaDepth index: {error}") from None
    return found


def _load(path: Path) -> Mapping[str, Any]:
    """Read the arrays of a pickled dict, or of an archive of arrays that may hold objects."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            content: Mapping[str, Any] = _ArraysOnly(file).load()
        return content
    with zipfile.ZipFile(path) as archive:
        return {
            name.removesuffix(".npy"): _load_array(archive.read(name))
            for name in archive.namelist()
        }


def _load_array(data: bytes) -> Any:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    _, _, kind = header(file)
    if kind.hasobject:
        return _ArraysOnly(file).load()
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)


def _matrix(K: Any) -> ArrayF64:
    return np.asarray(K, np.float64).reshape(3, 3)


def read_scannet_index(folder: Path) -> list[IndexPair]:
    """Read `test.npz` and `intrinsics.npz`.

    Raises:
        ConfigError: a file is missing or damaged.
    """
    try:
        with np.load(folder / "test.npz") as content:
            names, poses = content["name"], content["rel_pose"].astype(np.float64)
        with np.load(folder / "intrinsics.npz") as content:
            calibrations = {name: _matrix(content[name]) for name in content.files}
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename}: no such file of the ScanNet index") from None
    except _DAMAGED as error:
        raise ConfigError(f"{folder}: is no ScanNet index: {error}") from None
    found = []
    for (number, scan, frame0, frame1), pose in zip(names.tolist(), poses, strict=True):
        scene = f"scene{number:04d}_{scan:02d}"
        if scene not in calibrations:
            raise ConfigError(f"{folder / 'intrinsics.npz'}: has no K of {scene}")
        K = calibrations[scene]
        files = f"{scene}/color/{frame0}.jpg", f"{scene}/color/{frame1}.jpg"
        found.append(IndexPair(files, (K, K), _rigid(pose.reshape(3, 4)), scene))
    return found


def _rigid(pose: ArrayF64) -> ArrayF64:
    """Return a pose of few digits with a rotation that is exactly one."""
    u, _, vt = np.linalg.svd(pose[:, :3])
    return np.column_stack([u @ vt, pose[:, 3]])
