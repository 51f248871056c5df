"""Features beside each other: matches on homographies, poses of pairs, models of scenes.

    python -m tests.benchmarks.bench_open PHOTOGRAPHS SCENE ... [--weights FILE] [--only NAME ...]
        [--out FOLDER] [--max-keypoints 2000] [--max-angle 60] [--time] [--json FILE]
        [-o SETTING ...]

PHOTOGRAPHS is a folder of which 20 pairs with known homographies are made, SCENE a folder with
`images` and `gt`, a COLMAP model of which the cameras are taken and held. FILE are weights of the
strided R2D2 (`open`, over a pyramid, and `open-one-scale`); `-o` changes their settings. What is
found is kept in OUT, so that only what is new is computed again.

Homographies and pairs: mutual nearest neighbours for all features, PoseLib at 1 pixel; `as run` is
with the matcher of the features' own recipe, which may have a ratio test. Models are those of that
recipe, before and after `polish`. CPU seconds are those of one image on one core, with decoding;
`--time` adds the wall seconds of an image on two cores, over all images of a scene, measured anew.
Pairs of views that differ by more than `--max-angle` are left out: where a room is seen all around
they show nothing in common, and PoseLib spends a second on each.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from sfm_match import Recipe, Run
from sfm_match.allocator import keep_freed_memory
from sfm_match.benchmarks.datasets import HomographySet
from sfm_match.benchmarks.homography_task import score_homographies
from sfm_match.benchmarks.matched import Machine, match_images, show_images
from sfm_match.benchmarks.settings import HomographyConfig
from sfm_match.io.model import read_model
from sfm_match.stages.evaluate import ModelEvaluation, evaluate_model
from sfm_match.stages.evaluate_pairs import evaluate_pairs
from sfm_match.stages.extract import ExtractReport
from sfm_match.stages.model_folders import MODELS
from sfm_match.stages.progress import no_progress
from tests.benchmarks.homography_pairs import make_pairs
from tests.benchmarks.measure import cost_of

NUM_PAIRS = 20
PIXELS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
CORRECT = 3
ONE_SCALE = "features.min_size=1024"
STRIDED = "features.min_reliability=0", "features.min_repeatability=0"
MUTUAL = {"name": "nearest", "ratio": 1.0}
MODEL_AUC = ("1", "3", "5", "10")
KEPT = "bench_open.json"


@dataclass(frozen=True)
class Settings:
    """How many keypoints an image has, and how far the views of a pair may be turned."""

    max_keypoints: int
    max_angle: float


@dataclass(frozen=True)
class Method:
    """Features: a recipe, and what is changed in it."""

    recipe: str
    settings: tuple[str, ...] = ()

    def load(self, max_keypoints: int, *settings: str, **tables: Any) -> Recipe:
        """Return the recipe for some images, with a second pass."""
        number = f"features.max_keypoints={max_keypoints}"
        changes = (number, "polish.rounds=1", *self.settings, *settings)
        return Recipe.load(self.recipe, *changes, **tables)


def methods(weights: str, options: Sequence[str]) -> dict[str, Method]:
    """Return what is compared, by name; strided networks only with weights."""
    found = {
        "sift": Method("sift"),
        "aliked": Method("aliked"),
        "r2d2": Method("r2d2"),
        "r2d2-one-scale": Method("r2d2", (ONE_SCALE,)),
    }
    if weights:
        strided = (f"features.weights={weights}", *STRIDED, *options)
        found["open"] = Method("r2d2", strided)
        found["open-one-scale"] = Method("r2d2", (*strided, ONE_SCALE))
    return found


def on_homographies(data: HomographySet, recipe: Recipe, out: Path) -> dict[str, float]:
    """Return the mean figures of the pairs."""
    config = HomographyConfig(estimators=("poselib",), accuracies=PIXELS)
    pairs = [pair.names for pair in data.pairs]
    names = {name for pair in pairs for name in pair}
    machine = Machine("cpu", 1, no_progress)
    shown = show_images(data.root, names, config.resize, config.interpolation)
    matched = match_images(out, data.root, pairs, shown, recipe, machine)
    (run,) = score_homographies(data, matched, config, recipe.seed, machine)
    found = [matched.reader.keypoints(name) for name in sorted(names)]
    matched.stores.close()
    correct = [p["num_matches"] * p["accuracy"][str(CORRECT)] / 100 for p in run["pairs"]]
    return {
        "keypoints": float(np.mean([len(points) for points in found if points is not None])),
        "matches": run["num_matches"],
        "correct": float(np.mean(correct)),
        **{f"mma{pixels}": run["accuracy"][str(pixels)] for pixels in PIXELS},
        "repeatability": run["repeatability"],
        "localization": run["localization_error"],
        **{f"corner_auc{limit}": area for limit, area in run["auc"].items()},
    }


def camera(truth: Path) -> dict[str, Any]:
    """Return the settings of the one camera of a true model, held."""
    model = read_model(truth)
    cameras = {(c.model_name, tuple(c.params.tolist())) for c in model.cameras.values()}
    ((name, params),) = cameras
    return {"mode": "single", "model": name, "params": list(params), "fixed": True}


def on_scene(scene: Path, method: Method, settings: Settings, out: Path) -> dict[str, Any]:
    """Return what comes of a scene's images: poses of pairs, and models."""
    tables = {"images": {"path": str(scene / "images")}, "camera": camera(scene / "gt")}
    recipe = method.load(settings.max_keypoints, **tables)
    mutual = method.load(settings.max_keypoints, **tables, matcher=MUTUAL)
    run = Run(out, recipe, threads=1)
    found: dict[str, Any] = {"cpu_seconds": cpu_seconds(run, recipe, out)}
    for title, chosen in (("mutual", mutual), ("as_run", recipe)):
        key = f"{chosen.matcher.fingerprint}, {settings.max_angle:g} degrees"
        found[title] = kept(out, key, partial(of_pairs, scene, chosen, settings.max_angle, out))
    if run.all().models:
        before = evaluate_model(out / MODELS / "0", scene / "gt")
        found |= {"model": of_model(before), "polished": of_model(run.evaluate(scene / "gt"))}
    return found


def kept(out: Path, key: str, work: Callable[[], Any]) -> Any:
    """Return the result of some work, from the last time where there was one."""
    path = out / KEPT
    notes = json.loads(path.read_text()) if path.exists() else {}
    if notes.get(key) is None:
        notes[key] = work()
        path.write_text(json.dumps(notes))
    return notes[key]


def of_pairs(scene: Path, recipe: Recipe, max_angle: float, out: Path) -> dict[str, Any]:
    """Return the figures of a scene's pairs."""
    result = evaluate_pairs(
        scene / "gt", recipe, out, thresholds=(1.0,), max_angle=max_angle, threads=1
    )
    (poses,) = result.runs
    return {
        "pairs": len(result.matches),
        "auc": poses.auc,
        "matches": result.num_matches,
        "precision": result.precision,
        "estimate_ms": poses.milliseconds,
    }


def of_model(evaluation: ModelEvaluation) -> dict[str, Any]:
    """Return the figures of a model."""
    everything = evaluation.to_dict()
    names = {"registered": "num_registered", "auc": "auc", "pixels": "mean_reprojection_error"}
    return {title: everything[name] for title, name in names.items()}


def cpu_seconds(run: Run, recipe: Recipe, out: Path) -> Any:
    """Extract what is not there yet; return the seconds of an image, of when all were extracted."""
    reports: list[ExtractReport] = []
    cost = cost_of(lambda: reports.append(run.extract()))
    all_now = reports[0].computed > 0 and reports[0].reused == 0
    seconds = cost.cpu_seconds / reports[0].computed if all_now else None
    assert recipe.features is not None
    return kept(out, recipe.features.fingerprint, lambda: seconds)


def wall_seconds(scene: Path, method: Method, max_keypoints: int) -> float:
    """Return the seconds of an image on two cores."""
    recipe = method.load(max_keypoints, images={"path": str(scene / "images")})
    with tempfile.TemporaryDirectory() as out:
        run = Run(out, recipe, threads=2)
        cost = cost_of(run.extract)
        return cost.seconds / len(run.workspace.sources.images)


def tables(results: dict[str, Any]) -> str:
    """Return all figures in Markdown."""
    found = results["methods"]
    rows = [_of_homographies(name, one["homographies"]) for name, one in found.items()]
    head = "keypoints | matches | correct | MMA@1 | @2 | @3 | @5 | @10 | repeatability | px"
    parts = [_table(f"{NUM_PAIRS} homographies", head, rows)]
    for scene in results["scenes"]:
        rows = [_of_scene(name, one["scenes"][scene]) for name, one in found.items()]
        head = (
            "CPU s | wall s | matches | AUC@5/10/20 | as run | registered | "
            "AUC@1/3/5/10 | px | polished | px"
        )
        parts.append(_table(scene, head, rows))
    return "\n\n".join(parts)


def _table(title: str, head: str, rows: Sequence[str]) -> str:
    return "\n".join([f"| {title} | {head} |", "|---" * (head.count("|") + 2) + "|", *rows])


def _of_homographies(name: str, one: dict[str, float]) -> str:
    counts = " | ".join(f"{one[key]:.0f}" for key in ("keypoints", "matches", "correct"))
    parts = " | ".join(f"{one[f'mma{pixels}']:.1f}" for pixels in (1, 2, 3, 5, 10))
    return (
        f"| {name} | {counts} | {parts} | {one['repeatability']:.1f} | {one['localization']:.2f} |"
    )


def _of_scene(name: str, one: dict[str, Any]) -> str:
    cells = [_number(one["cpu_seconds"], 2), _number(one.get("wall_seconds"), 2)]
    cells.append(f"{one['mutual']['matches']:.0f}")
    cells += [_aucs(one[title]["auc"]) for title in ("mutual", "as_run")]
    for title in ("model", "polished"):
        model = one.get(title)
        if title == "model":
            cells.append("none" if model is None else str(model["registered"]))
        cells.append("-" if model is None else _aucs([model["auc"][at] for at in MODEL_AUC]))
        cells.append(_number(None if model is None else model["pixels"], 3))
    return f"| {name} | {' | '.join(cells)} |"


def _aucs(values: Sequence[float]) -> str:
    return "/".join(f"{value:.1f}" for value in values)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def main() -> None:
    """Print a table for the homographies and one for each scene."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("scenes", type=Path, nargs="*")
    parser.add_argument("--weights", default="")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "bench_open")
    parser.add_argument("--max-keypoints", type=int, default=2000)
    parser.add_argument("--max-angle", type=float, default=60.0)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("-o", dest="options", action="append", default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    chosen = methods(args.weights, args.options)
    settings = Settings(args.max_keypoints, args.max_angle)
    data = make_pairs(args.photographs, args.out / "homographies", NUM_PAIRS)
    results: dict[str, Any] = {"scenes": [scene.name for scene in args.scenes], "methods": {}}
    for name in args.only or chosen:
        method = chosen[name]
        recipe = method.load(args.max_keypoints, matcher=MUTUAL)
        figures = on_homographies(data, recipe, args.out / "found")
        one: dict[str, Any] = {"homographies": figures, "scenes": {}}
        results["methods"][name] = one
        for scene in args.scenes:
            found = on_scene(scene, method, settings, args.out / scene.name / name)
            if args.time:
                found["wall_seconds"] = wall_seconds(scene, method, args.max_keypoints)
            one["scenes"][scene.name] = found
    print(tables(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
