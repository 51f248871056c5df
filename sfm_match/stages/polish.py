"""Models -> models whose keypoints lie exactly: a second pass over the images.

The keypoints of every point are found anew in the images (see `sfm_match.stages.polish_images`),
the model is adjusted to them, and where a point's reprojection error did not fall by that, its
keypoints are put back. That keypoints which agree between the views of a track, instead of those
that a detector finds in each image by itself, make better models: Lindenberger, Sarlin, Larsson and
Pollefeys, "Pixel-Perfect Structure-from-Motion with Featuremetric Refinement", ICCV 2021.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.geometry.observations import (
    Observations,
    point_errors,
    read_observations,
    write_keypoints,
)
from sfm_match.io.files import writing
from sfm_match.io.model import read_model
from sfm_match.spec import ConfigError, Spec, fingerprint, parse_config
from sfm_match.stages.adjust import Free, adjust
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
from sfm_match.stages.polish_config import Config
from sfm_match.stages.polish_images import Realigned, realign
from sfm_match.stages.scan import Source
from sfm_match.types import ArrayBool

# How often keypoints are put back and the model is adjusted to what is left.
_MAX_TRIALS = 8


@dataclass(frozen=True)
class Change:
    """What the second pass did to one model.

    Attributes:
        observations: of all points.
        moved: those whose keypoints were moved.
        rejected: those that could be aligned, but stayed, as the error of their point did not fall.
        failed: those that could not be aligned.
        median_shift: how far those moved went, in pixels; 0 where there are none.
        error_before: mean reprojection error of the points in pixels, before.
        error_after: the same after it.
    """

    observations: int
    moved: int
    rejected: int
    failed: int
    median_shift: float
    error_before: float
    error_after: float


@dataclass
class PolishReport:
    """What the second pass did.

    Attributes:
        models: the models after it, in the order of the mapper's.
        changes: what changed in each of them.
        reused: whether they were there already.
    """

    models: list[ModelSummary] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    reused: bool = False


def polish_models(
    out: Path,
    made_from: str,
    sources: Mapping[str, Source],
    spec: Spec,
    free: Free,
    *,
    device: str = "cpu",
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> PolishReport:
    """Go over the models of `out/models` again, unless that was done; the first is `out/model`.

    Args:
        out: the output folder.
        made_from: the fingerprint of these models.
        sources: the images.
        spec: the settings (see `polish_spec`).
        free: what may be adjusted.
        device: the torch device that aligns.
        threads: how many threads; with one, the result is the same to the last bit.
        progress: called with the number of images done in a round since the last call.

    Raises:
        ConfigError: there are no such models.
        ImageError: an image cannot be read, or has changed.
    """
    partial = out / ".polished.partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    first = whole_models(out / MODELS, made_from)
    if first is None:
        raise ConfigError(f"{out}: no model of these settings and images; map first")
    made_from = fingerprint([made_from, spec.payload])
    done = whole_models(out / POLISHED, made_from)
    if done is not None:
        if shown(out) != POLISHED:
            with writing(out / "model"):
                show_first(out, partial, POLISHED)
        changes = [Change(**change) for change in done["changes"]]
        return PolishReport(summaries(done), changes, reused=True)
    config = parse_config(Config, spec.config, "polish")
    models, changes = [], []
    for number in range(len(first["models"])):
        model, change = polish(
            read_model(out / MODELS / str(number)),
            sources,
            config,
            free,
            device=device,
            threads=threads,
            progress=progress,
        )
        models.append(model)
        changes.append(change)
    partial.mkdir()
    try:
        with writing(out / "model"):
            noted = {"changes": [asdict(change) for change in changes]}
            write_models(partial / POLISHED, models, made_from, noted)
            replace_models(out, partial, POLISHED)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return PolishReport([ModelSummary.of(model) for model in models], changes)


def polish(
    model: pycolmap.Reconstruction,
    sources: Mapping[str, Source],
    config: Config,
    free: Free,
    *,
    device: str = "cpu",
    threads: int = 1,
    progress: Callable[[int], object] | None = None,
) -> tuple[pycolmap.Reconstruction, Change]:
    """Return a model with its keypoints where the images say, and what changed.

    A round that does not lower the mean reprojection error is undone and is the last one.

    Args:
        model: the model; only its points' errors are brought up to date.
        sources: its images, by name.
        config: the settings.
        free: what may be adjusted.
        device: the torch device that aligns.
        threads: how many threads.
        progress: called with the number of images done in a round since the last call.

    Raises:
        ImageError: an image cannot be read, or has changed.
    """
    first = seen = read_observations(model)
    images = [sources[model.image(image_id).name] for image_id in seen.image_ids]
    find = partial(realign, device=device, workers=threads, progress=progress)
    model.update_point_3d_errors()
    before = model.compute_mean_reprojection_error()
    aligned = np.zeros(len(seen), np.bool_)
    for _ in range(config.rounds):
        found = find(model, seen, images, config)
        aligned |= found.aligned
        trial, moved = _fitted(model, seen, found, config, free, threads)
        if not trial.compute_mean_reprojection_error() < model.compute_mean_reprojection_error():
            break
        keypoints = np.where(moved[:, None], found.keypoints, seen.keypoints)
        model, seen = trial, replace(seen, keypoints=keypoints)
    shifts = np.linalg.norm(seen.keypoints - first.keypoints, axis=1)
    is_moved = shifts > 0
    change = Change(
        observations=len(seen),
        moved=int(is_moved.sum()),
        rejected=int((aligned & ~is_moved).sum()),
        failed=int((~aligned & ~is_moved).sum()),
        median_shift=float(np.median(shifts[is_moved])) if is_moved.any() else 0.0,
        error_before=before,
        error_after=model.compute_mean_reprojection_error(),
    )
    return model, change


def _fitted(
    model: pycolmap.Reconstruction,
    seen: Observations,
    found: Realigned,
    config: Config,
    free: Free,
    threads: int,
) -> tuple[pycolmap.Reconstruction, ArrayBool]:
    """Return a model adjusted to aligned keypoints, and which observations have kept them.

    Where none does, or that fails, it is the model as it was.
    """
    before = point_errors(model, seen)
    trial, moved = pycolmap.Reconstruction(model), found.aligned.copy()
    for _ in range(_MAX_TRIALS):
        write_keypoints(trial, seen, np.where(moved[:, None], found.keypoints, seen.keypoints))
        if not moved.any() or not adjust(trial, free, config.loss_scale, threads):
            return model, np.zeros_like(moved)
        worse = moved & (point_errors(trial, seen) >= before)[seen.points]
        if not worse.any():
            break
        moved &= ~worse
    return trial, moved
