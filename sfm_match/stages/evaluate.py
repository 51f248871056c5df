"""How good a COLMAP model is, measured against a true one with the same image names.

Poses of single images are compared after a similarity alignment on the camera centres; relative
poses of all pairs need no alignment.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.geometry import poses
from sfm_match.io.model import ModelError, read_model
from sfm_match.types import ArrayF64

AUC_THRESHOLDS = (0.5, 1.0, 3.0, 5.0, 10.0, 20.0)
"""Degrees of pose error up to which the area under the recall curve is reported."""

ArrayInt = npt.NDArray[np.intp]

_FAILED_PAIR = 180.0
_PAIRS_AT_A_TIME = 1 << 15
# A baseline below this part of the largest translation is zero up to rounding.
_ZERO_BASELINE = 1e-12
_NUM_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """Mean, median and maximum of errors."""

    mean: float
    median: float
    max: float


@dataclass(frozen=True, slots=True)
class ImageError:
    """The errors of one true image after the alignment, where there is a pose and an alignment.

    Attributes:
        name: The image's name.
        is_registered: The model has a pose of it.
        position: Distance of the camera centres, in the truth's units, or None.
        rotation: Angle between the rotations, in degrees, or None.
    """

    name: str
    is_registered: bool
    position: float | None
    rotation: float | None


@dataclass(frozen=True, slots=True)
class ModelEvaluation:
    """A model measured against the truth.

    Attributes:
        num_truth_images: Images with a pose in the truth.
        num_registered: Those of them that have a pose in the model.
        num_extra: Images with a pose in the model, but none in the truth.
        position: Position errors over the registered images after the alignment, in the truth's
            units, or None.
        rotation: Rotation errors likewise, in degrees, or None.
        alignment_failure: Why there was no alignment, and so no errors of single images, or None.
        images: The errors of every true image, sorted by name.
        num_pairs: All pairs of true images.
        auc: Area under the recall curve of the pairs' pose errors, in percent, at each of
            `AUC_THRESHOLDS`. The pose error is the larger of the rotation's and the translation
            direction's error (`sfm_match.geometry.poses.pose_error`); 180 degrees for a pair with
            an image that is not registered.
        num_points: Points of the model.
        mean_track_length: Observations per point; None without points.
        mean_reprojection_error: In pixels, as recorded with the points; None if none is.
        mean_observations_per_image: Over all images with a pose, extra ones too; None without any.
    """

    num_truth_images: int
    num_registered: int
    num_extra: int
    position: ErrorSummary | None
    rotation: ErrorSummary | None
    alignment_failure: str | None
    images: tuple[ImageError, ...]
    num_pairs: int
    auc: tuple[float, ...]
    num_points: int
    mean_track_length: float | None
    mean_reprojection_error: float | None
    mean_observations_per_image: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain dicts, lists, strings and numbers, ready for JSON."""
        plain = asdict(self)
        plain["images"] = list(plain["images"])
        plain["auc"] = {f"{t:g}": a for t, a in zip(AUC_THRESHOLDS, self.auc, strict=True)}
        return plain


def evaluate_model(model: Path, truth: Path) -> ModelEvaluation:
    """Compare a COLMAP model with the true one; images are matched by name.

    Both are folders with a binary or a text model, of any version of COLMAP (with or without rigs
    and frames); binary wins where a folder holds both.

    Raises:
        FileNotFoundError: A folder or a part of the model in it is missing.
        ModelError: A model cannot be read, names an image twice or has a pose that is none;
            the truth has fewer than two poses; or the model has none of its images.
    """
    reconstruction = read_model(model)
    true_poses = _true_poses(truth)
    model_poses = poses_by_name(reconstruction, model)
    if model_poses.keys().isdisjoint(true_poses):
        raise ModelError(
            f"the model and the truth have no registered image in common: {model} has "
            f"{_some(sorted(model_poses))}; {truth} has {_some(sorted(true_poses))}"
        )

    registered = sorted(true_poses.keys() & model_poses.keys())
    estimated, true = _stack(model_poses, registered), _stack(true_poses, registered)
    num_pairs = len(true_poses) * (len(true_poses) - 1) // 2
    pair_errors = np.full(num_pairs, _FAILED_PAIR)
    found = _pair_errors(estimated, true)
    pair_errors[: len(found)] = found
    position, rotation, failure = _aligned_errors(estimated, true)
    position_of = dict(zip(registered, position.tolist(), strict=failure is None))
    rotation_of = dict(zip(registered, rotation.tolist(), strict=failure is None))
    num_points = reconstruction.num_points3D()
    has_point_errors = any(point.has_error() for point in reconstruction.points3D.values())
    return ModelEvaluation(
        num_truth_images=len(true_poses),
        num_registered=len(registered),
        num_extra=len(model_poses.keys() - true_poses.keys()),
        position=_summary(position),
        rotation=_summary(rotation),
        alignment_failure=failure,
        images=tuple(
            ImageError(name, name in model_poses, position_of.get(name), rotation_of.get(name))
            for name in sorted(true_poses)
        ),
        num_pairs=num_pairs,
        auc=tuple(poses.auc(pair_errors, AUC_THRESHOLDS).tolist()),
        num_points=num_points,
        mean_track_length=reconstruction.compute_mean_track_length() if num_points else None,
        mean_reprojection_error=(
            reconstruction.compute_mean_reprojection_error() if has_point_errors else None
        ),
        mean_observations_per_image=(
            reconstruction.compute_mean_observations_per_reg_image() if model_poses else None
        ),
    )


def check_truth(truth: Path, names: Collection[str]) -> None:
    """Raise where a model could not be compared with the truth, before it is made.

    Args:
        truth: the model with the true poses.
        names: the images that the model will be made from.

    Raises:
        FileNotFoundError: As `evaluate_model`.
        ModelError: As `evaluate_model`.
    """
    true_poses = _true_poses(truth)
    if true_poses.keys().isdisjoint(names):
        raise ModelError(
            f"{truth} has a pose of none of the images: it has {_some(sorted(true_poses))}; the "
            f"images are {_some(sorted(names))}"
        )


def _true_poses(truth: Path) -> dict[str, ArrayF64]:
    true_poses = poses_by_name(read_model(truth), truth)
    if len(true_poses) < 2:
        raise ModelError(
            f"{truth} has {len(true_poses)} images with a pose; a comparison needs at least 2"
        )
    return true_poses


def format_evaluation(evaluation: ModelEvaluation) -> str:
    """Return the evaluation as a short table for a terminal, without a final newline."""
    e = evaluation
    missing = [image.name for image in e.images if not image.is_registered]
    images = f"{e.num_registered} of {e.num_truth_images} registered"
    if missing:
        images += f" (missing: {_some(missing)})"
    points = [f"{e.num_points}"]
    for label, value, unit in (
        ("mean track length", e.mean_track_length, ""),
        ("mean reprojection error", e.mean_reprojection_error, " px"),
        ("observations per image", e.mean_observations_per_image, ""),
    ):
        if value is not None and e.num_points:
            points.append(f"{label} {value:.2f}{unit}")
    lines = [f"images     {images}, {e.num_extra} extra", "points     " + ", ".join(points), ""]
    if e.position is None or e.rotation is None:
        lines.append(f"images not compared: {e.alignment_failure}")
    else:
        lines.append(_row("image error", ["mean", "median", "max"]))
        for label, summary in (("position", e.position), ("rotation (deg)", e.rotation)):
            values = (summary.mean, summary.median, summary.max)
            lines.append(_row(label, [f"{value:.4g}" for value in values]))
    lines += ["", _row("pair error", [f"{t:g} deg" for t in AUC_THRESHOLDS])]
    lines.append(_row("AUC (%)", [f"{a:.2f}" for a in e.auc]) + f"   of {e.num_pairs} pairs")
    return "\n".join(lines)


def poses_by_name(reconstruction: pycolmap.Reconstruction, folder: Path) -> dict[str, ArrayF64]:
    """Return ``cam_from_world`` float64 (3, 4) of the images that have a pose.

    Raises:
        ModelError: a name occurs twice, or a pose is none; `folder` is where the model is.
    """
    found: dict[str, ArrayF64] = {}
    for image in map(reconstruction.image, reconstruction.reg_image_ids()):
        if image.name in found:
            raise ModelError(
                f"{folder} has two images named {image.name!r} (text models cut names at a space)"
            )
        pose = image.cam_from_world()
        norm = float(np.linalg.norm(pose.rotation.quat))
        if norm == 0 or not np.isfinite([norm, *pose.translation]).all():
            raise ModelError(f"{folder}: image {image.name!r} has no finite rotation and position")
        # pycolmap takes quaternions as the file has them, so few digits would make a skew rotation.
        rotation = pycolmap.Rotation3d(pose.rotation.quat / norm)
        found[image.name] = pycolmap.Rigid3d(rotation, pose.translation).matrix()
    return found


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NUM_NAMES_SHOWN]) or "no images"
    rest = len(names) - _NUM_NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def _stack(by_name: dict[str, ArrayF64], names: list[str]) -> ArrayF64:
    return np.array([by_name[name] for name in names], dtype=np.float64).reshape(-1, 3, 4)


def _pair_errors(estimated: ArrayF64, true: ArrayF64) -> ArrayF64:
    """Return the pose errors of all pairs of the (N, 3, 4) poses, in degrees."""
    rows0, rows1 = np.triu_indices(len(true), k=1)
    errors = np.empty(len(rows0))
    for start in range(0, len(rows0), _PAIRS_AT_A_TIME):
        part = slice(start, start + _PAIRS_AT_A_TIME)
        errors[part] = poses.pose_error(
            _relative_poses(estimated, rows0[part], rows1[part]),
            _relative_poses(true, rows0[part], rows1[part]),
        )
    return errors


def _relative_poses(cam_from_world: ArrayF64, rows0: ArrayInt, rows1: ArrayInt) -> ArrayF64:
    """Return the pairs' poses, with baselines that are zero up to rounding set to zero."""
    relative = poses.relative_pose(cam_from_world[rows0], cam_from_world[rows1])
    negligible = _ZERO_BASELINE * np.linalg.norm(cam_from_world[..., 3], axis=-1).max()
    relative[np.linalg.norm(relative[..., 3], axis=-1) <= negligible, :, 3] = 0
    return relative


def _aligned_errors(estimated: ArrayF64, true: ArrayF64) -> tuple[ArrayF64, ArrayF64, str | None]:
    """Return position errors (N,), rotation errors (N,) in degrees, or none (0,) and the reason."""
    true_centers = poses.projection_centers(true)
    try:
        truth_from_model = poses.align_points(poses.projection_centers(estimated), true_centers)
    except poses.DegenerateAlignmentError as error:
        return np.empty(0), np.empty(0), f"the camera centres cannot be aligned: {error}"
    aligned = poses.transform_poses(truth_from_model, estimated)
    position = np.linalg.norm(poses.projection_centers(aligned) - true_centers, axis=-1)
    return position, poses.rotation_error(aligned[..., :3], true[..., :3]), None


def _summary(errors: ArrayF64) -> ErrorSummary | None:
    if errors.size == 0:
        return None
    return ErrorSummary(float(errors.mean()), float(np.median(errors)), float(errors.max()))


def _row(label: str, cells: list[str]) -> str:
    return f"{label:15}" + "".join(f"{cell:>10}" for cell in cells)
