"""The fine stage of a LoFTR without any refiner, on pairs of images with true poses.

    python -m tests.benchmarks.bench_fine SCENE [WEIGHTS ...] [--threshold P] [--max-angle DEGREES]

SCENE is a folder with `images` and `gt`, a COLMAP model. Matches are found on both images' grids
(`refine` both). Distances are those of the farther of a match's points from its true epipolar line,
in pixels, the median over all matches of all pairs; poses are PoseLib's with a threshold of 1 px.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfm_match.geometry import epipolar, poses
from sfm_match.geometry.relative_pose import estimate_relative_pose
from sfm_match.io.images import read_image
from sfm_match.spec import Spec
from sfm_match.types import ArrayF32, ArrayF64, View
from tests.benchmarks.bench_graph import FAILED, THRESHOLDS, Scene

THRESHOLD = 1.0


def judge(
    scene: Scene, a: str, b: str, points0: ArrayF32, points1: ArrayF32
) -> tuple[ArrayF64, float]:
    """Return the distances from the epipolar lines in pixels, and the pose error in degrees."""
    rays0, rays1 = scene.rays(a, points0), scene.rays(b, points1)
    focals = scene.focal(a), scene.focal(b)
    true = poses.relative_pose(scene.poses[a], scene.poses[b])
    away = epipolar.epipolar_line_distances(rays0, rays1, epipolar.essential_from_pose(true))
    distances = np.maximum(away[0] * focals[0], away[1] * focals[1])
    found = estimate_relative_pose(rays0, rays1, focals, threshold=THRESHOLD)
    return distances, FAILED if found is None else float(
        poses.pose_error(found.cam1_from_cam0, true)
    )


def bench(scene: Scene, folder: Path, pairs: list[tuple[str, str]], matcher: Any) -> str:
    images = {name: read_image(folder / "images" / name).pixels for name in scene.names}
    encoded = {name: matcher.encode(View(image, None)) for name, image in images.items()}
    judged = []
    for a, b in pairs:
        (found,) = matcher.match([(encoded[a], encoded[b])])
        judged.append(judge(scene, a, b, found.points0, found.points1))
    distances = np.concatenate([distances for distances, _ in judged])
    auc = poses.auc(np.array([error for _, error in judged]), THRESHOLDS)
    numbers = " | ".join(f"{value:.1f}" for value in auc)
    close = 100 * (distances < 1).mean()
    return (
        f"{len(distances) / len(pairs):.0f} | {np.median(distances):.2f} | {close:.0f} | {numbers}"
    )


def main(folder: Path, names: list[str], threshold: float, max_angle: float) -> None:
    torch.set_num_threads(1)
    scene = Scene.load(folder)
    pairs = scene.pairs(max_angle)
    print(f"{folder.name}, {len(pairs)} pairs, threshold {threshold:g}")
    print("| weights | matches | median, px | % within 1 px | AUC@5 | AUC@10 | AUC@20 |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        options: dict[str, Any] = {"weights": name, "threshold": threshold}
        if name != "coarse-16":  # which has no fine stage
            options["refine"] = "both"
        matcher = Spec.parse("matchers", "loftr", options).build()
        print(f"| {name} | {bench(scene, folder, pairs, matcher)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("weights", nargs="*", default=["coarse-16", "coarse-16-fine"])
    parser.add_argument("--threshold", type=float, default=0.03)
    parser.add_argument("--max-angle", type=float, default=60.0)
    chosen = parser.parse_args()
    main(chosen.scene, chosen.weights, chosen.threshold, chosen.max_angle)
