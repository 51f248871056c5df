"""What an evaluation of relative poses found, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfm_match.geometry import poses
from sfm_match.io.results import versions
from sfm_match.spec import Spec

AUC_THRESHOLDS = (5.0, 10.0, 20.0)
"""Degrees of pose error up to which the area under the recall curve is reported."""

FAILED = 180.0
"""The error of a pair without a pose, in degrees."""


@dataclass(frozen=True, slots=True)
class PairMatches:
    """The matches of a pair, measured against its true epipolar geometry.

    Attributes:
        names: the two images, in the order of the truth.
        num_keypoints: of each image; None where the matcher works without.
        num_matches: of the pair.
        precision: correct matches in percent of the matches, 0 without matches; None where the
            cameras have no baseline and so no epipolar geometry.
        matching_score: correct matches in percent of the first image's keypoints, or None as well
            where there are no keypoints.
    """

    names: tuple[str, str]
    num_keypoints: tuple[int, int] | None
    num_matches: int
    precision: float | None
    matching_score: float | None


@dataclass(frozen=True, slots=True)
class PairPose:
    """The relative pose of a pair, measured against the true one.

    Attributes:
        rotation_error: in degrees, 0 to 180; None without a pose.
        translation_error: of its direction, in degrees, 0 to 90; None without a pose, and without
            a true baseline.
        error: the larger of the two; `FAILED` without a pose.
        num_inliers: matches that agree with the pose.
        milliseconds: processor time of the estimator, which uses one core.
    """

    rotation_error: float | None
    translation_error: float | None
    error: float
    num_inliers: int
    milliseconds: float


def pair_dict(matches: PairMatches, pose: PairPose) -> dict[str, Any]:
    """Return what was found of a pair as plain lists, strings and numbers, ready for JSON."""
    return {
        "name0": matches.names[0],
        "name1": matches.names[1],
        "error": pose.error,
        "rotation_error": pose.rotation_error,
        "translation_error": pose.translation_error,
        "num_keypoints": matches.num_keypoints and list(matches.num_keypoints),
        "num_matches": matches.num_matches,
        "num_inliers": pose.num_inliers,
        "precision": matches.precision,
        "matching_score": matches.matching_score,
        "ms": pose.milliseconds,
    }


@dataclass(frozen=True, slots=True)
class PoseRun:
    """All poses of one estimator with one threshold.

    Attributes:
        estimator: its name.
        version: that of its library.
        threshold: in pixels.
        poses: in the order of the pairs.
    """

    estimator: str
    version: str
    threshold: float
    poses: tuple[PairPose, ...]

    @property
    def auc(self) -> tuple[float, ...]:
        """The area under the recall curve in percent, at each of `AUC_THRESHOLDS`."""
        errors = [pose.error for pose in self.poses]
        return tuple(poses.auc(errors, AUC_THRESHOLDS).tolist())

    @property
    def num_failed(self) -> int:
        """The number of pairs without a pose."""
        return sum(pose.rotation_error is None for pose in self.poses)

    @property
    def milliseconds(self) -> float:
        """The mean processor time of an estimate."""
        return float(np.mean([pose.milliseconds for pose in self.poses]))


@dataclass(frozen=True, slots=True)
class PairsEvaluation:
    """Relative poses measured against the truth.

    Attributes:
        truth: where it is from.
        images: the folder of images.
        features: the extractor; None where the matcher works without.
        matcher: the matcher.
        refiner: what refined its correspondences; None where nothing did.
        seed: of the estimators.
        matches: of each pair, in the order of the truth.
        runs: one for each estimator and threshold.
        extract_milliseconds: wall time of extraction, with decoding and the loading of the model,
            over the number of images; None where all features were there and no time was noted.
        match_milliseconds: the same of matching, over the number of pairs.
        failures: images that could not be used, each with the reason; their pairs have failed.
        missing: images of a true model that are not in the folder; their pairs are not counted.
    """

    truth: str
    images: str
    features: Spec | None
    matcher: Spec
    refiner: Spec | None
    seed: int
    matches: tuple[PairMatches, ...]
    runs: tuple[PoseRun, ...]
    extract_milliseconds: float | None
    match_milliseconds: float | None
    failures: Mapping[str, str]
    missing: tuple[str, ...]

    @property
    def num_images(self) -> int:
        """The number of different images."""
        return len({name for pair in self.matches for name in pair.names})

    @property
    def num_keypoints(self) -> float | None:
        """The mean number of keypoints of an image."""
        numbers = {
            name: number
            for pair in self.matches
            if pair.num_keypoints is not None
            for name, number in zip(pair.names, pair.num_keypoints, strict=True)
        }
        return _mean(numbers.values())

    @property
    def num_matches(self) -> float:
        """The mean number of matches of a pair."""
        return float(np.mean([pair.num_matches for pair in self.matches]))

    @property
    def precision(self) -> float | None:
        """The mean of the pairs' precisions, in percent."""
        return _mean(pair.precision for pair in self.matches)

    @property
    def matching_score(self) -> float | None:
        """The mean of the pairs' matching scores, in percent."""
        return _mean(pair.matching_score for pair in self.matches)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers, ready for JSON.

        One run makes a flat dict; several are the list `runs` of such dicts.
        """
        plain = [self._run_dict(run) for run in self.runs]
        return plain[0] if len(plain) == 1 else {"runs": plain}

    def _run_dict(self, run: PoseRun) -> dict[str, Any]:
        return {
            "truth": self.truth,
            "images": self.images,
            "features": None if self.features is None else _spec_dict(self.features),
            "matcher": _spec_dict(self.matcher),
            "refiner": None if self.refiner is None else _spec_dict(self.refiner),
            "estimator": run.estimator,
            "estimator_version": run.version,
            "threshold": run.threshold,
            "seed": self.seed,
            "auc": {f"{t:g}": a for t, a in zip(AUC_THRESHOLDS, run.auc, strict=True)},
            "precision": self.precision,
            "matching_score": self.matching_score,
            "num_images": self.num_images,
            "num_pairs": len(self.matches),
            "num_failed": run.num_failed,
            "num_keypoints": self.num_keypoints,
            "num_matches": self.num_matches,
            "num_inliers": float(np.mean([pose.num_inliers for pose in run.poses])),
            "ms": {
                "extract": self.extract_milliseconds,
                "match": self.match_milliseconds,
                "estimate": run.milliseconds,
            },
            "failures": dict(self.failures),
            "missing": list(self.missing),
            "versions": versions(),
            "pairs": [
                pair_dict(pair, pose) for pair, pose in zip(self.matches, run.poses, strict=True)
            ],
        }


def format_pairs_evaluation(evaluation: PairsEvaluation) -> str:
    """Return the evaluation as a short table for a terminal, without a final newline."""
    e = evaluation
    matched = _texts(
        ("{:.1f} a pair", e.num_matches),
        ("precision {:.1f} %", e.precision),
        ("matching score {:.1f} %", e.matching_score),
        ("{:.1f} ms a pair", e.match_milliseconds),
    )
    extracted = _texts(
        ("{:.1f} keypoints an image", e.num_keypoints),
        ("{:.1f} ms an image", e.extract_milliseconds),
    )
    pairs = f"{len(e.matches)} of {e.num_images} images"
    if e.missing:
        pairs += f"; {len(e.missing)} images of the truth are not in {e.images}"
    lines = [f"pairs      {pairs}"]
    if e.features is not None:
        lines.append(f"features   {e.features.folder_name}: {extracted}")
    lines += [
        f"matches    {(e.refiner or e.matcher).folder_name}: {matched}",
        "",
        _row("pose AUC (%)", [f"{t:g} deg" for t in AUC_THRESHOLDS] + ["failed", "ms a pair"]),
    ]
    for run in e.runs:
        cells = [f"{a:.2f}" for a in run.auc] + [str(run.num_failed)]
        cells.append(f"{run.milliseconds:.1f}")
        lines.append(_row(f"{run.estimator}, {run.threshold:g} px", cells))
    return "\n".join([*lines, f"seed {e.seed}"])


def _texts(*parts: tuple[str, float | None]) -> str:
    return ", ".join(text.format(value) for text, value in parts if value is not None)


def _row(label: str, cells: list[str]) -> str:
    return f"{label:18}" + "".join(f"{cell:>10}" for cell in cells)


def _spec_dict(spec: Spec) -> dict[str, Any]:
    payload = {key: value for key, value in spec.payload.items() if key != "inputs"}
    return {**payload, "fingerprint": spec.fingerprint}


def _mean(values: Iterable[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
