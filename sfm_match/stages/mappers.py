"""pycolmap's mappers behind one signature, each with its options by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from sfm_match.geometry.cameras import Cameras
from sfm_match.io.model import ModelError, read_model
from sfm_match.options import json_options, merge_options
from sfm_match.spec import ConfigError, Spec, library_versions, nearest

VERSION = 1

Models = list[pycolmap.Reconstruction]


@dataclass(frozen=True)
class Job:
    """What a mapper works on.

    Attributes:
        database: the database.
        images: the folder of images, for the colours of points.
        output: an empty folder for the mapper's own files.
        cameras: the cameras of the database.
        options: options that differ from pycolmap's defaults.
        threads: how many threads; -1 for all.
        seed: of the random numbers.
        on_image: called for each image that was registered.
        token: stops the mapper early, where it can be stopped.
    """

    database: Path
    images: Path
    output: Path
    cameras: Cameras
    options: Mapping[str, Any]
    threads: int
    seed: int
    on_image: Callable[[], object]
    token: pycolmap.CancellationToken


def _incremental_options(
    job: Job, options: Mapping[str, Any]
) -> pycolmap.IncrementalPipelineOptions:
    merged = pycolmap.IncrementalPipelineOptions()
    merged.num_threads, merged.random_seed = job.threads, job.seed
    if len(job.cameras.of_image) == 2:  # no point can be seen by more
        merged.triangulation.ignore_two_view_tracks = False
    if job.cameras.fixed:
        merged.constant_cameras = set(job.cameras.cameras)
        merged.mapper.abs_pose_refine_focal_length = False
        merged.mapper.abs_pose_refine_extra_params = False
    merged.mergedict(dict(options))
    return merged


def _incremental(job: Job) -> Models:
    def first_pair() -> None:
        job.on_image()
        job.on_image()

    def next_image() -> None:
        job.on_image()

    found = pycolmap.incremental_mapping(
        job.database,
        job.images,
        job.output,
        _incremental_options(job, job.options),
        initial_image_pair_callback=first_pair,
        next_image_callback=next_image,
        cancellation_token=job.token,
    )
    return list(found.values())


def _global(job: Job) -> Models:
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads, options.random_seed = job.threads, job.seed
    if job.cameras.fixed:
        options.mapper.bundle_adjustment.refine_focal_length = False
        options.mapper.bundle_adjustment.refine_extra_params = False
    options.mergedict(dict(job.options))
    return list(pycolmap.global_mapping(job.database, job.images, job.output, options).values())


def _hierarchical(job: Job) -> Models:
    options = pycolmap.HierarchicalPipelineOptions()
    options.num_threads = job.threads
    incremental = job.options.get("incremental_options", {})
    options.incremental_options = _incremental_options(job, incremental)
    options.mergedict({k: v for k, v in job.options.items() if k != "incremental_options"})
    try:
        found = pycolmap.hierarchical_mapping(job.database, job.images, job.output, options)
    except IndexError:  # what it raises when no cluster can be reconstructed
        return []
    return list(found.values())


def _triangulation(job: Job) -> Models:
    options = dict(job.options)
    poses = Path(options.pop("poses"))
    model = _posed_model(job.database, poses)
    # The poses come with their cameras; the database has to have the same, in a copy.
    database = job.output / "posed.db"
    shutil.copyfile(job.database, database)
    with pycolmap.Database.open(database) as opened:
        for camera in model.cameras.values():
            opened.update_camera(camera)
    pycolmap.triangulate_points(
        model,
        database,
        job.images,
        job.output,
        options=_incremental_options(job, options),
        cancellation_token=job.token,
    )
    return [model] if model.num_points3D() else []


def _posed_model(database: Path, poses: Path) -> pycolmap.Reconstruction:
    """Return a model without points: the database's images with the poses of another model."""
    try:
        reference = read_model(poses)
    except (FileNotFoundError, ModelError) as error:
        raise ConfigError(f"mapper.poses: {error}") from None
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as opened:
        images = opened.read_all_images()
        sizes = {c.camera_id: (c.width, c.height) for c in opened.read_all_cameras()}
    for image in images:
        known = reference.find_image_with_name(image.name)
        if known is None or not known.has_pose:
            continue
        camera = reference.cameras[known.camera_id]
        camera = pycolmap.Camera(camera.todict() | {"camera_id": image.camera_id})
        if (camera.width, camera.height) != sizes[image.camera_id]:
            raise ConfigError(
                f"mapper.poses: {image.name} is {camera.width} x {camera.height} in {poses}, "
                f"{' x '.join(map(str, sizes[image.camera_id]))} in the run"
            )
        if image.camera_id not in model.cameras:
            model.add_camera_with_trivial_rig(camera)
        elif not _same_camera(model.cameras[image.camera_id], camera):
            raise ConfigError(
                f"mapper.poses: {poses} has several cameras where the run has one; "
                "use camera.mode=per_image"
            )
        bare = pycolmap.Image(name=image.name, camera_id=image.camera_id, image_id=image.image_id)
        model.add_image_with_trivial_frame(bare, known.cam_from_world())
    if model.num_images() == 0:
        raise ConfigError(f"mapper.poses: no image of {poses} has the name of an image of the run")
    return model


def _same_camera(a: pycolmap.Camera, b: pycolmap.Camera) -> bool:
    return a.model == b.model and list(a.params) == list(b.params)


@dataclass(frozen=True)
class Mapper:
    """A mapper and the defaults of its options."""

    run: Callable[[Job], Models]
    defaults: Callable[[], dict[str, Any]]


def _triangulation_defaults() -> dict[str, Any]:
    return {"poses": Path(), **pycolmap.IncrementalPipelineOptions().todict()}


MAPPERS: Mapping[str, Mapper] = {
    "incremental": Mapper(_incremental, lambda: pycolmap.IncrementalPipelineOptions().todict()),
    "global": Mapper(_global, lambda: pycolmap.GlobalPipelineOptions().todict()),
    "hierarchical": Mapper(_hierarchical, lambda: pycolmap.HierarchicalPipelineOptions().todict()),
    "triangulation": Mapper(_triangulation, _triangulation_defaults),
}


def mapper_spec(name: str, options: Mapping[str, Any], seed: int, fixed: bool) -> Spec:
    """Return the spec of the table `[mapper]`.

    Raises:
        ConfigError: there is no such mapper or option, or an option is wrong.
    """
    if name not in MAPPERS:
        raise ConfigError(f"mapper.name: no mapper {name!r}; {nearest(name, MAPPERS)}")
    checked_options(name, options)
    poses = str(options.get("poses", ""))
    if name == "triangulation" and not (poses and Path(poses).is_dir()):
        raise ConfigError(
            f"mapper.poses: triangulation needs a COLMAP model with known poses, got {poses!r}"
        )
    config = {**json_options(options), "seed": seed, "fixed": fixed}
    return Spec("stages", name, VERSION, config, libraries=library_versions(["pycolmap"]))


def checked_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapper's options with the types that pycolmap wants."""
    merged = merge_options(MAPPERS[name].defaults(), options, "mapper")
    return _only(options, merged)


def _only(options: Mapping[str, Any], merged: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _only(value, merged[name]) if isinstance(value, Mapping) else merged[name]
        for name, value in options.items()
    }
