"""The settings of the protocols: what is shown, estimated and counted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

Interpolation = Literal["linear", "area"]
Task = Literal["pairs", "subsets", "model", "triangulation"]

_STRICT = ConfigDict(extra="forbid")


@config_dataclass(frozen=True, config=_STRICT)
class PairConfig:
    """How relative poses of listed pairs are scored.

    Attributes:
        resize: rule by which images are resized (`sfm_match.benchmarks.resizing`).
        interpolation: linear takes four pixels for each new one, as OpenCV's `resize` does if not
            told otherwise; area averages all.
        estimators: of `sfm_match.geometry.relative_pose`; each with each threshold.
        thresholds: largest distances of an inlier from the epipolar geometry, in pixels of the
            cameras (of full-size images, but for ScanNet's).
        max_epipolar_error: largest squared symmetric epipolar distance of a correct match, in
            normalised coordinates.
        auc: degrees of pose error up to which the area under the recall curve is given.
    """

    resize: str = "none"
    interpolation: Interpolation = "linear"
    estimators: tuple[str, ...] = ("opencv",)
    thresholds: tuple[PositiveFloat, ...] = (0.5,)
    max_epipolar_error: PositiveFloat = 5e-4
    auc: tuple[PositiveFloat, ...] = (5.0, 10.0, 20.0)


@config_dataclass(frozen=True, config=_STRICT)
class SceneConfig:
    """How scenes with a true model are scored: pairs, and models of some or all images.

    Attributes:
        resize: as in `PairConfig`.
        interpolation: as in `PairConfig`.
        tasks: pairs; subsets, a model of each subset; model, one of all images; triangulation,
            points from the true poses, against the scans of data sets that have some.
        estimators: as in `PairConfig`, of the task pairs.
        thresholds: as in `PairConfig`.
        max_epipolar_error: as in `PairConfig`.
        auc: as in `PairConfig`.
        maa: whole degrees up to which the mean average accuracy is given.
        min_shared_points: pairs see at least so many points of the true model together; 0 for all.
        subset_sizes: images of a subset, where subsets are drawn; those that the data set has are
            taken of these sizes.
        subset_counts: how many subsets of each size.
        intrinsics: truth gives models of subsets the true cameras; unknown lets the mapper find
            them, from `[camera]` of the recipe.
        tolerances: of triangulated points, in metres.
        voxel_size: side of the cubes over which accuracy and completeness are averaged, in metres.
    """

    resize: str = "none"
    interpolation: Interpolation = "area"
    tasks: tuple[Task, ...] = ("pairs", "model")
    estimators: tuple[str, ...] = ("poselib",)
    thresholds: tuple[PositiveFloat, ...] = (1.0,)
    max_epipolar_error: PositiveFloat = 5e-4
    auc: tuple[PositiveFloat, ...] = (1.0, 3.0, 5.0, 10.0, 20.0)
    maa: tuple[PositiveInt, ...] = (5, 10)
    min_shared_points: NonNegativeInt = 0
    subset_sizes: tuple[Annotated[int, Field(ge=2)], ...] = (5, 10, 25)
    subset_counts: tuple[NonNegativeInt, ...] = (100, 50, 25)
    intrinsics: Literal["truth", "unknown"] = "truth"
    tolerances: tuple[PositiveFloat, ...] = (0.01, 0.02, 0.05)
    voxel_size: PositiveFloat = 0.01


@config_dataclass(frozen=True, config=_STRICT)
class HomographyConfig:
    """How pairs of pictures of planes, or from one place, are scored.

    Attributes:
        resize: as in `PairConfig`; all errors are in pixels of the resized images.
        interpolation: as in `PairConfig`.
        estimators: of `sfm_match.geometry.homography_estimation`; each with each threshold.
        thresholds: largest distances of an inlier, in pixels.
        auc: pixels of corner error up to which the area under the recall curve is given.
        accuracies: pixels at which the matching accuracy is given.
        max_matches: take so many matches of the highest score; 0 for all.
        repeatability_threshold: in pixels.
        repeatability_keypoints: take so many keypoints of each image, those of the highest score
            that the other image shows; 0 for all.
        large_sequences: take the eight sequences of large images too.
    """

    resize: str = "none"
    interpolation: Interpolation = "area"
    estimators: tuple[str, ...] = ("dlt", "opencv", "poselib")
    thresholds: tuple[PositiveFloat, ...] = (3.0,)
    auc: tuple[PositiveFloat, ...] = (1.0, 3.0, 5.0)
    accuracies: tuple[PositiveFloat, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    max_matches: NonNegativeInt = 0
    repeatability_threshold: PositiveFloat = 3.0
    repeatability_keypoints: NonNegativeInt = 0
    large_sequences: bool = False
