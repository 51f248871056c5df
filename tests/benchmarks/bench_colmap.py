"""Extraction, matching, verification and mapping against pycolmap's own functions for them.

    python -m tests.benchmarks.bench_colmap IMAGES [TRUTH] [-o SETTING ...] [--until STAGE] [--warm]

Both do the same work on the same images with the same cameras, stage by stage in turn, another one
first in every round; the figures are the smallest and the median of the rounds. Each side has a
process of its own that has imported what it needs, a new one in every round, as for a folder of
photographs; with `--warm` the same one in all rounds, where the memory of the last round is at
hand. pycolmap runs as in a script that imports nothing else, and once more in a process that keeps
freed memory as our command line does. Its matcher is approximate by default; its exact one takes
minutes for a dozen images, so it is timed on three images only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

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


class Ours:
    """Our road from images to a model."""

    def __init__(self, images: Path, folder: Path, recipe: Recipe) -> None:
        self.run = Run(folder, recipe)
        self.run.workspace.sources  # noqa: B018  # headers and digests are read before the clock starts

    def before(self, stage: str) -> None:
        if stage == "match":
            self.run.pairs()
        if stage == "map":
            self.run.import_features()

    def do(self, stage: str) -> None:
        getattr(self.run, stage)()


class Colmap:
    """pycolmap's own road from images to a model."""

    def __init__(self, images: Path, folder: Path, recipe: Recipe) -> None:
        self.images, self.folder, self.recipe = images, folder, recipe
        self.database = folder / "colmap.db"
        folder.mkdir()

    def before(self, stage: str) -> None:
        """Do nothing: `match` and `map` need nothing else."""

    def do(self, stage: str) -> None:
        getattr(self, stage)()

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


_begun: list[Ours | Colmap] = []


def begin(side: type[Ours | Colmap], images: Path, folder: Path, recipe: Recipe) -> None:
    """Get ready, in the process that does the work."""
    quiet_colmap()
    _begun.append(side(images, folder, recipe))


def seconds_of(stage: str) -> float:
    _begun[-1].before(stage)
    return seconds(lambda: _begun[-1].do(stage))


def bench_exact_matching(images: Path, folder: Path) -> float:
    names = sorted(path.name for path in images.iterdir())[:3]
    database = folder / "three.db"
    pycolmap.extract_features(database, images, image_names=names)
    options = pycolmap.FeatureMatchingOptions(skip_geometric_verification=True)
    options.sift.cpu_brute_force_matcher = True
    return seconds(lambda: pycolmap.match_exhaustive(database, matching_options=options)) / 3


@dataclass(frozen=True)
class Contender:
    """Who is timed, and how."""

    side: type[Ours | Colmap]
    title: str
    keeps_freed_memory: bool = False

    def process(self) -> ProcessPoolExecutor:
        """Return one fresh process that has imported what it needs."""
        prepare = keep_freed_memory if self.keeps_freed_memory else quiet_colmap
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        pool.submit(prepare).result()
        return pool


CONTENDERS = {
    "ours": Contender(Ours, "ours", True),
    "pycolmap": Contender(Colmap, "pycolmap"),
    "kept": Contender(Colmap, "keeping freed memory", True),
}


def measure(
    recipe: Recipe, images: Path, folder: Path, stages: Sequence[str], rounds: int, warm: bool
) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of each contender's stages in all rounds; `folder` gets the results."""
    took: dict[tuple[str, str], list[float]] = {}
    pools: dict[str, ProcessPoolExecutor] = {}
    for number in range(rounds):
        for who, contender in CONTENDERS.items():
            if not (warm and number):
                pools[who] = contender.process()
            out = folder / f"{who}{number}"
            pools[who].submit(begin, contender.side, images, out, recipe).result()
        first = number % len(pools)  # takes memory that the system has to find
        order = [*pools, *pools][first : first + len(pools)]
        for stage, who in itertools.product(stages, order):
            took.setdefault((who, stage), []).append(pools[who].submit(seconds_of, stage).result())
        if not warm or number == rounds - 1:
            for pool in pools.values():
                pool.shutdown()
    return took


def show(took: dict[tuple[str, str], list[float]], stages: Sequence[str]) -> None:
    for stage, who in itertools.product(stages, ("pycolmap", "kept")):
        print(f"{stage:8} {CONTENDERS[who].title:20}", end="")
        for kind in (min, median):
            ours, theirs = kind(took["ours", stage]), kind(took[who, stage])
            print(
                f"  {kind.__name__} {ours:.2f} against {theirs:.2f} s: {ours / theirs:.3f}", end=""
            )
        print()


def main(
    images: Path,
    truth: Path | None,
    settings: Sequence[str],
    stages: Sequence[str],
    rounds: int,
    warm: bool,
) -> None:
    quiet_colmap()
    recipe = Recipe.load("sift", *settings, images={"path": str(images)})
    with tempfile.TemporaryDirectory() as name:
        took = measure(recipe, images, Path(name), stages, rounds, warm)
        show(took, stages)
        last = Path(name) / f"ours{rounds - 1}"
        if "match" in stages:
            results = json.loads((last / "results.json").read_text())
            exact = bench_exact_matching(images, Path(name))
            ours = min(took["ours", "match"]) / results["stages"]["pairs"]["pairs"]
            print(f"one pair exactly: ours {ours:.3f} s, pycolmap {exact:.2f} s")
        if truth is not None and "map" in stages:
            theirs = Path(name) / f"pycolmap{rounds - 1}" / "0"
            for who, model in (("ours", last / "model"), ("pycolmap", theirs)):
                found = evaluate_model(model, truth).to_dict()
                print(who, {k: round(v, 2) for k, v in found["auc"].items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("truth", type=Path, nargs="?")
    parser.add_argument("-o", dest="settings", action="append", default=[])
    parser.add_argument("--until", choices=STAGES, default="map")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warm", action="store_true")
    chosen = parser.parse_args()
    until = STAGES.index(chosen.until) + 1
    main(chosen.images, chosen.truth, chosen.settings, STAGES[:until], chosen.rounds, chosen.warm)
