"""Why there is no model, or a bad one: examines a COLMAP database, and what was made from it.

The database may be of any tool. It is read, never changed, in one pass; only single pairs are
looked at again. The lines that it draws are in `doctor_thresholds`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from sfm_match.io.database_reading import reading
from sfm_match.io.model import read_model
from sfm_match.report.doctor_access import PairReader
from sfm_match.report.doctor_focal import doubtful_cameras, examine_focals, focal_votes
from sfm_match.report.doctor_geometry import examine_geometries
from sfm_match.report.doctor_graph import examine_graph
from sfm_match.report.doctor_model import examine_model
from sfm_match.report.doctor_out import database_in, examine_out, model_in
from sfm_match.report.doctor_redetect import examine_convention
from sfm_match.report.doctor_rows import bogus_cameras, examine_rows
from sfm_match.report.doctor_survey import survey
from sfm_match.report.doctor_tables import Survey
from sfm_match.report.doctor_thresholds import Thresholds
from sfm_match.report.findings import Finding

CODES = {
    "no-images": "the database has no images, or a single one",
    "damaged-rows": "rows cannot be read, or name a camera that is not there",
    "bogus-cameras": "cameras that cannot be",
    "no-features": "images without keypoints",
    "keypoint-columns": "keypoints with a number of columns that COLMAP refuses",
    "out-of-bounds": "keypoints out of their image, or not numbers",
    "half-pixel": "keypoints in the other pixel convention",
    "matches-out-of-range": "matches of keypoints that are not there",
    "orphan-pairs": "pairs of images that are not there",
    "self-pairs": "images paired with themselves",
    "duplicate-pairs": "pairs that are there twice",
    "reversed-pairs": "pairs stored under the number of the other order",
    "no-matches": "no pair has matches",
    "not-verified": "matches, but no verified geometry",
    "isolated-images": "images that no verified pair links with another",
    "split-graph": "verified pairs leave the images in several parts",
    "few-inliers": "images whose best pair has few inliers",
    "weak-bridge": "single pairs that two parts hang together by",
    "short-tracks": "hardly a point is seen by three images",
    "geometry-without-config": "geometries without a class",
    "geometry-without-pose": "geometries without a matrix and a pose",
    "no-initial-pair": "no pair has enough inliers to begin with",
    "planar-pairs": "only planar pairs to begin with",
    "forward-motion": "only pairs with forward motion to begin with",
    "narrow-pairs": "only pairs without parallax to begin with",
    "focal-prior": "focal lengths that count as known, but that the data contradict",
    "rotation-cycles": "rotations of strong pairs contradict each other: repeated structure",
    "model-of-other-database": "the model is of another database",
    "unregistered-images": "images that are not in the model",
    "focal-drift": "guessed focal lengths that ended far from where they began",
    "reprojection-error": "the model's reprojection error is large",
    "left-out-images": "images that the run left out",
    "same-images": "images that are copies of others",
    "damaged-stores": "damaged files in the output folder",
    "no-model": "there is no model",
    "several-models": "the images are in several models",
}
"""All kinds of findings, by their code."""


@dataclass(frozen=True, eq=False)
class Examination:
    """What was examined, and what was found.

    Attributes:
        database: the database.
        counts: what it holds: images, keypoints, matched and verified pairs, and so on.
        findings: what is wrong, the worst first.
    """

    database: Path
    counts: dict[str, Any]
    findings: list[Finding]


def examine(
    database: Path,
    model: pycolmap.Reconstruction | None = None,
    *,
    images: Path | None = None,
    limits: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> list[Finding]:
    """Return what is wrong with a COLMAP database and a model made from it, the worst first.

    The database must not be open with pycolmap in this process meanwhile.

    Args:
        database: the file.
        model: the model.
        images: the folder of images; some are detected again to check the pixel convention.
        limits: where to draw the lines.

    Raises:
        DatabaseError: it cannot be read as a COLMAP database.
    """
    return _examine(database, model, images, limits).findings


def examine_folder(
    path: Path,
    *,
    model: Path | None = None,
    images: Path | None = None,
    limits: Thresholds = Thresholds(),  # noqa: B008 (frozen)
) -> Examination:
    """Examine an output folder with its model and its run, or a database alone.

    Args:
        path: an output folder of this package, a folder of COLMAP's or hloc's with `database.db`,
            or a database.
        model: the model, where it is not in the usual place below the folder.
        images: as in `examine`.
        limits: where to draw the lines.

    Raises:
        DatabaseError: there is no database, or it cannot be read.
        FileNotFoundError: `model` is no model.
        ModelError: the model cannot be read.
    """
    database = database_in(path)
    folder = model if model is not None or not path.is_dir() else model_in(path)
    read = None if folder is None else read_model(folder)
    found = _examine(database, read, images, limits)
    of_out = list(examine_out(path)) if path.is_dir() else []
    return Examination(database, found.counts, _ordered(of_out + found.findings))


def _examine(
    database: Path, model: pycolmap.Reconstruction | None, images: Path | None, limits: Thresholds
) -> Examination:
    with reading(database) as connection:
        found = survey(connection)
        findings = list(examine_rows(found, limits))
        if len(found.images):
            reader = PairReader(connection, found)
            findings += examine_graph(found, limits)
            bogus = bogus_cameras(found, limits)
            votes = focal_votes(found, reader, bogus, limits)
            doubtful = doubtful_cameras(found, votes) | bogus
            findings += examine_geometries(found, reader, doubtful, limits)
            findings += examine_focals(found, votes, model, limits)
            if images is not None:
                findings += examine_convention(found, connection, images, limits)
            if model is not None:
                findings += examine_model(found, connection, model, limits)
    return Examination(database, _counts(found), _ordered(findings))


def _ordered(findings: list[Finding]) -> list[Finding]:
    """Return the findings, the worst first, one of each kind."""
    first: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda finding: -finding.severity):
        first.setdefault(finding.code, finding)
    return list(first.values())


def _counts(found: Survey) -> dict[str, Any]:
    pairs = found.pairs
    inliers = pairs.num_inliers[pairs.num_inliers > 0]
    quartiles = np.percentile(inliers, [0, 25, 50, 75, 100]).tolist() if len(inliers) else []
    return {
        "images": len(found.images),
        "cameras": len(found.cameras),
        "keypoints": int(found.images.num_keypoints.sum()),
        "matched_pairs": int(np.count_nonzero(pairs.num_matches)),
        "matches": int(pairs.num_matches.sum()),
        "verified_pairs": len(inliers),
        "inliers": int(inliers.sum()),
        "inliers_per_pair": quartiles,
    }
