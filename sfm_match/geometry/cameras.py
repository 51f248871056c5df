"""Which camera took which image, and with which intrinsics."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Literal

import pycolmap
from pydantic import ConfigDict, PositiveFloat, field_validator
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.spec import ConfigError, nearest


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """The table `[camera]`.

    Attributes:
        mode: which images share a camera. `auto`: those of one size whose EXIF data name the same
            camera and focal length; `single`: all; `per_folder`; `per_image`.
        model: any COLMAP camera model.
        params: the model's parameters, as COLMAP orders them (a list, or separated by commas);
            null for the EXIF focal length, or else a guess, and the centre of the image.
        fixed: do not refine the intrinsics in the reconstruction.
        focal_factor: the guessed focal length over the long side of the image.
    """

    mode: Literal["auto", "single", "per_folder", "per_image"] = "auto"
    model: str = "SIMPLE_RADIAL"
    params: tuple[float, ...] | None = None
    fixed: bool = False
    focal_factor: PositiveFloat = 1.2

    @field_validator("params", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("model")
    @classmethod
    def _known(cls, value: str) -> str:
        models = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
        if value not in models:
            raise ValueError(f"no such camera model; {nearest(value, models)}")
        return value


@dataclass(frozen=True)
class ImageInfo:
    """What decides the camera of an image.

    Attributes:
        name: the image's name.
        width: of the file's raster, in pixels.
        height: of the file's raster, in pixels.
        focal: focal length in pixels that EXIF gives, or None.
        body: what EXIF says of the camera (maker, model, lens, focal length), or None.
    """

    name: str
    width: int
    height: int
    focal: float | None
    body: Hashable | None


@dataclass(frozen=True)
class Cameras:
    """The cameras of a set of images.

    Attributes:
        cameras: by their id, from 1 on, in order of the images' names.
        of_image: image name -> camera id.
        fixed: whether their intrinsics are to be held.
    """

    cameras: Mapping[int, pycolmap.Camera]
    of_image: Mapping[str, int]
    fixed: bool

    def __getitem__(self, name: str) -> pycolmap.Camera:
        return self.cameras[self.of_image[name]]

    @cached_property
    def _digests(self) -> dict[int, bytes]:
        return {
            camera_id: hashlib.sha256(_content(camera).encode()).digest()
            for camera_id, camera in self.cameras.items()
        }

    def digest(self, name: str) -> bytes:
        """Return the SHA-256 of the intrinsics of an image's camera."""
        return self._digests[self.of_image[name]]


def _content(camera: pycolmap.Camera) -> str:
    params = [float(value) for value in camera.params]
    size = camera.width, camera.height
    return repr((camera.model.name, *size, params, camera.has_prior_focal_length))


def assign_cameras(images: Sequence[ImageInfo], config: Config) -> Cameras:
    """Decide which images share a camera, and make the cameras.

    Raises:
        ConfigError: images of different sizes are to share a camera, or the parameters do not fit
            the model.
    """
    cameras: dict[int, pycolmap.Camera] = {}
    ids: dict[Hashable, int] = {}
    of_image: dict[str, int] = {}
    for image in sorted(images, key=lambda image: image.name):
        key = _camera_key(image, config.mode)
        if key not in ids:
            ids[key] = len(ids) + 1
            cameras[ids[key]] = _make_camera(ids[key], image, config)
        camera = cameras[ids[key]]
        if (camera.width, camera.height) != (image.width, image.height):
            raise ConfigError(
                f"camera.mode={config.mode}: {image.name} is {image.width} x {image.height}, other "
                f"images of its camera are {camera.width} x {camera.height}; use camera.mode=auto"
            )
        of_image[image.name] = ids[key]
    return Cameras(cameras, of_image, config.fixed)


def _camera_key(image: ImageInfo, mode: str) -> Hashable:
    if mode == "single":
        return "single"
    if mode == "per_folder":
        return str(PurePosixPath(image.name).parent)
    if mode == "auto" and image.body is not None:
        return image.body, image.focal, image.width, image.height
    return "image", image.name


def _make_camera(camera_id: int, image: ImageInfo, config: Config) -> pycolmap.Camera:
    focal = image.focal or config.focal_factor * max(image.width, image.height)
    camera = pycolmap.Camera.create_from_model_name(
        camera_id, config.model, focal, image.width, image.height
    )
    if config.params is not None:
        camera.params = list(config.params)
        _check_params(camera, image)
    # Intrinsics that are not to be refined count as known; COLMAP changes others even so.
    known = config.fixed or config.params is not None or image.focal is not None
    camera.has_prior_focal_length = known
    return camera


def _check_params(camera: pycolmap.Camera, image: ImageInfo) -> None:
    """Raise ConfigError for parameters that another model or another image must have."""
    names, numbers = camera.params_info, ", ".join(f"{value:g}" for value in camera.params)
    where = f"camera.params: {camera.model_name} has the parameters {names}"
    if not camera.verify_params():
        raise ConfigError(f"{where}, got {len(camera.params)} numbers")
    focals = [camera.params[i] for i in camera.focal_length_idxs()]
    centre = [camera.params[i] for i in camera.principal_point_idxs()]
    inside = all(0 < c < side for c, side in zip(centre, (image.width, image.height), strict=False))
    if not (all(math.isfinite(v) for v in camera.params) and min(focals, default=1) > 0 and inside):
        raise ConfigError(
            f"{where}, got {numbers}: focal lengths are positive and the principal point lies in "
            f"the image, {image.width} x {image.height} pixels of {image.name}"
        )
