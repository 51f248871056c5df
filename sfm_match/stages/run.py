"""A run: the stages on one output folder, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sfm_match.io.database import read_info
from sfm_match.io.pairs import PairList, write_pairs
from sfm_match.logs import log, quiet_colmap
from sfm_match.spec import ConfigError
from sfm_match.stages.database import DatabaseReport, build_database, database_fingerprint
from sfm_match.stages.evaluate import ModelEvaluation, evaluate_model
from sfm_match.stages.executor import num_cores, resolve_device
from sfm_match.stages.extract import ExtractReport, extract
from sfm_match.stages.mapping import MapReport, map_images
from sfm_match.stages.match import MatchReport, match, match_digest
from sfm_match.stages.pairs import make_pairs
from sfm_match.stages.recipe import Recipe
from sfm_match.stages.verify import VerifyReport, verify, verify_digest
from sfm_match.stages.workspace import Workspace, report_problems
from sfm_match.types import Pair

Report = TypeVar("Report")
Arguments = ParamSpec("Arguments")
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], object]]]
"""Called with a stage's name and its number of steps; gives what is called with steps done."""


@contextmanager
def no_progress(stage: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Show nothing."""
    yield lambda steps: None


def _locked(
    stage: Callable[Concatenate[Run, Arguments], Report],
) -> Callable[Concatenate[Run, Arguments], Report]:
    """Let one run at a time work on an output folder."""

    @wraps(stage)
    def hold(run: Run, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Report:
        with run.workspace.lock():
            return stage(run, *args, **kwargs)

    return hold


class Run:
    """The stages on one output folder. Each does only what is not done yet.

    Attributes:
        workspace: the output folder.
        device: the torch device of the components.
    """

    def __init__(
        self,
        out: str | Path,
        recipe: Recipe,
        *,
        device: str = "auto",
        threads: int | None = None,
        wait: bool = False,
        progress: Progress = no_progress,
    ) -> None:
        """Open an output folder; it is made if it is not there.

        Args:
            out: the output folder.
            recipe: the settings; its table `[images]` names the folder of images.
            device: the torch device of the components; `auto` is a GPU where there is one.
            threads: how many processor cores to use; None for all.
            wait: wait for another run on the same folder to end, instead of refusing.
            progress: shows the progress of the stages.

        Raises:
            ConfigError: the recipe does not name the folder of images.
        """
        quiet_colmap()
        self.workspace = Workspace(Path(out), recipe, wait)
        self.device = resolve_device(device)
        self._recipe = recipe
        self._threads = num_cores() if threads is None else threads
        self._progress = progress

    def _stage(
        self,
        name: str,
        total: int | None,
        work: Callable[..., Report],
        summary: Callable[[Any], dict[str, Any]] = asdict,
    ) -> Report:
        """Run a stage, with its progress, time and report in the log and the results."""
        log.info("%s begins", name)
        start = time.perf_counter()
        with self._progress(name, total) as progress:
            report = work(progress=progress)
        seconds = time.perf_counter() - start
        log.info("%s took %.2f s: %s", name, seconds, summary(report))
        self.workspace.results.set_stage(name, seconds, summary(report))
        return report

    @_locked
    def extract(self) -> ExtractReport:
        """Extract the features of all images."""
        space = self.workspace
        sources = list(space.sources.images.values())
        work = partial(
            extract,
            sources,
            self._recipe.features,
            space.features,
            device=self.device,
            workers=self._threads,
        )
        report = self._stage("extract", len(sources), work)
        space.results.set_failures(space.sources.failures)
        space.leave_out(report.failures)
        return report

    @_locked
    def pairs(self) -> PairList:
        """Choose the pairs to match and write them to `pairs.txt`."""

        def choose(progress: Callable[[int], object]) -> PairList:
            found = make_pairs(sorted(self.workspace.digests()), self._recipe.pairs)
            if found.problems and not found.pairs:
                raise ConfigError(f"pairs: none is left: {'; '.join(found.problems[:3])}")
            write_pairs(self.workspace.out / "pairs.txt", found.pairs)
            return found

        found = self._stage("pairs", None, choose, _summary_of_pairs)
        report_problems(found)
        return found

    @_locked
    def match(self) -> MatchReport:
        """Match all pairs of `pairs.txt`."""
        space = self.workspace
        pairs = space.pairs()
        work = partial(
            match,
            pairs,
            space.digests(),
            self._recipe.matcher,
            space.features,
            space.matches,
            device=self.device,
            workers=self._threads,
        )
        return self._stage("match", len(pairs), work)

    @_locked
    def verify(self) -> VerifyReport:
        """Verify the matches of all pairs that are matched."""
        space = self.workspace
        digests = space.digests()
        pairs = space.pairs(lambda p: (p, match_digest(p, digests)) in space.matches, "match")
        work = partial(
            verify,
            pairs,
            digests,
            space.cameras,
            self._recipe.verify,
            space.features,
            space.matches,
            space.two_views,
            workers=self._threads,
        )
        return self._stage("verify", len(pairs), work)

    @_locked
    def import_features(self) -> DatabaseReport:
        """Write `database.db` from the stores: all images with features, all verified pairs."""
        space = self.workspace
        pairs = self._verified_pairs()
        work = partial(
            build_database,
            space.out / "database.db",
            space.digests(),
            pairs,
            space.cameras,
            self._recipe.verify,
            space.features,
            space.matches,
            space.two_views,
        )
        return self._stage("import", len(pairs), work)

    def _verified_pairs(self) -> list[Pair]:
        space = self.workspace
        digests, cameras = space.digests(), space.cameras
        return space.pairs(
            lambda p: (p, verify_digest(p, digests, cameras)) in space.two_views, "verify"
        )

    @_locked
    def map(self) -> MapReport:
        """Reconstruct from `database.db` into `models/` and `model/`.

        Raises:
            ConfigError: the database was made with other settings or from other images.
        """
        space = self.workspace
        database = space.out / "database.db"
        made_from = database_fingerprint(
            space.digests(), self._verified_pairs(), space.cameras, self._recipe.verify
        )
        if read_info(database).get("fingerprint") != made_from:
            raise ConfigError(f"{database}: not made of these settings and images; import first")
        work = partial(
            map_images,
            space.out,
            space.images,
            space.cameras,
            self._recipe.mapper,
            self._recipe.mapper_options,
            threads=self._threads,
        )
        report = self._stage("map", len(space.sources.images), work)
        if not report.reused:
            space.results.forget_evaluation()
        if report.reason:
            log.error("no model: %s", report.reason)
        return report

    def evaluate(self, truth: str | Path) -> ModelEvaluation:
        """Compare `model/` with the truth, a COLMAP model."""
        evaluation = evaluate_model(self.workspace.out / "model", Path(truth))
        self.workspace.results.set_evaluation(evaluation.to_dict())
        return evaluation

    @_locked
    def all(self) -> MapReport:
        """Run all stages."""
        _ = self.workspace.cameras  # whether they fit the images is known before the work
        self.extract()
        self.pairs()
        self.match()
        self.verify()
        self.import_features()
        return self.map()


def _summary_of_pairs(found: PairList) -> dict[str, Any]:
    return {"pairs": len(found.pairs), "problems": found.problems}
