"""Scenes with a true model: the Image Matching Challenge's, ETH3D's, Strecha's and any of COLMAP's.

Image Matching Challenge, phototourism (Jin et al., IJCV 2020): `SCENE/set_100`, see
`sfm_match.io.imc`. Stereo: the pairs that `new-vis-pairs/keys-th-0.1.npy` lists, or all.
Multi-view: COLMAP's mapper on each of the subsets of 5, 10 and 25 images, without their intrinsics;
the model with the most images counts; of all pairs of a subset's images, those with an image
outside of the model have failed. The measure is the mean average accuracy up to 10 degrees of the
larger of both angular errors, of which the translation's has no sign.

ETH3D, high-resolution multi-view, training scenes (Schoeps et al., CVPR 2017):
`SCENE/images/dslr_images_undistorted/*.JPG`, `SCENE/dslr_calibration_undistorted` (COLMAP's text
model, whose image names are relative to `images`) and `SCENE/dslr_scan_eval/scan_alignment.mlp`
with the scans beside it. Triangulation from the true poses (Dusmanu, Schoenberger, Pollefeys,
"Multi-View Optimization of Local Feature Geometry", ECCV 2020, section 4.2): images shrunk to a
long side of 1600 pixels; accuracy and completeness of the points at 1, 2 and 5 cm, as ETH3D's
program measures them (`sfm_match.geometry.point_clouds`).

Strecha et al., CVPR 2008: `SCENE/images/0000.jpg` and `SCENE/gt_dense_cameras/0000.jpg.camera` (or
beside the images), see `sfm_match.io.strecha`; all pairs at full size, and the positions and
rotations of a model with the true intrinsics after a similarity alignment.

COLMAP: `SCENE/images` and a model in `SCENE/gt`, `SCENE/sparse/0`, `SCENE/sparse` or `SCENE/model`.

The root may also be such a scene itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pycolmap

from sfm_match.benchmarks.datasets import (
    PosePairs,
    PoseSet,
    Scene,
    check_images,
    choose_scenes,
    chosen_pairs,
    make_model,
    pinhole,
)
from sfm_match.benchmarks.settings import SceneConfig
from sfm_match.geometry.point_clouds import Scan
from sfm_match.io.exif import read_header
from sfm_match.io.imc import list_subsets, read_calibration, read_pair_keys
from sfm_match.io.meshlab import read_meshlab_project
from sfm_match.io.model import read_model
from sfm_match.io.ply import read_ply_points
from sfm_match.io.strecha import read_strecha_camera
from sfm_match.spec import ConfigError
from sfm_match.stages.pair_truth import PairTruth, TruePair, truth_of_model

IMC_PROTOCOLS: dict[str, dict[str, Any]] = {
    "imc": {"tasks": ("pairs", "subsets"), "intrinsics": "unknown", "auc": (5.0, 10.0, 20.0)}
}
ETH3D_PROTOCOLS: dict[str, dict[str, Any]] = {
    "triangulation": {
        "resize": "max-1600",
        "tasks": ("pairs", "triangulation"),
        "min_shared_points": 50,
    },
}
STRECHA_PROTOCOLS: dict[str, dict[str, Any]] = {"strecha": {"tasks": ("pairs", "model")}}
COLMAP_PROTOCOLS: dict[str, dict[str, Any]] = {"colmap": {"tasks": ("pairs", "subsets")}}

_MODEL_FOLDERS = ("gt", "sparse/0", "sparse", "model")
_CAMERA_FOLDERS = ("gt_dense_cameras", "images")

_ReadScene = Callable[[Path, Path, SceneConfig], tuple[Scene, list[tuple[str, str]] | None]]


def _read_scenes(
    read: _ReadScene,
    marker: Callable[[Path], bool],
    root: Path,
    config: SceneConfig,
    wanted: Collection[str],
) -> PoseSet:
    """Read the folders that look like a scene: those below the root, or the root itself."""
    if marker(root):
        root, wanted = root.parent, [root.name]
    there = [path.name for path in root.iterdir() if path.is_dir() and marker(path)]
    scenes: list[Scene] = []
    truths: list[TruePair] = []
    groups: list[str] = []
    for name in choose_scenes(there, wanted, root):
        scene, listed = read(root, root / name, config)
        check_images(root, scene.names)
        pairs = chosen_pairs(scene, config.min_shared_points) if listed is None else listed
        truth = truth_of_model(scene.model, root / name, root, scene.names, pairs)
        scenes.append(scene)
        truths += truth.pairs
        groups += [name] * len(truth.pairs)
    pair_truth = PairTruth(root, tuple[TruePair, ...](truths), {})
    return PoseSet(root, PosePairs(pair_truth, tuple(groups)), tuple(scenes))


def _with_folder(model: pycolmap.Reconstruction, folder: str) -> pycolmap.Reconstruction:
    for image in model.images.values():
        image.name = f"{folder}/{image.name}"
    return model


def _colmap_folder(folder: Path) -> Path | None:
    paths = (folder / name for name in _MODEL_FOLDERS)
    return next((p for p in paths if any(p.glob("images.*")) and p.is_dir()), None)


def _is_colmap(folder: Path) -> bool:
    return (folder / "images").is_dir() and _colmap_folder(folder) is not None


def _colmap(root: Path, folder: Path, config: SceneConfig) -> tuple[Scene, None]:
    found = _colmap_folder(folder)
    assert found is not None  # of a folder that has the marker
    return Scene(folder.name, _with_folder(read_model(found), f"{folder.name}/images")), None


def _is_strecha(folder: Path) -> bool:
    return any(any((folder / name).glob("*.camera")) for name in _CAMERA_FOLDERS)


def _strecha(root: Path, folder: Path, config: SceneConfig) -> tuple[Scene, None]:
    places = (folder / name for name in _CAMERA_FOLDERS)
    files = next(files for place in places if (files := sorted(place.glob("*.camera"))))
    found = {f"{folder.name}/images/{path.stem}": read_strecha_camera(path) for path in files}
    model = make_model(
        {name: one.camera for name, one in found.items()},
        {name: one.cam_from_world for name, one in found.items()},
    )
    return Scene(folder.name, model), None


def _is_eth3d(folder: Path) -> bool:
    return (folder / "dslr_calibration_undistorted").is_dir()


def _eth3d(root: Path, folder: Path, config: SceneConfig) -> tuple[Scene, None]:
    model = read_model(folder / "dslr_calibration_undistorted")
    scans = partial(_read_scans, folder / "dslr_scan_eval" / "scan_alignment.mlp")
    return Scene(folder.name, _with_folder(model, f"{folder.name}/images"), scans=scans), None


def _read_scans(project: Path) -> list[Scan]:
    return [
        Scan(read_ply_points(path), matrix[:3])
        for path, matrix in read_meshlab_project(project).items()
    ]


def _is_imc(folder: Path) -> bool:
    return (folder / "set_100" / "calibration").is_dir()


def _imc(
    root: Path, folder: Path, config: SceneConfig
) -> tuple[Scene, list[tuple[str, str]] | None]:
    prefix, place = f"{folder.name}/set_100", folder / "set_100"
    stems = sorted(path.stem for path in (place / "images").glob("*.jpg"))
    if len(stems) < 2:
        raise ConfigError(
            f"{place / 'images'}: holds {len(stems)} .jpg images, expected at least 2"
        )
    names = {stem: f"{prefix}/images/{stem}.jpg" for stem in stems}
    cameras, poses = {}, {}
    for stem, name in names.items():
        found = read_calibration(place / "calibration" / f"calibration_{stem}.h5")
        header = read_header(root / name)
        cameras[name] = pinhole(found.K, (header.width, header.height))
        poses[name] = found.cam_from_world
    subsets = {
        key: tuple(f"{prefix}/{path}" for path in paths)
        for key, paths in list_subsets(place / "sub_set").items()
        if len(paths) in config.subset_sizes
    }
    keys = place / "new-vis-pairs" / "keys-th-0.1.npy"
    listed = None
    if keys.is_file():
        listed = [(names[a], names[b]) for a, b in read_pair_keys(keys, set(names))]
    _check_subsets(subsets.items(), set(names.values()), place)
    return Scene(folder.name, make_model(cameras, poses), subsets), listed


def _check_subsets(
    subsets: Iterable[tuple[str, tuple[str, ...]]], known: Collection[str], place: Path
) -> None:
    for key, names in subsets:
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(f"{place}/sub_set/{key}.txt: there is no image {unknown[0]!r}")


def read_colmap(
    root: Path, index: Path | None, config: SceneConfig, scenes: Collection[str]
) -> PoseSet:
    """Read scenes with a COLMAP model.

    Raises:
        ConfigError: there is none, an image is missing, or no pair sees enough points together.
        ModelError: a model cannot be read.
    """
    return _read_scenes(_colmap, _is_colmap, root, config, scenes)


def read_strecha(
    root: Path, index: Path | None, config: SceneConfig, scenes: Collection[str]
) -> PoseSet:
    """Read scenes with `.camera` files; raises as `read_colmap`."""
    return _read_scenes(_strecha, _is_strecha, root, config, scenes)


def read_eth3d(
    root: Path, index: Path | None, config: SceneConfig, scenes: Collection[str]
) -> PoseSet:
    """Read scenes in ETH3D's layout; raises as `read_colmap`."""
    return _read_scenes(_eth3d, _is_eth3d, root, config, scenes)


def read_phototourism(
    root: Path, index: Path | None, config: SceneConfig, scenes: Collection[str]
) -> PoseSet:
    """Read scenes in the challenge's layout; raises as `read_colmap`."""
    return _read_scenes(_imc, _is_imc, root, config, scenes)
