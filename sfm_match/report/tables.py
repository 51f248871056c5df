"""The numbers of a report as they are written: tiles, one row for each image, stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfm_match.report.errors import Observations
from sfm_match.report.material import Material

_NOT_COUNTS = {"seconds", "reused", "num_encoded", "num_cache_hits"}


@dataclass(frozen=True)
class Tile:
    """A number of the summary.

    Attributes:
        label: what it is.
        value: the number, with its unit.
        note: what it is of, or how it spreads; may be empty.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class ImageRow:
    """What is known of an image; None where it is not.

    Attributes:
        name: its name.
        state: empty if it is in the model; else why it is not.
        keypoints: how many it has.
        pairs: how many verified pairs it is in.
        matches: verified ones, over all its pairs.
        points: 3D points that it sees.
        error: the mean reprojection error, in pixels.
        worst_error: what 95 of 100 of them stay below.
        position: the distance to the true centre, in the truth's units.
        rotation: the angle to the true rotation, in degrees.
    """

    name: str
    state: str
    keypoints: int | None
    pairs: int | None
    matches: int | None
    points: int | None
    error: float | None
    worst_error: float | None
    position: float | None
    rotation: float | None


@dataclass(frozen=True)
class StageRow:
    """What a stage did.

    Attributes:
        name: of the stage.
        seconds: how long it took.
        start: percent of the run's time that had passed before it.
        share: percent of the run's time that it took.
        text: what it did.
    """

    name: str
    seconds: float
    start: float
    share: float
    text: str


def image_rows(
    material: Material, names: Sequence[str], observed: Mapping[str, Observations]
) -> list[ImageRow]:
    """Return the rows of the images of the given names."""
    graph, results = material.graph, material.results
    keypoints: dict[str, int] = {}
    pairs, matches = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    if graph is not None:
        keypoints = dict(zip(graph.names, graph.num_keypoints.tolist(), strict=True))
        verified = graph.num_inliers > 0
        flat = graph.pairs[verified].T.ravel()
        counts = np.bincount(flat, minlength=len(graph.names)).tolist()
        sums = np.bincount(flat, np.tile(graph.num_inliers[verified], 2), len(graph.names))
        pairs = dict(zip(graph.names, counts, strict=True))
        matches = dict(zip(graph.names, sums.astype(int).tolist(), strict=True))
    compared = {image["name"]: image for image in (material.evaluation or {}).get("images", ())}

    def row(name: str) -> ImageRow:
        errors = observed[name].found if name in observed else np.zeros(0)
        state = "" if name in observed else results["failures"].get(name, "not registered")
        true = compared.get(name, {})
        return ImageRow(
            name=name,
            state=state,
            keypoints=keypoints.get(name),
            pairs=pairs.get(name) if graph else None,
            matches=matches.get(name) if graph else None,
            points=len(errors) if name in observed else None,
            error=float(errors.mean()) if len(errors) else None,
            worst_error=float(np.percentile(errors, 95)) if len(errors) else None,
            position=true.get("position"),
            rotation=true.get("rotation"),
        )

    return [row(name) for name in names]


def summary_tiles(material: Material, observed: Mapping[str, Observations]) -> list[Tile]:
    """Return the numbers that matter most."""
    tiles = []
    model, graph, evaluation = material.model, material.graph, material.evaluation
    if model is not None:
        tiles.append(Tile("images", f"{len(observed)}", f"of {len(material.names)}"))
        observations = model.compute_num_observations()
        tiles.append(
            Tile("3D points", f"{model.num_points3D():,}", f"{observations:,} observations")
        )
        length = model.compute_mean_track_length()
        tiles.append(Tile("track length", f"{length:.2f}", "images that see a point, mean"))
        error = model.compute_mean_reprojection_error()
        tiles.append(Tile("reprojection error", f"{error:.3f} px", "mean over the points"))
    if evaluation and evaluation.get("position"):
        position, rotation = evaluation["position"], evaluation["rotation"]
        tiles.append(
            Tile(
                "position error",
                f"{position['median']:.3g}",
                f"median, in the truth's units; at most {position['max']:.3g}",
            )
        )
        tiles.append(
            Tile(
                "rotation error",
                f"{rotation['median']:.3g}°",
                f"median; at most {rotation['max']:.3g}°",
            )
        )
    if graph is not None:
        verified = int(np.count_nonzero(graph.num_inliers))
        tiles.append(Tile("verified pairs", f"{verified:,}", f"of {len(graph.pairs):,} matched"))
    stages = material.results["stages"].values()
    if seconds := sum(stage["seconds"] for stage in stages):
        tiles.append(Tile("time", duration(seconds), "all stages"))
    return tiles


def stage_rows(stages: Mapping[str, Any]) -> list[StageRow]:
    """Return the rows of the stages, in the order in which they ran."""
    total = sum(stage["seconds"] for stage in stages.values()) or 1.0
    rows, passed = [], 0.0
    for name, stage in stages.items():
        share = 100 * stage["seconds"] / total
        rows.append(StageRow(name, stage["seconds"], passed, share, _text(stage)))
        passed += share
    return rows


def _text(stage: Mapping[str, Any]) -> str:
    """Return the counts of a stage's report in words."""
    counts = {**stage, **stage.get("counts", {})}
    parts = [
        f"{value:,} {name.removeprefix('num_').replace('_', ' ')}"
        for name, value in counts.items()
        if name not in _NOT_COUNTS and isinstance(value, int) and not isinstance(value, bool)
    ]
    reused = stage.get("reused")
    if reused is True:
        parts.append("was there already")
    elif reused:
        parts.append(f"{reused:,} were there already")
    if stage.get("models"):
        parts.append(f"{len(stage['models'])} model{'s' if len(stage['models']) > 1 else ''}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time in the units in which one says it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
