"""A benchmark from its data to its results: read, match, score."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from sfm_match.benchmarks.catalogue import Config, find_benchmark, protocol_of
from sfm_match.benchmarks.datasets import HomographySet, PoseSet, Scene, chosen_pairs
from sfm_match.benchmarks.homography_task import homography_settings, score_homographies
from sfm_match.benchmarks.matched import Machine, Matched, match_images, show_images
from sfm_match.benchmarks.measures import Run
from sfm_match.benchmarks.pose_task import fit_cameras, pose_settings, score_poses
from sfm_match.benchmarks.reconstruction import Workbench
from sfm_match.benchmarks.scene_tasks import (
    Subsets,
    score_models,
    score_subsets,
    score_triangulation,
    subsets_of,
)
from sfm_match.benchmarks.settings import HomographyConfig, PairConfig, SceneConfig
from sfm_match.io.hardware import hardware
from sfm_match.io.results import versions
from sfm_match.io.timings import mean_milliseconds
from sfm_match.logs import quiet_colmap
from sfm_match.spec import ConfigError, Spec, config_dict
from sfm_match.stages.executor import num_cores, resolve_device
from sfm_match.stages.progress import Progress, no_progress
from sfm_match.stages.recipe import Recipe


@dataclass
class _Stopwatch:
    """How long each part took, in seconds of wall time."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = round(time.perf_counter() - start, 3)


def run_benchmark(
    name: str,
    data: str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    protocol: str = "",
    options: Mapping[str, Any] | None = None,
    index: str | Path | None = None,
    scenes: Collection[str] = (),
    device: str = "auto",
    threads: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Run a benchmark and return its results, ready for JSON.

    What is found in the images is kept in stores below `out`; what is there already is not
    computed again, whatever the estimators and thresholds.

    Args:
        name: one of `sfm_match.benchmarks.catalogue.BENCHMARKS`.
        data: the data set's folder, in the layout of `datasets/README.md`.
        recipe: extractor, matcher, refiner, tracks, verification, mapper and seed.
        out: the folder of the stores.
        protocol: of the benchmark; empty for its first.
        options: settings that differ from the protocol's (`sfm_match.benchmarks.settings`).
        index: the folder of the index files, where they are not in `data`.
        scenes: scenes, sequences or parts to take; all if empty.
        device: the torch device; `auto` is a GPU where there is one.
        threads: how many processor cores to use; None for all.
        progress: shows the progress.

    Raises:
        ConfigError: a setting is wrong, or the data are not as they must be.
        ModelError: a true model cannot be read.
    """
    quiet_colmap()
    root, folder = Path(data), Path(out)
    if not root.is_dir():
        raise ConfigError(f"--data {root}: no such folder")
    protocol, config = protocol_of(name, protocol, options or {})
    threads = num_cores() if threads is None else threads
    machine = Machine(resolve_device(device), threads, progress)
    watch = _Stopwatch()
    with watch("read"):
        place = None if index is None else Path(index)
        dataset = find_benchmark(name).read(root, place, config, scenes)
    if isinstance(dataset, HomographySet):
        assert isinstance(config, HomographyConfig)
        runs, matched = _run_homographies(dataset, config, recipe, folder, machine, watch)
    else:
        assert not isinstance(config, HomographyConfig)
        runs, matched = _run_poses(dataset, config, recipe, folder, machine, watch)
    results = {
        "benchmark": name,
        "data": str(data),
        "protocol": protocol,
        "settings": config_dict(config),
        "scenes": sorted(scenes),
        "left_out": list(dataset.left_out) if isinstance(dataset, HomographySet) else [],
        **_method(recipe, matched, folder),
        "runs": runs,
        "seconds": watch.seconds,
        "versions": versions(),
        "hardware": hardware(machine.device, threads),
    }
    matched.stores.close()
    return results


def _method(recipe: Recipe, matched: Matched, folder: Path) -> dict[str, Any]:
    """Return what was found and how, ready for JSON."""
    features = matched.stores.features
    return {
        "features": None if features is None else _described(recipe.features),
        "matcher": _described(recipe.matcher),
        "refiner": _described(recipe.refiner),
        "recipe": json.loads(json.dumps(recipe.tables, default=str)),
        "seed": recipe.seed,
        "num_images": len(matched.shown.sources.images),
        "num_keypoints": _mean_keypoints(matched),
        "failures": dict(matched.stores.failures),
        "ms": {
            "extract": None if features is None else mean_milliseconds(folder, features.folder),
            "match": mean_milliseconds(folder, matched.stores.matches.folder),
        },
    }


def _described(spec: Spec | None) -> dict[str, Any] | None:
    if spec is None:
        return None
    payload = {key: value for key, value in spec.payload.items() if key != "inputs"}
    return {**payload, "fingerprint": spec.fingerprint}


def _mean_keypoints(matched: Matched) -> float | None:
    found = [matched.reader.keypoints(name) for name in matched.stores.digests]
    lengths = [len(points) for points in found if points is not None]
    return sum(lengths) / len(lengths) if lengths else None


def _run_homographies(
    data: HomographySet,
    config: HomographyConfig,
    recipe: Recipe,
    folder: Path,
    machine: Machine,
    watch: Callable[[str], Any],
) -> tuple[list[Run], Matched]:
    homography_settings(config)  # whether they are right is known before the work
    pairs = [pair.names for pair in data.pairs]
    shown = show_images(
        data.root, set(chain.from_iterable(pairs)), config.resize, config.interpolation
    )
    with watch("match"):
        matched = match_images(folder, data.root, pairs, shown, recipe, machine)
    with watch("score"):
        return score_homographies(data, matched, config, recipe.seed, machine), matched


def _run_poses(
    data: PoseSet,
    config: PairConfig | SceneConfig,
    recipe: Recipe,
    folder: Path,
    machine: Machine,
    watch: Callable[[str], Any],
) -> tuple[list[Run], Matched]:
    tasks = config.tasks if isinstance(config, SceneConfig) else ("pairs",)
    if not tasks:
        raise ConfigError("tasks: there is nothing to do")
    pose_settings(config, recipe.seed)
    subsets: list[tuple[Scene, Subsets]] = []
    if isinstance(config, SceneConfig) and "subsets" in tasks:
        subsets = [(scene, subsets_of(scene, config, recipe.seed)) for scene in data.scenes]
    pairs = _pairs_to_match(data, config, tasks, subsets)
    names = set(chain.from_iterable(pairs))
    shown = show_images(data.root, names, config.resize, config.interpolation)
    true = fit_cameras(data.pairs, shown)
    with watch("match"):
        matched = match_images(folder, data.root, pairs, shown, recipe, machine)
    runs: list[Run] = []
    if "pairs" in tasks:
        with watch("score"):
            runs += score_poses(true, matched, config, recipe.seed, machine)
    if isinstance(config, SceneConfig):
        bench = Workbench(folder, data.root, matched, recipe, machine)
        if subsets:
            with watch("subsets"):
                runs += score_subsets(subsets, bench, config)
        if "model" in tasks:
            with watch("model"):
                runs.append(score_models(data.scenes, bench, config))
        if "triangulation" in tasks:
            with watch("triangulation"):
                runs.append(score_triangulation(data.scenes, bench, config))
    return runs, matched


def _pairs_to_match(
    data: PoseSet,
    config: Config,
    tasks: Collection[str],
    subsets: list[tuple[Scene, Subsets]],
) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    if "pairs" in tasks:
        pairs += [pair.names for pair in data.pairs.truth.pairs]
    for _, of_scene in subsets:
        for names in of_scene.values():
            pairs += combinations(sorted(names), 2)
    if isinstance(config, SceneConfig) and {"model", "triangulation"} & set(tasks):
        for scene in data.scenes:
            pairs += chosen_pairs(scene, config.min_shared_points)
    return pairs
