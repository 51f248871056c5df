"""A database -> models: all of them below `models/`, the largest one as `model/`."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pycolmap

from sfm_match.geometry.cameras import Cameras
from sfm_match.io.database import content_digest, read_info
from sfm_match.io.files import write_bytes, writing
from sfm_match.logs import quiet_colmap
from sfm_match.spec import Spec, fingerprint
from sfm_match.stages.diagnosis import why_no_model
from sfm_match.stages.mappers import MAPPERS, Job, Models, checked_options
from sfm_match.stages.model_folders import (
    MODELS,
    POLISHED,
    ModelSummary,
    replace_models,
    show_first,
    shown,
    summaries,
    whole_models,
    write_models,
)

MAPPER_THREAD = "sfm_match mapper"
_WAIT_SECONDS = 0.1
_ROOM = 1 << 16


@dataclass
class MapReport:
    """What mapping did.

    Attributes:
        models: the models, the one with the most images first.
        reused: whether they were there already.
        reason: why there is no model, with numbers; None if there is one.
    """

    models: list[ModelSummary] = field(default_factory=list)
    reused: bool = False
    reason: str | None = None


def map_images(
    out: Path,
    images: Path,
    cameras: Cameras,
    spec: Spec,
    options: dict[str, object],
    *,
    polished: bool = False,
    threads: int = -1,
    progress: Callable[[int], object] | None = None,
) -> MapReport:
    """Reconstruct from `out/database.db`, unless the models there were made from the same.

    Args:
        out: the output folder.
        images: the folder of images, for the colours of points.
        cameras: the cameras of the database.
        spec: the mapper (see `mapper_spec`).
        options: its options that differ from pycolmap's defaults.
        polished: whether `model/` may be what a second pass made of these models.
        threads: how many threads, -1 for all; with one, a seed fixes the result.
        progress: called with the number of images registered since the last call.

    Raises:
        ConfigError: the model with known poses cannot be read or is of other images.
    """
    database = out / "database.db"
    partial = out / ".models.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    made_from = models_fingerprint(out, spec, options)
    done = whole_models(out / MODELS, made_from)
    if done is not None and _is_shown(out, partial, polished):
        return MapReport(summaries(done), reused=True)
    (partial / "mapper").mkdir(parents=True)
    job = Job(
        database=database,
        images=images,
        output=partial / "mapper",
        cameras=cameras,
        options=checked_options(spec.name, options),
        threads=threads,
        seed=int(spec.config["seed"]),
        on_image=lambda: progress(1) if progress else None,
        token=pycolmap.CancellationToken(),
    )
    try:
        # pycolmap cannot open a database without room for the files that it puts beside it.
        write_bytes(partial / "room", bytes(_ROOM))
        found = _run_in_thread(job, spec.name, lambda: progress(0) if progress else None)
        shutil.rmtree(partial / "mapper")
        found.sort(key=lambda m: (-m.num_reg_images(), -m.num_points3D()))
        with writing(out / "model"):
            write_models(partial / MODELS, found, made_from)
            replace_models(out, partial, MODELS)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        quiet_colmap()
    if not found:
        return MapReport(reason=why_no_model(database, spec.name, spec.config))
    return MapReport([ModelSummary.of(model) for model in found])


def models_fingerprint(out: Path, spec: Spec, options: Mapping[str, object]) -> str:
    """Return the fingerprint of the models that a mapper makes of `out/database.db`."""
    database = read_info(out / "database.db").get("fingerprint")
    return fingerprint([database, spec.payload, _digest_of_poses(options)])


def _is_shown(out: Path, partial: Path, polished: bool) -> bool:
    """Return whether `model/` is as it should be, after a polished one was put away."""
    now = shown(out)
    if now == POLISHED and not polished:
        with writing(out / "model"):
            show_first(out, partial, MODELS)
    return polished or now in (MODELS, POLISHED)


def _digest_of_poses(options: Mapping[str, object]) -> str | None:
    """Return the digest of the model that poses are taken from: its files may change."""
    if "poses" not in options:
        return None
    files = sorted(path for path in Path(str(options["poses"])).glob("*") if path.is_file())
    return content_digest(path.read_bytes() for path in files)


def _run_in_thread(job: Job, name: str, waiting: Callable[[], object]) -> Models:
    """Run a mapper so that Ctrl-C stops it at once instead of at its end.

    Meanwhile `waiting` is called: not every mapper says when it has registered an image.
    """
    result: list[Models] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(MAPPERS[name].run(job))
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name=MAPPER_THREAD, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_WAIT_SECONDS)
            waiting()
    except KeyboardInterrupt:
        job.token.cancel()
        raise
    if errors:
        raise errors[0]
    return result[0]
