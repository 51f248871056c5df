"""How good the relative poses of image pairs are that features, matches and an estimator give.

The measures are SuperGlue's (Sarlin et al., CVPR 2020). The error of a pair is the larger of the
angle between the rotations and the angle between the translations' directions, which count as equal
to their opposites; a pair without a pose has an error of 180 degrees. A match is correct where the
sum of its squared distances from the true epipolar lines of both images, in normalised camera
coordinates, is below 5e-4. A pair's precision is the part of its matches that are correct, its
matching score their number over that of the first image's keypoints.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from sfm_match.geometry.relative_pose import check_estimator, estimator_version
from sfm_match.io.images import list_images
from sfm_match.io.timings import mean_milliseconds
from sfm_match.logs import quiet_colmap
from sfm_match.spec import ConfigError
from sfm_match.stages.executor import num_cores, resolve_device, run_in_threads
from sfm_match.stages.pair_measures import Setting, measure_pair
from sfm_match.stages.pair_results import PairMatches, PairPose, PairsEvaluation, PoseRun
from sfm_match.stages.pair_stores import PairReader, PairStores, fill_pair_stores
from sfm_match.stages.pair_truth import PairTruth, TruePair, read_truth
from sfm_match.stages.progress import Progress, no_progress
from sfm_match.stages.recipe import Recipe
from sfm_match.stages.scan import Sources, scan
from sfm_match.types import Pair


def evaluate_pairs(
    truth: str | Path,
    recipe: Recipe,
    out: str | Path | None = None,
    *,
    estimators: Sequence[str] = ("poselib",),
    thresholds: Sequence[float] = (1.5,),
    min_angle: float = 0.0,
    max_angle: float = 180.0,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress = no_progress,
) -> PairsEvaluation:
    """Extract, match and estimate the pairs of a truth, and compare the poses with it.

    Args:
        truth: a list of pairs in SuperGlue's format (`sfm_match.io.pose_pairs`), or a folder with
            a COLMAP model, of which all pairs are taken.
        recipe: the images, the extractor, the matcher and the seed; nothing else of it is used.
        out: a folder where features and matches are kept; what is there already is not computed
            again. It may be a run's output folder. None for a temporary one.
        estimators: names of `sfm_match.geometry.relative_pose.ESTIMATORS`; each with each
            threshold.
        thresholds: largest distances of an inlier from the epipolar geometry, in pixels of the
            full-size images.
        min_angle: least angle between the two viewing directions of a pair, in degrees.
        max_angle: largest angle.
        device: the torch device; `auto` is a GPU where there is one.
        threads: how many processor cores to use; None for all.
        progress: shows the progress of the stages.

    Raises:
        ConfigError: a setting is wrong, or the truth is or does not fit the images.
        ModelError: the true model cannot be read, or has fewer than two of the images.
        ImageError: there is no folder of images.
        FileNotFoundError: a part of the true model is missing.
    """
    quiet_colmap()
    settings = list(product(estimators, thresholds))
    if not settings:
        raise ConfigError("an evaluation needs an estimator and a threshold")
    for estimator, threshold in settings:
        check_estimator(estimator, threshold, recipe.seed)
    if recipe.images.path is None:
        raise ConfigError("images.path: the folder of images is not set")
    images, device = recipe.images.path, resolve_device(device)
    threads = num_cores() if threads is None else threads
    true = read_truth(Path(truth), images, list_images(images)).within(min_angle, max_angle)
    sources = scan(images, recipe.images.masks, true.names)
    true = true.fitted({name: source.header for name, source in sources.images.items()})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary if out is None else out)
        matched = _find_matches(folder, true, sources, recipe, device, threads, progress)
        try:
            with progress("estimate", len(true.pairs)) as steps:
                found = []
                tasks = _tasks(true.pairs, matched, settings, recipe.seed)
                for _, measures in run_in_threads(tasks, threads):
                    found.append(measures)
                    steps(1)
        finally:
            matched.close()
        features = matched.features
        return PairsEvaluation(
            truth=str(truth),
            images=str(images),
            features=None if features is None else recipe.features,
            matcher=recipe.matcher,
            refiner=recipe.refiner,
            seed=recipe.seed,
            matches=tuple(matches for matches, _ in found),
            runs=tuple(
                PoseRun(name, estimator_version(name), threshold, tuple(p[i] for _, p in found))
                for i, (name, threshold) in enumerate(settings)
            ),
            extract_milliseconds=(
                None if features is None else mean_milliseconds(folder, features.folder)
            ),
            match_milliseconds=mean_milliseconds(folder, matched.matches.folder),
            failures=matched.failures,
            missing=true.missing,
        )


def _find_matches(
    folder: Path,
    truth: PairTruth,
    sources: Sources,
    recipe: Recipe,
    device: str,
    threads: int,
    progress: Progress,
) -> PairStores:
    """Extract and match what is not there yet, and note the time that it takes."""
    turned = truth.orientations
    images = {
        name: source.with_orientation(turned[name]) if name in turned else source
        for name, source in sources.images.items()
    }
    return fill_pair_stores(
        folder,
        list(dict.fromkeys(Pair.of(*pair.names) for pair in truth.pairs)),
        Sources(images, sources.failures),
        recipe,
        device,
        threads,
        progress,
        where=str(truth.path),
    )


def _tasks(
    pairs: Sequence[TruePair], stores: PairStores, settings: Sequence[Setting], seed: int
) -> Iterator[tuple[TruePair, Callable[[], tuple[PairMatches, list[PairPose]]]]]:
    reader = PairReader(stores)
    for pair in pairs:
        found = reader.correspondences(pair.names)
        points = found.points0.astype(np.float64), found.points1.astype(np.float64)
        keypoints = reader.keypoints(pair.names[0]), reader.keypoints(pair.names[1])
        numbers = None
        if keypoints[0] is not None and keypoints[1] is not None:
            numbers = len(keypoints[0]), len(keypoints[1])
        yield pair, partial(measure_pair, pair, points, numbers, settings, seed)
