"""A database -> models: all of them below `models/`, the largest one as `model/`."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pycolmap

from sfm_match.geometry.cameras import Cameras
from sfm_match.io.database import content_digest, read_info
from sfm_match.io.files import write_bytes, write_text, writing
from sfm_match.io.model_binary import incomplete_file
from sfm_match.logs import quiet_colmap
from sfm_match.spec import Spec, fingerprint
from sfm_match.stages.diagnosis import why_no_model
from sfm_match.stages.mappers import MAPPERS, Job, Models, checked_options

MAPPER_THREAD = "sfm_match mapper"
_INFO_FILE = "sfm_match.json"
_WAIT_SECONDS = 0.1
_ROOM = 1 << 16


@dataclass(frozen=True)
class ModelSummary:
    """One reconstructed model.

    Attributes:
        images: registered images.
        points: 3D points.
        observations: of all points.
        track_length: mean number of images that see a point.
        reprojection_error: mean, in pixels.
    """

    images: int
    points: int
    observations: int
    track_length: float
    reprojection_error: float


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
    threads: int = -1,
    progress: Callable[[int], object] | None = None,
) -> MapReport:
    """Reconstruct from `out/database.db`, unless the model there was made from the same.

    Args:
        out: the output folder.
        images: the folder of images, for the colours of points.
        cameras: the cameras of the database.
        spec: the mapper (see `mapper_spec`).
        options: its options that differ from pycolmap's defaults.
        threads: how many threads, -1 for all; with one, a seed fixes the result.
        progress: called with the number of images registered since the last call.

    Raises:
        ConfigError: the model with known poses cannot be read or is of other images.
    """
    database = out / "database.db"
    partial = out / ".models.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    poses = _digest_of_poses(options)
    made_from = fingerprint([read_info(database).get("fingerprint"), spec.payload, poses])
    done = _read_report(out, made_from)
    if done is not None:
        return done
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
        found = _run_in_thread(job, spec.name)
        shutil.rmtree(partial / "mapper")
        with writing(out / "model"):
            report = _publish(out, partial, found, made_from)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        quiet_colmap()
    if not report.models:
        report.reason = why_no_model(database, spec.name, spec.config)
    return report


def _digest_of_poses(options: Mapping[str, object]) -> str | None:
    """Return the digest of the model that poses are taken from: its files may change."""
    if "poses" not in options:
        return None
    files = sorted(path for path in Path(str(options["poses"])).glob("*") if path.is_file())
    return content_digest(path.read_bytes() for path in files)


def _run_in_thread(job: Job, name: str) -> Models:
    """Run a mapper so that Ctrl-C stops it at once instead of at its end."""
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
    except KeyboardInterrupt:
        job.token.cancel()
        raise
    if errors:
        raise errors[0]
    return result[0]


def _publish(out: Path, partial: Path, found: Models, made_from: str) -> MapReport:
    """Replace the models of an earlier run; `model/` disappears first and comes last.

    Both are renamed as a whole: a kill leaves no folder with some of its files.
    """
    found = sorted(found, key=lambda m: (-m.num_reg_images(), -m.num_points3D()))
    report = MapReport([_summary(model) for model in found])
    folders = [partial / "models" / str(number) for number in range(len(found))]
    for folder, model in zip(folders, found, strict=True):
        _write(model, folder)
    info = {
        "fingerprint": made_from,
        "models": [asdict(model) for model in report.models],
        "files": [_sizes(folder) for folder in folders],
    }
    for folder in folders:
        write_text(folder / _INFO_FILE, json.dumps(info, indent=1))
    old = partial / "old"
    old.mkdir()
    for name in ("model", "models"):
        if (out / name).exists():
            (out / name).rename(old / name)
    if found:
        shutil.copytree(partial / "models" / "0", partial / "model")
        (partial / "models").rename(out / "models")
        (partial / "model").rename(out / "model")
    return report


def _write(model: pycolmap.Reconstruction, folder: Path) -> None:
    folder.mkdir(parents=True)
    model.write(folder)
    if incomplete_file(folder) is not None:  # pycolmap does not say so
        raise OSError("the disk is full, or a limit is reached")


def _summary(model: pycolmap.Reconstruction) -> ModelSummary:
    return ModelSummary(
        images=model.num_reg_images(),
        points=model.num_points3D(),
        observations=model.compute_num_observations(),
        track_length=model.compute_mean_track_length(),
        reprojection_error=model.compute_mean_reprojection_error(),
    )


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes of a model's files."""
    files = sorted(folder.glob("*.bin"))
    return {path.name: path.stat().st_size for path in files}


def _read_report(out: Path, made_from: str) -> MapReport | None:
    """Return the report of the models that are there, if they were made from that and are whole."""
    try:
        info = json.loads((out / "model" / _INFO_FILE).read_text())
    except (OSError, ValueError):
        return None
    if info.get("fingerprint") != made_from:
        return None
    folders = [out / "models" / str(number) for number in range(len(info["models"]))]
    if [_sizes(folder) for folder in (out / "model", *folders)] != info["files"][:1] + info[
        "files"
    ]:
        return None
    return MapReport([ModelSummary(**summary) for summary in info["models"]], reused=True)
