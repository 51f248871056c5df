"""An output folder: its stores, its images, its lock, its results.

Layout::

    recipe.toml            the settings
    features/NAME-FINGERPRINT/, matches/..., two_views/...     the stores
    pairs.txt              the pairs
    database.db            COLMAP's database, made from the stores
    models/0, 1, ...       all models, the one with the most images first
    model/                 the same as models/0
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
from sfm_match.io.pairs import PairList, read_pairs
from sfm_match.io.results import Results
from sfm_match.io.store import Store
from sfm_match.logs import log, log_to
from sfm_match.spec import ConfigError
from sfm_match.stages.recipe import Recipe
from sfm_match.stages.scan import Sources, scan
from sfm_match.types import Features, Matches, Pair, TwoView


class LockedError(RuntimeError):
    """Another run is writing to the same output folder."""


class Workspace:
    """An output folder and the settings with which it is used.

    Attributes:
        out: the output folder.
        recipe: the settings.
        images: the folder of images.
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
            raise ConfigError(f"{out}: cannot be an output folder: {error}") from None
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
        """The content of `results.json`; its first use writes the settings, to `recipe.toml` too.

        So a stage that finds the folder locked, or its settings wrong, leaves both as they are.
        """
        sources = self.sources
        results = Results(self.out / "results.json")
        self.recipe.write(self.out / "recipe.toml")
        results.begin(self.recipe.tables, self.recipe.fingerprints)
        results.set_images({name: s.digest.hex() for name, s in sources.images.items()})
        results.add_failures(sources.failures)
        return results

    @cached_property
    def features(self) -> Store[Features]:
        """The store of the recipe's features."""
        return Store.create(self.out / "features", Features, self.recipe.features)

    @cached_property
    def matches(self) -> Store[Matches]:
        """The store of the recipe's matches."""
        return Store.create(self.out / "matches", Matches, self.recipe.matcher)

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

    def digests(self) -> dict[str, bytes]:
        """Return the digests of the images whose features are in the store, by name.

        Raises:
            ConfigError: there are none.
        """
        found = ((name, source.digest) for name, source in self.sources.images.items())
        digests = {name: digest for name, digest in found if (name, digest) in self.features}
        if not digests:
            raise ConfigError(f"{self.out}: no image has features of this recipe; extract first")
        return digests

    @cached_property
    def cameras(self) -> Cameras:
        """The camera of each image."""
        infos = [
            ImageInfo(s.name, s.header.width, s.header.height, s.camera.focal, s.camera.body)
            for s in self.sources.images.values()
        ]
        return assign_cameras(infos, self.recipe.camera)

    def pairs(self, ready: Callable[[Pair], bool] | None = None, first: str = "") -> list[Pair]:
        """Return the pairs of `pairs.txt` whose images have features, and that are ready.

        Raises:
            ConfigError: there is no `pairs.txt`, or no pair has been through the stage `first`.
        """
        found = read_pairs(self.out / "pairs.txt", self.digests())
        report_problems(found)
        pairs = [pair for pair in found.pairs if ready is None or ready(pair)]
        if found.pairs and not pairs:
            raise ConfigError(f"{self.out}: no pair is ready with this recipe; {first} first")
        return pairs


def _log_failures(failures: dict[str, str]) -> None:
    for name, reason in failures.items():
        log.warning("left out: %s: %s", name, reason)


def report_problems(found: PairList) -> None:
    """Log what was wrong with a list of pairs."""
    for problem in found.problems:
        log.warning("pairs: %s", problem)
