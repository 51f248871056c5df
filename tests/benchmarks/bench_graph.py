"""Graph matching against nearest neighbours and AdaLAM, on pairs of images with true poses.

    python -m tests.benchmarks.bench_graph SCENE [FEATURES ...] [--max-angle DEGREES]
        [--generative WEIGHTS]

SCENE is a folder with `images` and `gt`, a COLMAP model. FEATURES are some of sift4000, sift1000,
r2d2 and aliked, or all of them. A match is correct within 2 px of the true epipolar lines of both
its points. Poses are PoseLib's with a threshold of 1.5 px. Milliseconds are processor time of
`match` for one pair on one thread; what is encoded once per image is left out. Intervals hold 90
percent of 2,000 bootstrap samples of the pairs, of the difference to mutual nearest neighbours.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap
import torch

from sfm_match.geometry import epipolar, poses
from sfm_match.geometry.relative_pose import estimate_relative_pose
from sfm_match.io.images import read_image
from sfm_match.io.model import read_model
from sfm_match.spec import Spec
from sfm_match.types import ArrayF64, Features, Matches, View

FEATURES: dict[str, tuple[str, dict[str, Any]]] = {
    "sift4000": ("sift", {"max_keypoints": 4000}),
    "sift1000": ("sift", {"max_keypoints": 1000}),
    "r2d2": ("r2d2", {"max_keypoints": 2000, "resize": 640}),
    "aliked": ("aliked", {"max_keypoints": 2000}),
}
MATCHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "mutual NN": ("nearest", {}),
    "ratio 0.9": ("nearest", {"ratio": 0.9}),
    "AdaLAM": ("adalam", {}),
    "spectral": ("graph", {"solver": "spectral"}),
    "cascade, 1 iteration": ("graph", {"iterations": 1}),
    "cascade": ("graph", {}),
}
WIDE_DEGREES = 20
PIXELS = 2.0
FAILED = 180.0
THRESHOLDS = (5, 10, 20)


@dataclass(frozen=True)
class Scene:
    """The true cameras and poses (cam_from_world) of a folder of images, by name."""

    names: list[str]
    cameras: dict[str, pycolmap.Camera]
    poses: dict[str, ArrayF64]

    @classmethod
    def load(cls, folder: Path) -> Scene:
        model = read_model(folder / "gt")
        images = {image.name: image for image in model.images.values()}
        return cls(
            sorted(images),
            {name: model.cameras[image.camera_id] for name, image in images.items()},
            {name: image.cam_from_world().matrix() for name, image in images.items()},
        )

    def pairs(self, max_angle: float) -> list[tuple[str, str]]:
        everyone = itertools.combinations(self.names, 2)
        return [pair for pair in everyone if self.angle(*pair) <= max_angle]

    def angle(self, a: str, b: str) -> float:
        return float(poses.rotation_error(self.poses[a][:, :3], self.poses[b][:, :3]))

    def rays(self, name: str, points: npt.NDArray[np.float32]) -> ArrayF64:
        rays = self.cameras[name].cam_from_img(points.astype(np.float64))
        return np.asarray(rays, np.float64).reshape(-1, 2)

    def focal(self, name: str) -> float:
        return float(self.cameras[name].mean_focal_length())

    def judge(
        self, a: str, b: str, features: dict[str, Features], matches: Matches
    ) -> tuple[int, int, float]:
        """Return the numbers of correct and of all matches, and the pose error in degrees."""
        rays0 = self.rays(a, features[a].keypoints[matches.indices[:, 0]])
        rays1 = self.rays(b, features[b].keypoints[matches.indices[:, 1]])
        true = poses.relative_pose(self.poses[a], self.poses[b])
        away0, away1 = epipolar.epipolar_line_distances(
            rays0, rays1, epipolar.essential_from_pose(true)
        )
        focals = self.focal(a), self.focal(b)
        correct = (away0 * focals[0] < PIXELS) & (away1 * focals[1] < PIXELS)
        found = estimate_relative_pose(rays0, rays1, focals, threshold=1.5)
        error = FAILED if found is None else float(poses.pose_error(found.cam1_from_cam0, true))
        return int(correct.sum()), len(matches), error


def bench(
    scene: Scene, features: dict[str, Features], pairs: list[tuple[str, str]]
) -> dict[str, ArrayF64]:
    """Return for each matcher (P, 4): correct matches, matches, pose error, milliseconds."""
    results = {}
    for title, (name, options) in MATCHERS.items():
        matcher = Spec.parse("matchers", name, options).build()
        encoded = {n: matcher.encode(View(None, features[n])) for n in scene.names}
        matcher.match([(encoded[pairs[0][0]], encoded[pairs[0][1]])])
        rows = []
        for a, b in pairs:
            start = time.process_time()
            (matches,) = matcher.match([(encoded[a], encoded[b])])
            spent = time.process_time() - start
            rows.append((*scene.judge(a, b, features, matches), spent * 1e3))
        results[title] = np.array(rows)
    return results


def summary(rows: ArrayF64) -> ArrayF64:
    """Return mean correct matches, mean precision, the AUCs, mean milliseconds."""
    correct, num, errors, spent = rows.T
    precision = (correct / np.maximum(num, 1)).mean()
    return np.array([correct.mean(), precision, *poses.auc(errors, THRESHOLDS), spent.mean()])


def interval(rows: ArrayF64, base: ArrayF64) -> ArrayF64:
    """Return (2, 6), the 5th and 95th percentile of the summaries' difference."""
    rng = np.random.default_rng(0)
    samples = rng.integers(len(rows), size=(2000, len(rows)))
    spread = [summary(rows[s]) - summary(base[s]) for s in samples]
    return np.asarray(np.percentile(spread, (5, 95), axis=0))


def show(title: str, results: dict[str, ArrayF64], chosen: npt.NDArray[np.bool_]) -> None:
    print(f"\n{title}: {chosen.sum()} pairs")
    print("| | correct | precision | AUC@5 | AUC@10 | AUC@20 | ms | - mutual NN: correct | AUC@5 |")
    print("|---|---|---|---|---|---|---|---|---|")
    base = results["mutual NN"][chosen]
    for name, rows in results.items():
        correct, precision, *auc, spent = summary(rows[chosen])
        low, high = interval(rows[chosen], base)
        numbers = " | ".join(f"{value:.1f}" for value in auc)
        print(
            f"| {name} | {correct:.0f} | {precision:.2f} | {numbers} | {spent:.0f} | "
            f"[{low[0]:+.0f}, {high[0]:+.0f}] | [{low[2]:+.1f}, {high[2]:+.1f}] |",
            flush=True,
        )


def main(folder: Path, names: list[str], max_angle: float) -> None:
    torch.set_num_threads(1)
    scene = Scene.load(folder)
    pairs = scene.pairs(max_angle)
    is_wide = np.array([scene.angle(*pair) > WIDE_DEGREES for pair in pairs])
    for name in names:
        kind, options = FEATURES[name]
        extractor = Spec.parse("extractors", kind, options).build()
        features = {n: extractor(read_image(folder / "images" / n).pixels) for n in scene.names}
        results = bench(scene, features, pairs)
        show(f"{folder.name}, {name}", results, np.ones(len(pairs), bool))
        show(f"{folder.name}, {name}, more than {WIDE_DEGREES} degrees", results, is_wide)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", type=Path)
    parser.add_argument("features", nargs="*", default=list(FEATURES))
    parser.add_argument("--max-angle", type=float, default=180.0)
    parser.add_argument("--generative", help="weights of generative_graph for these features")
    arguments = parser.parse_args()
    if arguments.generative:
        MATCHERS["generative graph"] = ("generative_graph", {"weights": arguments.generative})
    main(arguments.scene, arguments.features, arguments.max_angle)
