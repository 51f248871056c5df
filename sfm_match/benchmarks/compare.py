"""Two results of the same pairs compared: is one of them better, or is it chance?

Takes the JSON of `sfm-match benchmark` and of `sfm-match eval pairs`. Each run of one result is
compared with the run of the same task, estimator and threshold of the other, pair by pair
(`sfm_match.geometry.bootstrap`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.benchmarks.measures import Row, errors_of
from sfm_match.geometry.bootstrap import (
    Difference,
    Statistic,
    aucs,
    mean_average_accuracies,
    means,
    paired_bootstrap,
)
from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF64

NO_DIFFERENCE = "no significant difference"

_KEY = ("task", "estimator", "threshold", "subset_size", "intrinsics")
_SETTINGS = ("benchmark", "protocol", "settings")
_HIGHER_IS_BETTER = {
    "precision": True,
    "matching_score": True,
    "repeatability": True,
    "localization_error": False,
    "num_matches": None,
    "num_inliers": None,
}
"""Columns whose means are compared; None where more is neither better nor worse."""


def read_result(path: Path) -> dict[str, Any]:
    """Read the JSON of a result.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON: {error}") from None
    if not isinstance(content, dict) or not _runs(content):
        raise ConfigError(
            f"{path}: is no result of `sfm-match benchmark --json` or `sfm-match eval pairs --json`"
        )
    return content


def _runs(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the runs that have pairs; the result of one estimator of `eval pairs` is one."""
    runs = content["runs"] if isinstance(content.get("runs"), list) else [content]
    return [run for run in runs if isinstance(run, dict) and run.get("pairs")]


def compare(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    *,
    num_samples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the differences b - a of all measures, ready for JSON.

    Args:
        a: a result, as `read_result` gives it.
        b: another of the same pairs.
        num_samples: how often the pairs are drawn.
        confidence: of the intervals.
        seed: of the draws.

    Raises:
        ConfigError: the results are of other pairs, settings or thresholds.
    """
    _check_settings(a, b)
    runs_a, runs_b = ({_key(run): run for run in _runs(content)} for content in (a, b))
    if runs_a.keys() != runs_b.keys():
        here, there = sorted(map(_name, runs_a)), sorted(map(_name, runs_b))
        raise ConfigError(
            f"the results are not of the same estimators and thresholds: {'; '.join(here)} against "
            f"{'; '.join(there)}; run one of them again, matching is not repeated"
        )
    options = {"num_samples": num_samples, "confidence": confidence, "seed": seed}
    compared = []
    for key, run in runs_a.items():
        rows_a, rows_b = run["pairs"], runs_b[key]["pairs"]
        _check_pairs(rows_a, rows_b, _name(key))
        differences = [
            {"group": group, **measure}
            for group, rows in _groups(rows_a)
            for measure in _measures(
                run, [rows_a[i] for i in rows], [rows_b[i] for i in rows], options
            )
        ]
        compared.append({**_named(key), "num_pairs": len(rows_a), "differences": differences})
    return {"a": _method(a), "b": _method(b), **options, "runs": compared}


def _check_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    for name in _SETTINGS:
        if a.get(name) != b.get(name):
            raise ConfigError(
                f"the results cannot be compared, their {name} differ: {a.get(name)} against "
                f"{b.get(name)}"
            )


def _key(run: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(run.get(name) for name in _KEY)


def _named(key: tuple[Any, ...]) -> dict[str, Any]:
    return {name: v for name, v in zip(_KEY, key, strict=True) if v is not None}


def _name(key: tuple[Any, ...]) -> str:
    named = _named(key)
    parts = [str(named.get("estimator", ""))]
    if "threshold" in named:
        parts.append(f"{named['threshold']:g} px")
    if "subset_size" in named:
        parts.append(f"subsets of {named['subset_size']}")
    return ", ".join(parts)


def _check_pairs(a: Sequence[Row], b: Sequence[Row], name: str) -> None:
    of_a, of_b = ([(r.get("group"), r["name0"], r["name1"]) for r in rows] for rows in (a, b))
    if of_a == of_b:
        return
    only_a, only_b = set(of_a) - set(of_b), set(of_b) - set(of_a)
    example = next(iter(sorted(map(str, only_a | only_b))), "their order differs")
    raise ConfigError(
        f"{name}: the results are not of the same pairs, so they cannot be compared: {len(of_a)} "
        f"and {len(of_b)} pairs, {len(only_a)} only in the first and {len(only_b)} only in the "
        f"second, for example {example}"
    )


def _groups(rows: Sequence[Row]) -> Iterator[tuple[str, list[int]]]:
    """Yield all rows, and those of illumination and viewpoint apart."""
    yield "all", list(range(len(rows)))
    for group in ("illumination", "viewpoint"):
        found = [i for i, row in enumerate(rows) if row.get("group") == group]
        if found and len(found) < len(rows):
            yield group, found


def _measures(
    run: Mapping[str, Any], a: Sequence[Row], b: Sequence[Row], options: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    kinds: tuple[tuple[str, Any], ...] = (("auc", aucs), ("maa", mean_average_accuracies))
    for name, make in kinds:
        limits = list(run.get(name) or {})
        if limits:
            statistic: Statistic = make([float(limit) for limit in limits])
            found = paired_bootstrap(errors_of(a), errors_of(b), statistic, **options)
            for limit, difference in zip(limits, found, strict=True):
                yield _described(f"{name}@{limit}", difference, True)
    for name, higher_is_better in _columns(a):
        values = [(_value(x, name), _value(y, name)) for x, y in zip(a, b, strict=True)]
        both = np.array([v for v in values if None not in v], np.float64).reshape(-1, 2)
        if len(both):
            (difference,) = _means(both[:, 0], both[:, 1], options)
            yield _described(name, difference, higher_is_better)


def _means(a: ArrayF64, b: ArrayF64, options: Mapping[str, Any]) -> list[Difference]:
    return paired_bootstrap(a, b, means, **options)


def _columns(rows: Sequence[Row]) -> Iterator[tuple[str, bool | None]]:
    yield from ((f"accuracy@{key}", True) for key in rows[0].get("accuracy", {}))
    yield from ((name, sign) for name, sign in _HIGHER_IS_BETTER.items() if name in rows[0])


def _value(row: Row, name: str) -> float | None:
    column, _, key = name.partition("@")
    value = row[column][key] if key else row[column]
    return None if value is None else float(value)


def _described(name: str, found: Difference, higher_is_better: bool | None) -> dict[str, Any]:
    return {
        "measure": name,
        **found._asdict(),
        "verdict": _verdict(found, higher_is_better),
    }


def _verdict(found: Difference, higher_is_better: bool | None) -> str:
    if not found.is_significant:
        return NO_DIFFERENCE
    if higher_is_better is None:
        return "b has more" if found.difference > 0 else "a has more"
    return "b is better" if (found.difference > 0) == higher_is_better else "a is better"


def _method(content: Mapping[str, Any]) -> str:
    run = content if "matcher" in content else _runs(content)[0]
    named = [run.get(name) for name in ("features", "matcher", "refiner")]
    return " + ".join(spec["name"] for spec in named if spec)


def format_comparison(found: Mapping[str, Any]) -> str:
    """Return a comparison as text, without a final newline."""
    lines = [
        f"a  {found['a']}",
        f"b  {found['b']}",
        f"difference b - a, {100 * found['confidence']:g} % interval of {found['num_samples']} "
        f"paired bootstrap samples, seed {found['seed']}",
    ]
    for run in found["runs"]:
        name = _name(tuple(run.get(key) for key in _KEY))
        lines += ["", f"{name}, {run['num_pairs']} pairs"]
        for row in run["differences"]:
            label = row["measure"] if row["group"] == "all" else f"{row['measure']} {row['group']}"
            lines.append(
                f"  {label:28}{row['a']:>10.2f}{row['b']:>10.2f}{row['difference']:>+10.2f}  "
                f"[{row['low']:+.2f}, {row['high']:+.2f}]  {row['verdict']}"
            )
    return "\n".join(lines)
