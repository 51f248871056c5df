"""Extraction, matching, verification and mapping against pycolmap's own functions for them.

    python -m tests.benchmarks.bench_colmap IMAGES [TRUTH] [-o SETTING ...] [--until STAGE]

Both do the same work on the same images with the same cameras, stage by stage in turn; each figure
is the smallest of the rounds. pycolmap's functions run in a process of their own, as in a script
that imports nothing else, and once more in a process that keeps freed memory as our command line
does. Its matcher is approximate by default; its exact one takes minutes for a dozen images, so it
is timed on three images only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pycolmap

from sfm_match import Recipe, Run
from sfm_match.allocator import keep_freed_memory
from sfm_match.logs import quiet_colmap
from sfm_match.stages.evaluate import evaluate_model

STAGES = ("extract", "match", "verify", "map")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Colmap:
    """pycolmap's own road from images to a model."""

    def __init__(self, images: Path, folder: Path, recipe: Recipe) -> None:
        self.images, self.folder, self.recipe = images, folder, recipe
        self.database = folder / "colmap.db"
        folder.mkdir()

    def extract(self) -> None:
        camera = self.recipe.camera
        reader = pycolmap.ImageReaderOptions(camera_model=camera.model)
        if camera.params is not None:
            reader.camera_params = ",".join(map(repr, camera.params))
        mode = pycolmap.CameraMode.__members__[camera.mode.upper()]
        pycolmap.extract_features(
            self.database, self.images, camera_mode=mode, reader_options=reader
        )

    def match(self) -> None:
        options = pycolmap.FeatureMatchingOptions(skip_geometric_verification=True)
        pycolmap.match_exhaustive(self.database, matching_options=options)

    def verify(self) -> None:
        pycolmap.geometric_verification(self.database)

    def map(self) -> None:
        options = pycolmap.IncrementalPipelineOptions()
        if self.recipe.camera.fixed:
            with pycolmap.Database.open(self.database) as database:
                ids = {camera.camera_id for camera in database.read_all_cameras()}
            options.constant_cameras = ids
            options.mapper.abs_pose_refine_focal_length = False
            options.mapper.abs_pose_refine_extra_params = False
        pycolmap.incremental_mapping(self.database, self.images, self.folder, options)


def bench_exact_matching(images: Path, folder: Path) -> float:
    names = sorted(path.name for path in images.iterdir())[:3]
    database = folder / "three.db"
    pycolmap.extract_features(database, images, image_names=names)
    options = pycolmap.FeatureMatchingOptions(skip_geometric_verification=True)
    options.sift.cpu_brute_force_matcher = True
    return seconds(lambda: pycolmap.match_exhaustive(database, matching_options=options)) / 3


def process_of_its_own(*prepare: Callable[[], None]) -> ProcessPoolExecutor:
    """Return one fresh process that has imported what it needs."""
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    for function in (quiet_colmap, *prepare):
        pool.submit(function).result()
    return pool


def main(
    images: Path, truth: Path | None, settings: Sequence[str], stages: Sequence[str], rounds: int
) -> None:
    keep_freed_memory()
    quiet_colmap()
    recipe = Recipe.load("sift", *settings, images={"path": str(images)})
    others = {"pycolmap": process_of_its_own(), "kept": process_of_its_own(keep_freed_memory)}
    best: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds):
            run = Run(Path(name) / f"ours{number}", recipe)
            colmap = {who: Colmap(images, Path(name) / f"{who}{number}", recipe) for who in others}
            run.workspace.sources  # noqa: B018  # headers and digests are read before the clock starts
            for stage in stages:
                took = {
                    who: pool.submit(seconds, getattr(colmap[who], stage)).result()
                    for who, pool in others.items()
                }
                took["ours"] = seconds(getattr(run, stage))
                for who, value in took.items():
                    best[who, stage] = min(best.get((who, stage), value), value)
                if stage == "extract":
                    run.pairs()
                if stage == "verify":
                    run.import_features()
            quiet_colmap()
        for stage in stages:
            ours = best["ours", stage]
            for who, title in (("pycolmap", "pycolmap"), ("kept", "keeping freed memory")):
                theirs = best[who, stage]
                print(f"{stage:8} ours {ours:.2f} s, {title} {theirs:.2f} s: {ours / theirs:.3f}")
        if "match" in stages:
            num_pairs = run.workspace.results.content["stages"]["pairs"]["pairs"]
            exact = bench_exact_matching(images, Path(name))
            ours = best["ours", "match"] / num_pairs
            print(f"one pair exactly: ours {ours:.3f} s, pycolmap {exact:.2f} s")
        if truth is not None and "map" in stages:
            for title, model in (
                ("ours", run.workspace.out / "model"),
                ("pycolmap", colmap["pycolmap"].folder / "0"),
            ):
                found = evaluate_model(model, truth).to_dict()
                print(title, {k: round(v, 2) for k, v in found["auc"].items()})
    for pool in others.values():
        pool.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("truth", type=Path, nargs="?")
    parser.add_argument("-o", dest="settings", action="append", default=[])
    parser.add_argument("--until", choices=STAGES, default="map")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    until = STAGES.index(chosen.until) + 1
    main(chosen.images, chosen.truth, chosen.settings, STAGES[:until], chosen.rounds)
