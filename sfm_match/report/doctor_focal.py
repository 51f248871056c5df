"""Findings on focal lengths: priors that the matches contradict."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pycolmap

from sfm_match.geometry.focal_votes import estimate_fundamental, vote_focals
from sfm_match.report.doctor_access import PairReader
from sfm_match.report.doctor_model import camera_places, refined_focals
from sfm_match.report.doctor_tables import Survey
from sfm_match.report.doctor_thresholds import Thresholds
from sfm_match.report.findings import Finding, Severity, count
from sfm_match.types import TwoViewConfig

_GENERAL = (TwoViewConfig.CALIBRATED, TwoViewConfig.UNCALIBRATED)
# A line is no line in their images, so that no fundamental matrix in pixels holds.
_CURVED = ("FISHEYE", "FOV", "EQUIRECTANGULAR", "EUCM", "DIVISION")


@dataclass(frozen=True)
class FocalVote:
    """What the matches say of the focal length of a camera.

    Attributes:
        factor: by which to multiply it.
        num_pairs: how many pairs say so.
        is_off: whether it is clearly another one.
        is_confirmed: whether it is clearly this one.
    """

    factor: float
    num_pairs: int
    is_off: bool
    is_confirmed: bool


def focal_votes(
    found: Survey, reader: PairReader, bogus: Collection[int], limits: Thresholds
) -> dict[int, FocalVote]:
    """Return what the matches say of focal lengths, by the id of the camera.

    Cameras of too few pairs, and those of the ids `bogus`, are left out.
    """
    matrices, cameras = [], []
    for pair in _voters(found, reader, bogus, limits):
        F = estimate_fundamental(*reader.matched(pair))
        if F is not None:
            matrices.append(F)
            cameras.append([camera.camera_id for camera in reader.cameras(pair)])
    if not matrices:
        return {}
    ids, columns = np.unique(cameras, return_inverse=True)
    K = np.array([found.cameras[int(i)].calibration_matrix() for i in ids])
    votes = vote_focals(np.array(matrices), K, columns.reshape(-1, 2))
    ratios = np.maximum(votes.factors, 1 / votes.factors)
    is_far = ratios > limits.focal_ratio
    is_off = is_far & (votes.prior_residuals > limits.focal_evidence * votes.residuals)
    is_sharp = votes.near_residuals > limits.focal_evidence * votes.residuals
    return {
        int(ids[i]): FocalVote(
            factor=float(votes.factors[i]),
            num_pairs=int(votes.num_pairs[i]),
            is_off=bool(is_off[i]),
            is_confirmed=bool(is_sharp[i] and not is_far[i]),
        )
        for i in np.flatnonzero(votes.num_pairs >= limits.focal_min_pairs)
    }


def doubtful_cameras(found: Survey, votes: Mapping[int, FocalVote]) -> frozenset[int]:
    """Return the ids of the cameras whose focal length cannot be trusted for poses.

    One that counts as known is trusted unless the matches contradict it; a guess only where they
    confirm it, or, without a vote of its own, where they confirm most of the other guesses.
    """
    guessed = {i for i, camera in found.cameras.items() if not camera.has_prior_focal_length}
    confirmed = {i for i in guessed & votes.keys() if votes[i].is_confirmed}
    if 2 * len(confirmed) > len(guessed & votes.keys()):
        confirmed |= guessed - votes.keys()
    return frozenset({i for i, vote in votes.items() if vote.is_off} | (guessed - confirmed))


def _voters(
    found: Survey, reader: PairReader, bogus: Collection[int], limits: Thresholds
) -> list[int]:
    """Return the pairs with the most matches, some for each camera."""
    pairs = found.pairs
    usable = reader.readable & np.isin(pairs.config, _GENERAL)
    usable &= (pairs.num_inliers >= limits.strong_inliers) & (pairs.num_matches > 0)
    rows = np.flatnonzero(usable)
    votes: dict[int, int] = {}
    chosen: list[int] = []
    for row in rows[np.argsort(-pairs.num_inliers[rows], kind="stable")]:
        cameras = reader.cameras(int(row))
        ids = {camera.camera_id for camera in cameras}
        if not all(map(_is_straight, cameras)) or ids & set(bogus):
            continue
        if any(votes.get(i, 0) < limits.focal_pairs for i in ids):
            chosen.append(int(row))
            for i in ids:
                votes[i] = votes.get(i, 0) + 1
        if len(chosen) == limits.max_focal_pairs:
            break
    return chosen


def _is_straight(camera: pycolmap.Camera) -> bool:
    return not any(word in camera.model_name for word in _CURVED)


def examine_focals(
    found: Survey,
    votes: Mapping[int, FocalVote],
    model: pycolmap.Reconstruction | None,
    limits: Thresholds,
) -> Iterator[Finding]:
    """Yield the focal lengths that count as known, but that the model or the matches contradict."""
    places = {}
    for camera_id, vote in votes.items():
        camera = found.cameras[camera_id]
        if vote.is_off and camera.has_prior_focal_length:
            said = camera.mean_focal_length()
            places[camera_id] = (
                f"{said:.0f} pixels; {vote.num_pairs} pairs say {vote.factor * said:.0f}"
            )
    for camera_id, ratio in ({} if model is None else refined_focals(found, model)).items():
        camera = found.cameras[camera_id]
        is_off = max(ratio, 1 / ratio) > limits.focal_ratio
        if is_off and camera.has_prior_focal_length and camera_id not in places:
            said = camera.mean_focal_length()
            places[camera_id] = f"{said:.0f} pixels; the model has {ratio * said:.0f}"
    if places:
        yield Finding(
            Severity.WARNING,
            "focal-prior",
            f"{count(len(places), 'camera')} with a focal length that counts as known, but "
            "contradicts the pictures",
            camera_places(found, places),
            "are they of pictures of another size, or the EXIF data of another lens? Correct "
            "-o camera.params=..., or do not hold it: -o camera.fixed=false",
        )
