"""Numbers over the pairs of a run, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sfm_match.geometry import bootstrap, poses
from sfm_match.types import ArrayF64

Run = dict[str, Any]
"""One estimator with one threshold on all pairs: its numbers, and `pairs` with those of each."""

Row = Mapping[str, Any]
"""The numbers of a pair."""


def errors_of(rows: Sequence[Row]) -> ArrayF64:
    """Return the errors of pairs, infinite where there is none."""
    return np.array([np.inf if row["error"] is None else row["error"] for row in rows], np.float64)


def area_under_curve(rows: Sequence[Row], limits: Sequence[float]) -> dict[str, float]:
    """Return the area under the recall curve of the pairs' errors in percent, by the limit."""
    found = poses.auc(errors_of(rows), limits)
    return {f"{limit:g}": float(area) for limit, area in zip(limits, found, strict=True)}


def mean_accuracy(rows: Sequence[Row], limits: Sequence[int]) -> dict[str, float]:
    """Return the mean average accuracy of the pairs' errors in percent, by the limit."""
    found = bootstrap.mean_average_accuracies(limits)(errors_of(rows)[None])[0]
    return {f"{limit:g}": float(part) for limit, part in zip(limits, found, strict=True)}


def mean_of(rows: Sequence[Row], column: str) -> float | None:
    """Return the mean of a column over the pairs that have a value, or None if none has."""
    values = [row[column] for row in rows if row[column] is not None]
    return float(np.mean(values)) if values else None
