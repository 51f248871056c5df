"""An output folder: its stores, its images, its lock, its results.

Layout::

    recipe.toml            the settings
    features/NAME-FINGERPRINT/, matches/..., two_views/...     the stores
    correspondences/...    the stores of a matcher that needs no features, and of a refiner
    pairs.txt, pairs_added.txt     the pairs, and those that `pairs.expand` added to them
    database.db            COLMAP's database, made from the stores
    models/0, 1, ...       all models, the one with the most images first
    polished/0, 1, ...     what a second pass made of these, where the recipe has one
    model/                 the result: the first of the polished models, or else of all
    results.json           settings, versions, digests, counts and timings, evaluation
    log.txt                what happened
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from sfm_match.geometry.cameras import Cameras, ImageInfo, assign_cameras
from sfm_match.io.results import Results
from sfm_match.io.store import Store
from sfm_match.logs import log, log_to
from sfm_match.spec import ConfigError
from sfm_match.stages.match import match_digest
from sfm_match.stages.pair_lists import PairLists, report_problems
from sfm_match.stages.pairs import ImageSet, reader_of
from sfm_match.stages.recipe import Recipe
from sfm_match.stages.remarks import ignored_files, remarks_on
from sfm_match.stages.scan import Sources, scan
from sfm_match.stages.tracks import read_track_digests, tracks_digest
from sfm_match.stages.verify import verify_digest
from sfm_match.types import Correspondences, Features, Matches, Pair, TwoView


class LockedError(RuntimeError):
    """Another run is writing to the same output folder."""


class Workspace:
    """An output folder and the settings with which it is used.

    Attributes:
        out: the output folder.
        recipe: the settings.
        images: the folder of images.
        lists: the lists of pairs.
    """

    def __init__(self, out: Path, recipe: Recipe, wait: bool) -> None:
        """Open an output folder; it is made if it is not there.

        Args:
            out: the folder.
            recipe: the settings; its table `[images]` names the folder of images.
            wait: wait for another run on the same folder to end, instead of refusing.

        Raises:
            ConfigError: the recipe does not name the folder of images, or the output folder cannot
                be written to.
        """
        if recipe.images.path is None:
            raise ConfigError("images.path: the folder of images is not set")
        self.out = out
        self.recipe = recipe
        self.images = recipe.images.path
        try:
            out.mkdir(parents=True, exist_ok=True)
            log_to(out / "log.txt")
        except OSError as error:
            raise ConfigError(f"{out}: cannot be an output folder: {error.strerror}") from None
        self.lists = PairLists(out, recipe.pairs.expand)
        self._lock = FileLock(out / ".lock")
        self._wait = wait

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the folder's database and model; a holder may take it again.

        Raises:
            LockedError: another run holds it, and this one does not wait.
        """
        try:
            with self._lock.acquire(timeout=-1 if self._wait else 0):
                yield
        except Timeout:
            raise LockedError(
                f"{self.out}: another run is writing there; wait for its end, or pass --wait"
            ) from None

    @cached_property
    def results(self) -> Results:
        """The content of `results.json`; its first use writes the settings to `recipe.toml`.

        So a stage that finds the folder locked, or its settings wrong, leaves both as they are.
        """
        sources = self.sources
        results = Results(self.out / "results.json")
        self.recipe.write(self.out / "recipe.toml")
        results.begin(self.recipe.tables, self.recipe.fingerprints)
        digests = {name: s.digest.hex() for name, s in sources.images.items()}
        results.set_images(digests, sources.failures)
        return results

    @cached_property
    def extracted(self) -> Store[Features] | None:
        """The store of what the recipe's extractor finds, if it names one."""
        spec = self.recipe.features
        return None if spec is None else Store.create(self.out / "features", Features, spec)

    @cached_property
    def correspondences(self) -> Store[Correspondences] | None:
        """The store of what the recipe's matcher finds, if it is not one of features."""
        if self.recipe.tracks is None:
            return None
        return Store.create(self.out / "correspondences", Correspondences, self.recipe.matcher)

    @cached_property
    def refined(self) -> Store[Correspondences] | None:
        """The store of the correspondences that tracks are made from, refined if they are to be."""
        if self.recipe.refiner is None:
            return self.correspondences
        return Store.create(self.out / "correspondences", Correspondences, self.recipe.refiner)

    @cached_property
    def features(self) -> Store[Features]:
        """The store of the features that are matched: those extracted, or those of the tracks."""
        if self.recipe.tracks is not None:
            return Store.create(self.out / "features", Features, self.recipe.tracks)
        assert self.extracted is not None
        return self.extracted

    @cached_property
    def matches(self) -> Store[Matches]:
        """The store of the matches of these features."""
        spec = self.recipe.tracks or self.recipe.matcher
        return Store.create(self.out / "matches", Matches, spec)

    @cached_property
    def two_views(self) -> Store[TwoView]:
        """The store of the recipe's two-view geometries."""
        return Store.create(self.out / "two_views", TwoView, self.recipe.verify)

    @cached_property
    def sources(self) -> Sources:
        """The images of the folder, with their digests."""
        sources = scan(self.images, self.recipe.images.masks)
        _log_failures(sources.failures)
        return sources

    def leave_out(self, failures: dict[str, str]) -> None:
        """Report images that cannot be used, each with the reason."""
        _log_failures(failures)
        self.results.add_failures(failures)

    def remark(self) -> None:
        """Report what is worth knowing of the images that are used, and of the other files."""
        remarks = remarks_on(self.sources.images, self.extracted)
        for name, text in remarks.items():
            log.warning("%s %s", name, text)
        self.results.set_remarks(remarks, ignored_files(self.images, self.out))

    def image_digests(self) -> dict[str, bytes]:
        """Return the digests of the images that can be matched, by name.

        They are all that can be read; if the recipe names an extractor, those with features.

        Raises:
            ConfigError: there are none.
        """
        digests = {name: source.digest for name, source in self.sources.images.items()}
        if self.extracted is not None:
            extracted = self.extracted
            digests = {n: d for n, d in digests.items() if (n, d) in extracted}
        if not digests:
            raise ConfigError(f"{self.out}: no image has features of this recipe; extract first")
        return digests

    def to_refine(self) -> list[Pair]:
        """Return the matched pairs whose correspondences are to be refined.

        Raises:
            ConfigError: no pair has been matched with this recipe, or there is no list of pairs.
        """
        store, digests = self.correspondences, self.image_digests()
        assert store is not None
        return self._pairs(digests, lambda p: (p, match_digest(p, digests)) in store, "match")

    def to_track(self) -> tuple[dict[str, bytes], list[Pair]]:
        """Return the digests of the images that tracks are made for, and the matched pairs.

        Raises:
            ConfigError: no pair has been matched with this recipe, or there is no list of pairs.
        """
        store, digests = self.refined, self.image_digests()
        assert store is not None
        first = "match" if self.recipe.refiner is None else "refine"
        listed = self.lists.read(digests).pairs
        pairs = self.lists.ready(listed, lambda p: (p, match_digest(p, digests)) in store, first)
        # No pair of an image that could not be decoded has been matched.
        left_out = _names_in(listed) - _names_in(pairs)
        return {name: d for name, d in digests.items() if name not in left_out}, pairs

    def digests(self) -> dict[str, bytes]:
        """Return the digests of what the features of `features` were made from, by image.

        With `match_digest` they give those of the matches in `matches`.

        Raises:
            ConfigError: there are no such features.
        """
        if self.recipe.tracks is None:
            return self.image_digests()
        digests = read_track_digests(self.features, tracks_digest(*self.to_track()))
        if digests is None:
            raise ConfigError(
                f"{self.out}: no tracks of these matches and this recipe; tracks first"
            )
        return digests

    @cached_property
    def cameras(self) -> Cameras:
        """The camera of each image."""
        infos = [
            ImageInfo(s.name, s.header.width, s.header.height, s.camera.focal, s.camera.body)
            for s in self.sources.images.values()
        ]
        return assign_cameras(infos, self.recipe.camera)

    def matched_pairs(self) -> list[Pair]:
        """Return the pairs whose features are matched.

        Raises:
            ConfigError: there are none.
        """
        digests = self.digests()
        return self._pairs(
            digests, lambda p: (p, match_digest(p, digests)) in self.matches, "match"
        )

    def verified_pairs(self) -> list[Pair]:
        """Return the pairs that are verified.

        Raises:
            ConfigError: there are none, or pairs are still to be added.
        """
        self.lists.check_expanded()
        digests, cameras = self.digests(), self.cameras
        return self._pairs(
            digests, lambda p: (p, verify_digest(p, digests, cameras)) in self.two_views, "verify"
        )

    def pairs_to_match(self) -> list[Pair]:
        """Return the pairs of `pairs.txt` whose images can be matched.

        Raises:
            ConfigError: there is no `pairs.txt`.
        """
        return self._pairs(self.image_digests())

    def _pairs(
        self,
        digests: dict[str, bytes],
        ready: Callable[[Pair], bool] | None = None,
        first: str = "",
    ) -> list[Pair]:
        found = self.lists.read(digests)
        report_problems(found.problems)
        return found.pairs if ready is None else self.lists.ready(found.pairs, ready, first)

    def image_set(self) -> ImageSet:
        """Return the images that can be matched, and what pairs are chosen by.

        Raises:
            ConfigError: there are none.
        """
        digests, sources = self.image_digests(), self.sources.images
        positions = {name: sources[name].camera.position for name in digests}
        return ImageSet(
            names=sorted(digests),
            features=None if self.extracted is None else reader_of(self.extracted, digests),
            positions={name: where for name, where in positions.items() if where is not None},
            seed=self.recipe.seed,
        )


def _names_in(pairs: list[Pair]) -> set[str]:
    return {name for pair in pairs for name in (pair.a, pair.b)}


def _log_failures(failures: dict[str, str]) -> None:
    for name, reason in failures.items():
        log.warning("left out: %s: %s", name, reason)
