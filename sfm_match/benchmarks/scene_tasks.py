"""Models of scenes and of their subsets, and triangulated points, scored against the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from sfm_match.benchmarks.datasets import Scene, chosen_pairs
from sfm_match.benchmarks.measures import Row, Run, area_under_curve, mean_accuracy, mean_of
from sfm_match.benchmarks.reconstruction import (
    Workbench,
    posed_model,
    reconstruct,
    true_cameras,
    unknown_cameras,
)
from sfm_match.benchmarks.settings import SceneConfig
from sfm_match.geometry import poses
from sfm_match.geometry.point_clouds import accuracy, completeness
from sfm_match.io.model import read_model
from sfm_match.spec import ConfigError, library_versions
from sfm_match.stages.evaluate import ErrorSummary, evaluate_model, poses_by_name
from sfm_match.stages.pair_measures import seed_of
from sfm_match.stages.pair_results import FAILED
from sfm_match.types import ArrayF64, Pair

Subsets = Mapping[str, tuple[str, ...]]

# A baseline below this part of the largest translation is zero up to rounding.
_ZERO_BASELINE = 1e-12


def subsets_of(scene: Scene, config: SceneConfig, seed: int) -> Subsets:
    """Return the subsets of a scene: those that come with it, or else drawn ones.

    A drawn subset starts with an image at random and takes images at random that see enough points
    of the true model together with one that it has, where the model has points; or else any.
    """
    if scene.subsets:
        return scene.subsets
    names = scene.names
    near: dict[str, set[str]] = {name: set(names) - {name} for name in names}
    if scene.model.num_points3D():
        near = {name: set() for name in names}
        for name0, name1 in chosen_pairs(scene, max(config.min_shared_points, 1)):
            near[name0].add(name1)
            near[name1].add(name0)
    found: dict[str, tuple[str, ...]] = {}
    for size, count in zip(config.subset_sizes, config.subset_counts, strict=True):
        for number in range(count if size <= len(names) else 0):
            key = f"{size}bag_{number:03d}"
            rng = np.random.default_rng(seed_of(seed, scene.name, key))
            found[key] = _draw(names, near, size, rng)
    if not found:
        raise ConfigError(
            f"{scene.name}: has {len(names)} images, fewer than any of subset_sizes = "
            f"{list(config.subset_sizes)}"
        )
    return found


def _draw(
    names: Sequence[str], near: Mapping[str, set[str]], size: int, rng: np.random.Generator
) -> tuple[str, ...]:
    drawn = [names[int(rng.integers(len(names)))]]
    while len(drawn) < size:
        candidates = sorted(set().union(*(near[name] for name in drawn)) - set(drawn))
        if not candidates:  # a part of the scene that is smaller than the subset
            candidates = sorted(set(names) - set(drawn))
        drawn.append(candidates[int(rng.integers(len(candidates)))])
    return tuple(sorted(drawn))


def score_subsets(
    scenes: Sequence[tuple[Scene, Subsets]], bench: Workbench, config: SceneConfig
) -> list[Run]:
    """Reconstruct every subset and compare the poses of its pairs with the truth; by its size."""
    rows: dict[int, list[Row]] = {}
    registered: dict[int, list[int]] = {}
    total = sum(len(subsets) for _, subsets in scenes)
    with bench.machine.progress("subsets", total) as steps:
        for scene, subsets in scenes:
            true = poses_by_name(scene.model, Path(scene.name))
            for key, names in subsets.items():
                folder = bench.folder / "models" / _label(bench, config) / scene.name / key
                found = _map_subset(bench, config, scene, folder, names)
                group = f"{scene.name}/{key}"
                rows.setdefault(len(names), []).extend(_pair_rows(names, found, true, group))
                registered.setdefault(len(names), []).append(len(found))
                steps(1)
    return [
        {
            **_mapper(bench, config.intrinsics),
            "task": "subsets",
            "subset_size": size,
            "num_subsets": len(registered[size]),
            "num_registered": float(np.mean(registered[size])),
            "num_pairs": len(rows[size]),
            "num_failed": sum(row["rotation_error"] is None for row in rows[size]),
            "auc": area_under_curve(rows[size], config.auc),
            "maa": mean_accuracy(rows[size], config.maa),
            "pairs": rows[size],
        }
        for size in sorted(rows)
    ]


def _label(bench: Workbench, config: SceneConfig) -> str:
    return f"{bench.recipe.verify.fingerprint}-{bench.recipe.mapper.name}-{config.intrinsics}"


def _mapper(bench: Workbench, intrinsics: str) -> dict[str, Any]:
    return {
        "estimator": bench.recipe.mapper.name,
        "estimator_version": library_versions(["pycolmap"])["pycolmap"],
        "intrinsics": intrinsics,
        "threshold": None,
    }


def _map_subset(
    bench: Workbench, config: SceneConfig, scene: Scene, folder: Path, names: Sequence[str]
) -> dict[str, ArrayF64]:
    """Return the poses of a subset's largest model; none where there is no model."""
    there = [name for name in names if name in bench.matched.stores.digests]
    if config.intrinsics == "truth":
        cameras = true_cameras(scene.model, bench, there)
    else:
        cameras = unknown_cameras(bench, there)
    pairs = [Pair.of(*pair) for pair in combinations(sorted(there), 2)]
    recipe = bench.recipe
    options = {"min_model_size": min(3, len(names)), **recipe.mapper_options}
    report = reconstruct(bench, folder, pairs, cameras, recipe.mapper.name, options)
    if not report.models:
        return {}
    return poses_by_name(read_model(folder / "model"), folder / "model")


def _pair_rows(
    names: Sequence[str],
    found: Mapping[str, ArrayF64],
    true: Mapping[str, ArrayF64],
    group: str,
) -> list[Row]:
    size = max(float(np.linalg.norm(pose[:, 3])) for pose in true.values())
    return [
        {"group": group, "name0": a, "name1": b, **_pair_errors(a, b, found, true, size)}
        for a, b in combinations(sorted(names), 2)
    ]


def _pair_errors(
    a: str, b: str, found: Mapping[str, ArrayF64], true: Mapping[str, ArrayF64], size: float
) -> dict[str, float | None]:
    if a not in found or b not in found:
        return {"error": FAILED, "rotation_error": None, "translation_error": None}
    wanted = poses.relative_pose(true[a], true[b])
    if np.linalg.norm(wanted[:, 3]) <= _ZERO_BASELINE * size:
        wanted[:, 3] = 0
    pose = poses.relative_pose(found[a], found[b])
    direction = None
    if wanted[:, 3].any():
        direction = float(poses.direction_error(pose[:, 3], wanted[:, 3], sign_ambiguous=True))
    return {
        "error": float(poses.pose_error(pose, wanted, sign_ambiguous=True)),
        "rotation_error": float(poses.rotation_error(pose[:, :3], wanted[:, :3])),
        "translation_error": direction,
    }


def score_models(scenes: Sequence[Scene], bench: Workbench, config: SceneConfig) -> Run:
    """Reconstruct every scene with the true intrinsics, and compare all its poses."""
    found = []
    with bench.machine.progress("models", len(scenes)) as steps:
        for scene in scenes:
            folder = bench.folder / "models" / _label(bench, config) / scene.name / "all"
            names = [n for n in scene.names if n in bench.matched.stores.digests]
            cameras = true_cameras(scene.model, bench, names)
            pairs = [Pair.of(*p) for p in chosen_pairs(scene, config.min_shared_points)]
            recipe = bench.recipe
            report = reconstruct(
                bench, folder, pairs, cameras, recipe.mapper.name, recipe.mapper_options
            )
            found.append(_model_numbers(scene, folder, report.reason, config))
            steps(1)
    return {**_mapper(bench, "truth"), "task": "model", "scenes": found}


def _model_numbers(
    scene: Scene, folder: Path, reason: str | None, config: SceneConfig
) -> dict[str, Any]:
    numbers: dict[str, Any] = {"scene": scene.name, "num_images": len(scene.names)}
    if reason is not None:
        return {**numbers, "num_registered": 0, "reason": reason}
    truth = write_model(scene.model, folder / "truth")
    e = evaluate_model(folder / "model", truth)
    return {
        **numbers,
        "num_registered": e.num_registered,
        "position_error": _summary(e.position),
        "rotation_error": _summary(e.rotation),
        "auc": e.to_dict()["auc"],
        "num_points": e.num_points,
        "mean_track_length": e.mean_track_length,
        "mean_reprojection_error": e.mean_reprojection_error,
        "images": e.to_dict()["images"],
    }


def _summary(errors: ErrorSummary | None) -> dict[str, float] | None:
    if errors is None:
        return None
    return {"mean": errors.mean, "median": errors.median, "max": errors.max}


def write_model(model: pycolmap.Reconstruction, folder: Path) -> Path:
    """Write a model into a folder, which is made; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model.write(folder)
    return folder


def score_triangulation(scenes: Sequence[Scene], bench: Workbench, config: SceneConfig) -> Run:
    """Triangulate every scene's points from the true poses, and compare them with its scans.

    Raises:
        ConfigError: a scene has no scans.
    """
    without = [scene.name for scene in scenes if scene.scans is None]
    if without:
        raise ConfigError(f"tasks: {without[0]} has no laser scans to compare triangulation with")
    found = []
    with bench.machine.progress("triangulate", len(scenes)) as steps:
        for scene in scenes:
            folder = bench.folder / "models" / _label(bench, config) / scene.name / "triangulation"
            points = _triangulate(scene, bench, config, folder)
            assert scene.scans is not None  # checked above
            found.append({"scene": scene.name, **_cloud_numbers(points, scene.scans, config)})
            steps(1)
    return {
        **_mapper(bench, "truth"),
        "estimator": "triangulation",
        "task": "triangulation",
        **{name: _mean_by_key(found, name) for name in ("accuracy", "completeness")},
        "num_points": mean_of(found, "num_points"),
        "scenes": found,
    }


def _triangulate(scene: Scene, bench: Workbench, config: SceneConfig, folder: Path) -> ArrayF64:
    names = [name for name in scene.names if name in bench.matched.stores.digests]
    cameras = true_cameras(scene.model, bench, names)
    truth = write_model(posed_model(scene.model, cameras, names), folder / "truth")
    pairs = [Pair.of(*pair) for pair in chosen_pairs(scene, config.min_shared_points)]
    options = {"poses": str(truth)}
    report = reconstruct(bench, folder, pairs, cameras, "triangulation", options)
    if not report.models:
        return np.empty((0, 3))
    points = read_model(folder / "model").points3D.values()
    return np.array([point.xyz for point in points], np.float64).reshape(-1, 3)


def _cloud_numbers(
    points: ArrayF64, scans: Callable[[], Any], config: SceneConfig
) -> dict[str, Any]:
    clouds = scans()
    measures = {"accuracy": accuracy, "completeness": completeness}
    numbers: dict[str, Any] = {"num_points": len(points)}
    for name, measure in measures.items():
        values = measure(clouds, points, config.tolerances, config.voxel_size)
        numbers[name] = {f"{t:g}": float(v) for t, v in zip(config.tolerances, values, strict=True)}
    return numbers


def _mean_by_key(rows: Sequence[Row], column: str) -> dict[str, float]:
    return {key: float(np.mean([row[column][key] for row in rows])) for key in rows[0][column]}
