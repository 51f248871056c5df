"""The results of a benchmark as a short table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def format_results(results: Mapping[str, Any]) -> str:
    """Return the results as text, without a final newline."""
    extractor = results["features"]
    method = [results["matcher"]["name"]]
    if extractor is not None:
        method.insert(0, extractor["name"])
    if results["refiner"] is not None:
        method.append(results["refiner"]["name"])
    keypoints = results["num_keypoints"]
    images = f"{results['num_images']}"
    if keypoints is not None:
        images += f", {keypoints:.1f} keypoints each"
    lines = [
        f"benchmark  {results['benchmark']}, protocol {results['protocol']}, "
        f"resize {results['settings']['resize']}",
        f"method     {' + '.join(method)}, seed {results['seed']}",
        f"images     {images}",
    ]
    if results["left_out"]:
        lines.append(f"left out   {', '.join(results['left_out'])}")
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for run in results["runs"]:
        by_task.setdefault(run["task"], []).append(run)
    for task, runs in by_task.items():
        lines += ["", *_TABLES[task](runs)]
    seconds = ", ".join(f"{part} {value:.1f}" for part, value in results["seconds"].items())
    return "\n".join([*lines, "", f"seconds    {seconds}"])


def _pairs(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    limits = list(runs[0]["auc"])
    first = runs[0]
    yield (
        f"pairs      {first['num_pairs']}, {first['num_matches']:.1f} matches each"
        + _optional(", precision {:.1f} %", first["precision"])
        + _optional(", matching score {:.1f} %", first["matching_score"])
    )
    yield _row("pose AUC (%)", [*(f"{t} deg" for t in limits), "failed"])
    for run in runs:
        yield _row(_setting(run), [*(f"{run['auc'][t]:.2f}" for t in limits), run["num_failed"]])


def _homographies(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    limits, steps = list(runs[0]["auc"]), list(runs[0]["accuracy"])
    parts = {"all": runs[0], **runs[0]["groups"]}
    yield _row("matching accuracy (%)", [*(f"{t} px" for t in steps), "pairs"])
    for name, part in parts.items():
        yield _row(name, [*(f"{part['accuracy'][t]:.1f}" for t in steps), part["num_pairs"]])
    yield ""
    yield _row("keypoints", ["repeat. %", "error px", "matches"])
    for name, part in parts.items():
        numbers = part["repeatability"], part["localization_error"], part["num_matches"]
        yield _row(name, ["-" if number is None else f"{number:.2f}" for number in numbers])
    yield ""
    yield _row("homography AUC (%)", [*(f"{t} px" for t in limits), "failed"])
    for run in runs:
        for name, part in {"all": run, **run["groups"]}.items():
            cells = [*(f"{part['auc'][t]:.2f}" for t in limits), part["num_failed"]]
            yield _row(f"{_setting(run)}, {name}", cells)


def _subsets(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    maa, limits = list(runs[0]["maa"]), list(runs[0]["auc"])
    head = [*(f"mAA {t}" for t in maa), *(f"AUC {t}" for t in limits), "registered"]
    yield _row("subsets of images (%)", head)
    for run in runs:
        cells = [*(f"{run['maa'][t]:.2f}" for t in maa), *(f"{run['auc'][t]:.2f}" for t in limits)]
        label = f"{run['num_subsets']} of {run['subset_size']}, {run['estimator']}"
        yield _row(label, [*cells, f"{run['num_registered']:.2f}"])


def _models(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    head = ["images", "position", "max", "rot. deg", "max", "points", "track"]
    yield _row("model", head)
    for run in runs:
        for scene in run["scenes"]:
            registered = f"{scene['num_registered']}/{scene['num_images']}"
            if "reason" in scene:
                yield f"{scene['scene']:28}{registered:>11}  no model: {scene['reason']}"
                continue
            errors = scene["position_error"], scene["rotation_error"]
            cells = [f"{e[key]:.4g}" if e else "-" for e in errors for key in ("mean", "max")]
            length = scene["mean_track_length"]
            last = [scene["num_points"], "-" if length is None else f"{length:.2f}"]
            yield _row(scene["scene"], [registered, *cells, *last])


def _triangulation(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    limits = list(runs[0]["accuracy"])
    centimetres = [f"{100 * float(t):g} cm" for t in limits]
    yield _row(
        "triangulation (%)",
        [*(f"acc {t}" for t in centimetres), *(f"com {t}" for t in centimetres), "points"],
    )
    for run in runs:
        for scene in [*run["scenes"], {**run, "scene": "mean"}]:
            cells = [f"{scene[k][t]:.2f}" for k in ("accuracy", "completeness") for t in limits]
            yield _row(scene["scene"], [*cells, f"{scene['num_points']:.0f}"])


_TABLES = {
    "pairs": _pairs,
    "homographies": _homographies,
    "subsets": _subsets,
    "model": _models,
    "triangulation": _triangulation,
}


def _setting(run: Mapping[str, Any]) -> str:
    limit = run["threshold"]
    return run["estimator"] if limit is None else f"{run['estimator']}, {limit:g} px"


def _optional(text: str, value: float | None) -> str:
    return "" if value is None else text.format(value)


def _row(label: str, cells: Sequence[object]) -> str:
    return f"{label:28}" + "".join(f"{cell!s:>11}" for cell in cells)
