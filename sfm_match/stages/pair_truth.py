"""The true relative poses of image pairs, and which images and cameras they need."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.geometry import poses
from sfm_match.io.exif import ImageHeader
from sfm_match.io.model import ModelError, read_model
from sfm_match.io.pose_pairs import PosePair, read_pose_pairs
from sfm_match.spec import ConfigError
from sfm_match.stages.evaluate import poses_by_name
from sfm_match.types import ArrayF64

# A baseline below this part of the largest translation is zero up to rounding.
_ZERO_BASELINE = 1e-12
# EXIF's numbers for a picture that is upright once turned counter-clockwise by 0 to 3 quarters.
_ORIENTATION_OF_TURN = (1, 8, 3, 6)
_NUM_NAMES_SHOWN = 3


@dataclass(frozen=True, eq=False, slots=True)
class TruePair:
    """Two images whose cameras and relative pose are known.

    Attributes:
        names: the two images, in the order of the truth.
        cameras: their cameras, in corner-origin pixels of the images' files.
        cam1_from_cam0: float64 (3, 4); a translation of zero where there is no baseline.
    """

    names: tuple[str, str]
    cameras: tuple[pycolmap.Camera, pycolmap.Camera]
    cam1_from_cam0: ArrayF64

    @property
    def angle(self) -> float:
        """The angle between the directions in which the two cameras look, in degrees."""
        # The third row of the rotation is the second camera's axis, seen from the first.
        return float(poses.direction_error(self.cam1_from_cam0[2, :3], np.array([0.0, 0.0, 1.0])))


@dataclass(frozen=True)
class PairTruth:
    """True relative poses.

    Attributes:
        path: where they are from.
        pairs: all pairs, a pair that is listed twice twice.
        orientations: the EXIF orientation of images that the truth says are turned.
        missing: images of the truth that are not there and whose pairs are left out.
    """

    path: Path
    pairs: tuple[TruePair, ...]
    orientations: Mapping[str, int]
    missing: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The images of all pairs, sorted."""
        return sorted({name for pair in self.pairs for name in pair.names})

    def within(self, min_angle: float, max_angle: float) -> PairTruth:
        """Return the pairs with an angle between the viewing directions in a range, in degrees.

        Raises:
            ConfigError: there is none.
        """
        if min_angle <= 0 and max_angle >= 180:
            return self
        angles = [pair.angle for pair in self.pairs]
        kept = [p for p, a in zip(self.pairs, angles, strict=True) if min_angle <= a <= max_angle]
        if not kept:
            raise ConfigError(
                f"{self.path}: no pair has {min_angle:g} to {max_angle:g} degrees between the "
                f"viewing directions; they have {min(angles):.1f} to {max(angles):.1f}"
            )
        return replace(self, pairs=tuple(kept))

    def fitted(self, headers: Mapping[str, ImageHeader]) -> PairTruth:
        """Return the truth with its cameras in the size of the images' files.

        Cameras of a model are scaled to images of another resolution. Images without a header are
        left as they are.

        Raises:
            ConfigError: a camera does not fit its image.
        """
        for name, orientation in self.orientations.items():
            exif = headers[name].orientation if name in headers else 1
            if exif not in (1, orientation):
                raise ConfigError(
                    f"{self.path}: turns {name} as EXIF orientation {orientation} does, but the "
                    f"file says {exif}; set one of them right"
                )
        cameras: dict[tuple[str, int], pycolmap.Camera] = {}

        def fit(name: str, camera: pycolmap.Camera) -> pycolmap.Camera:
            if name not in headers:
                return camera
            key = name, id(camera)
            if key not in cameras:
                cameras[key] = _fit_camera(camera, headers[name], f"{self.path}: {name}")
            return cameras[key]

        return replace(
            self,
            pairs=tuple(
                replace(
                    pair,
                    cameras=(
                        fit(pair.names[0], pair.cameras[0]),
                        fit(pair.names[1], pair.cameras[1]),
                    ),
                )
                for pair in self.pairs
            ),
        )


def read_truth(path: Path, images: Path, names: Collection[str]) -> PairTruth:
    """Read true relative poses: a list of pairs in SuperGlue's format, or a COLMAP model.

    A list must find all its images, so that a result is one of the whole list; of a model, all
    pairs of those images are taken that are there.

    Args:
        path: a file with a list (`sfm_match.io.pose_pairs`), or a folder with a model.
        images: the folder of images, for messages.
        names: the images that there are.

    Raises:
        ConfigError: there is no such file or folder, or the list is wrong or does not fit.
        ModelError: the model cannot be read or does not fit.
        FileNotFoundError: a part of the model is missing.
    """
    if path.is_dir():
        return _of_model(path, images, frozenset(names))
    if not path.is_file():
        raise ConfigError(f"{path}: is neither a list of pairs nor a folder with a COLMAP model")
    return _of_list(path, images, frozenset(names))


def _of_list(path: Path, images: Path, names: Collection[str]) -> PairTruth:
    found = read_pose_pairs(path, names)
    missing = sorted({name for pair in found for name in pair.names} - set(names))
    if missing:
        raise ConfigError(
            f"{path}: {len(missing)} of its images are not in {images}: "
            f"{_some(missing)}{_hint(missing[0], names)}"
        )
    return PairTruth(
        path,
        tuple(
            TruePair(
                pair.names,
                (_pinhole(pair.calibrations[0]), _pinhole(pair.calibrations[1])),
                pair.cam1_from_cam0,
            )
            for pair in found
        ),
        _orientations(found),
    )


def _orientations(pairs: Sequence[PosePair]) -> dict[str, int]:
    turns: dict[str, int] = {}
    for pair in pairs:
        for name, turn in zip(pair.names, pair.turns, strict=True):
            if turns.setdefault(name, turn) != turn:
                raise ConfigError(
                    f"{pair.where}: {name} has the rotation {turn}, but {turns[name]} before"
                )
    return {name: _ORIENTATION_OF_TURN[turn] for name, turn in turns.items() if turn}


def _pinhole(K: ArrayF64) -> pycolmap.Camera:
    # Without a size: a list does not have it.
    return pycolmap.Camera(
        model="PINHOLE", width=0, height=0, params=[K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    )


def _of_model(path: Path, images: Path, names: Collection[str]) -> PairTruth:
    return truth_of_model(read_model(path), path, images, names)


def truth_of_model(
    model: pycolmap.Reconstruction,
    path: Path,
    images: Path,
    names: Collection[str],
    pairs: Iterable[tuple[str, str]] | None = None,
) -> PairTruth:
    """Return the relative poses of pairs of a model's images that are there.

    Args:
        model: the true model.
        path: where it is from, for messages.
        images: the folder of images, for messages.
        names: the images that there are.
        pairs: pairs of these; None for all.

    Raises:
        ModelError: the model has a wrong pose, or fewer than two of the images.
    """
    found = poses_by_name(model, path)
    there = sorted(found.keys() & names)
    missing = sorted(found.keys() - names)
    if len(there) < 2:
        raise ModelError(
            f"{path}: {len(there)} of its {len(found)} images with a pose are in {images}, a pair "
            f"needs 2; the model has {_some(sorted(found))}, the folder {_some(sorted(names))}"
        )
    by_id = {camera_id: copy.copy(camera) for camera_id, camera in model.cameras.items()}
    cameras = {image.name: by_id[image.camera_id] for image in model.images.values()}
    size = max(float(np.linalg.norm(found[name][:, 3])) for name in there)
    return PairTruth(
        path,
        tuple(
            TruePair(
                (name0, name1),
                (cameras[name0], cameras[name1]),
                _relative_pose(found[name0], found[name1], size),
            )
            for name0, name1 in (combinations(there, 2) if pairs is None else pairs)
        ),
        {},
        tuple(missing),
    )


def _relative_pose(cam0_from_world: ArrayF64, cam1_from_world: ArrayF64, size: float) -> ArrayF64:
    relative = poses.relative_pose(cam0_from_world, cam1_from_world)
    if np.linalg.norm(relative[:, 3]) <= _ZERO_BASELINE * size:
        relative[:, 3] = 0
    return relative


def _fit_camera(camera: pycolmap.Camera, header: ImageHeader, where: str) -> pycolmap.Camera:
    """Return the camera in the size of an image's file; raise where it cannot be this image's."""
    width, height = header.width, header.height
    if camera.mean_focal_length() <= 0:
        raise ConfigError(f"{where}: its camera model {camera.model_name} has no focal length")
    if not camera.width:
        x, y = camera.principal_point_x, camera.principal_point_y
        if not (0 < x < width and 0 < y < height):
            raise ConfigError(
                f"{where}: the principal point ({x:g}, {y:g}) of its K lies outside of the image, "
                f"{width} x {height} pixels: the images must have the size that the list is for"
            )
        return camera
    if (camera.width, camera.height) == (width, height):
        return camera
    # A resized image has whole numbers of pixels: its sides are right to within one.
    scale = max(width / camera.width, height / camera.height)
    if max(abs(scale * camera.width - width), abs(scale * camera.height - height)) > 1:
        turned = (camera.height, camera.width) == (width, height)
        raise ConfigError(
            f"{where}: the image is {width} x {height} pixels, its camera "
            f"{camera.width} x {camera.height}: "
            + ("one of them is turned by 90 degrees" if turned else "not the same picture resized")
        )
    fitted = copy.copy(camera)
    fitted.rescale(width, height)
    return fitted


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NUM_NAMES_SHOWN
    return ", ".join(names[:_NUM_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _hint(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
