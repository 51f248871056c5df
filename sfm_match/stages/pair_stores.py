"""What an extractor and a matcher find in given pairs of images, kept in stores and read back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.io.store import Store
from sfm_match.io.timings import add_time
from sfm_match.spec import ConfigError, Spec, gives_correspondences, load_plugin
from sfm_match.stages.extract import extract
from sfm_match.stages.match import match, match_digest
from sfm_match.stages.order import LruCache
from sfm_match.stages.progress import Progress
from sfm_match.stages.recipe import Recipe
from sfm_match.stages.refine import refine
from sfm_match.stages.scan import Source, Sources
from sfm_match.types import ArrayF32, ArrayF64, Correspondences, Features, Matches, Pair

_KEYPOINT_CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class PairStores:
    """What was found in some images, and why nothing was found in others.

    Attributes:
        features: where the features are; None where the matcher needs none.
        anchors: where the features are that tracks join, if they are to join some.
        matches: where the matches are, or the correspondences of a matcher without features.
        digests: the digest of each image that could be used.
        failures: the other images, each with the reason.
    """

    features: Store[Features] | None
    matches: Store[Matches] | Store[Correspondences]
    digests: Mapping[str, bytes]
    failures: Mapping[str, str]
    anchors: Store[Features] | None = None

    def close(self) -> None:
        """Close all files, so that their folder can be removed."""
        for store in (self.matches, self.features, self.anchors):
            if store is not None:
                store.close()


def fill_pair_stores(
    folder: Path,
    pairs: Sequence[Pair],
    sources: Sources,
    recipe: Recipe,
    device: str,
    threads: int,
    progress: Progress,
    *,
    where: str,
    anchors: bool = False,
) -> PairStores:
    """Extract, match and refine what the stores below a folder do not hold yet; note the time.

    Args:
        folder: the stores are `features/...` and `matches/...` or `correspondences/...` below it.
        pairs: what to match, each pair once; those of images that cannot be used are left out.
        sources: the images.
        recipe: names the extractor and the matcher.
        device: the torch device.
        threads: how many processor cores to use.
        progress: shows the progress of the stages.
        where: where the pairs are from, for messages.
        anchors: extract the features that tracks are to join, if the recipe says so.

    Raises:
        ConfigError: no image can be used.
    """
    images, failures = sources.images, dict(sources.failures)
    features, anchored = None, None
    if anchors and recipe.tracks is not None and recipe.tracks.config["anchor"]:
        anchored, failed = _extract(folder, images, recipe, device, threads, progress)
        failures |= failed
    if "features" in load_plugin("matchers", recipe.matcher.name).NEEDS:
        features, failed = _extract(folder, images, recipe, device, threads, progress)
        failures |= failed
    digests = {name: image.digest for name, image in images.items() if name not in failures}
    usable = [pair for pair in pairs if pair.a in digests and pair.b in digests]
    matches: Store[Any]
    if gives_correspondences(recipe.matcher):
        matches = Store.create(folder / "correspondences", Correspondences, recipe.matcher)
    else:
        matches = Store.create(folder / "matches", Matches, recipe.matcher)
    start = time.perf_counter()
    with progress("match", len(usable)) as steps:
        done = match(
            usable,
            digests,
            recipe.matcher,
            features,
            matches,
            sources=images,
            device=device,
            workers=threads,
            progress=steps,
        )
    add_time(folder, matches.folder, done.computed, time.perf_counter() - start)
    failures |= done.failures
    digests = {name: digest for name, digest in digests.items() if name not in failures}
    if not digests:
        name, reason = next(iter(failures.items()))
        raise ConfigError(f"no image of {where} can be used; {name}: {reason}")
    found = PairStores(features, matches, digests, failures, anchored)
    if recipe.refiner is None:
        return found
    usable = [pair for pair in usable if pair.a in digests and pair.b in digests]
    refiner = recipe.refiner
    return _refine(folder, usable, images, found, matches, refiner, device, threads, progress)


def _extract(
    folder: Path,
    images: Mapping[str, Source],
    recipe: Recipe,
    device: str,
    threads: int,
    progress: Progress,
) -> tuple[Store[Features], dict[str, str]]:
    assert recipe.features is not None  # of a recipe whose matcher needs features
    store = Store.create(folder / "features", Features, recipe.features)
    start = time.perf_counter()
    with progress("extract", len(images)) as steps:
        done = extract(
            list(images.values()),
            recipe.features,
            store,
            device=device,
            workers=threads,
            progress=steps,
        )
    add_time(folder, store.folder, done.computed, time.perf_counter() - start)
    return store, done.failures


def _refine(
    folder: Path,
    pairs: Sequence[Pair],
    images: Mapping[str, Source],
    found: PairStores,
    correspondences: Store[Correspondences],
    refiner: Spec,
    device: str,
    threads: int,
    progress: Progress,
) -> PairStores:
    refined = Store.create(folder / "correspondences", Correspondences, refiner)
    start = time.perf_counter()
    with progress("refine", len(pairs)) as steps:
        done = refine(
            pairs,
            found.digests,
            refiner,
            found.features,
            correspondences,
            refined,
            sources=images,
            device=device,
            workers=threads,
            progress=steps,
        )
    add_time(folder, refined.folder, done.computed, time.perf_counter() - start)
    correspondences.close()
    digests = {n: digest for n, digest in found.digests.items() if n not in done.failures}
    failures = {**found.failures, **done.failures}
    return PairStores(found.features, refined, digests, failures, found.anchors)


class PairReader:
    """Reads what was found in a pair, in either order of its images; keypoints are cached."""

    def __init__(self, stores: PairStores) -> None:
        """Read from these stores."""
        self._stores = stores
        self._keypoints = LruCache[ArrayF32](self._read_keypoints, _KEYPOINT_CACHE_BYTES)

    def keypoints(self, name: str) -> ArrayF32 | None:
        """Return the keypoints (N, 2) of an image, none where it could not be used.

        None for a matcher without features.
        """
        return None if self._stores.features is None else self._keypoints[name]

    def best_keypoints(self, name: str) -> ArrayF64 | None:
        """Return the keypoints (N, 2) of an image, those of the highest score first.

        None for a matcher without features.
        """
        if self._stores.features is None or name not in self._stores.digests:
            return None
        entry = name, self._stores.digests[name]
        columns = ("keypoints", "scores")
        ((_, arrays),) = self._stores.features.arrays([entry], columns=columns)
        points, scores = arrays["keypoints"], arrays["scores"]
        assert points is not None
        assert scores is not None
        return np.asarray(points[np.argsort(-scores, kind="stable")], np.float64)

    def correspondences(self, names: tuple[str, str]) -> Correspondences:
        """Return the matched points of two images, in the order of the names.

        None (of length 0) where one of them could not be used.
        """
        digests = self._stores.digests
        if not digests.keys() >= set(names):
            nothing = np.empty((0, 2), np.float32)
            return Correspondences(nothing, nothing, np.empty(0, np.float32))
        key = Pair.of(*names)
        found = self._stores.matches.read(key, match_digest(key, digests))
        if key.a != names[0]:
            found = found.flipped()
        if isinstance(found, Correspondences):
            return found
        rows0, rows1 = found.indices.T
        points0, points1 = self._keypoints[names[0]], self._keypoints[names[1]]
        return Correspondences(points0[rows0], points1[rows1], found.scores)

    def _read_keypoints(self, name: str) -> ArrayF32:
        features, digests = self._stores.features, self._stores.digests
        if name not in digests or features is None:
            return np.empty((0, 2), np.float32)
        ((_, arrays),) = features.arrays([(name, digests[name])], columns=("keypoints",))
        keypoints = arrays["keypoints"]
        assert keypoints is not None
        return keypoints
