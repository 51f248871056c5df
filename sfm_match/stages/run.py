"""A run: the stages on one output folder, in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sfm_match.logs import log, quiet_colmap
from sfm_match.spec import ConfigError
from sfm_match.stages import work
from sfm_match.stages.database import DatabaseReport
from sfm_match.stages.evaluate import ModelEvaluation, evaluate_model
from sfm_match.stages.executor import num_cores, resolve_device
from sfm_match.stages.expand import ExpandReport, expand
from sfm_match.stages.extract import ExtractReport
from sfm_match.stages.import_into import ImportReport
from sfm_match.stages.mapping import MapReport
from sfm_match.stages.model_folders import MODELS, POLISHED, shown
from sfm_match.stages.pair_lists import report_problems
from sfm_match.stages.pairs import Choice, make_pairs
from sfm_match.stages.pairwise import PairsReport
from sfm_match.stages.polish import PolishReport
from sfm_match.stages.progress import Progress, no_progress
from sfm_match.stages.recipe import Recipe
from sfm_match.stages.refine import RefineReport
from sfm_match.stages.tracks import TracksReport
from sfm_match.stages.verify import VerifyReport
from sfm_match.stages.workspace import Workspace

Report = TypeVar("Report")
Arguments = ParamSpec("Arguments")


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
            wait: for another run on the same folder to end, instead of refusing.
            progress: shows the progress of the stages.

        Raises:
            ConfigError: the recipe does not name the folder of images.
        """
        quiet_colmap()
        self.workspace, self._recipe = Workspace(Path(out), recipe, wait), recipe
        self.device = resolve_device(device)
        self._threads = num_cores() if threads is None else threads
        self._progress = progress

    def _stage(
        self,
        name: str,
        total: int | None,
        doing: Callable[..., Report],
        summary: Callable[[Any], dict[str, Any]] = asdict,
    ) -> Report:
        """Run a stage, with its progress, time and report in the log and the results."""
        log.info("%s begins", name)
        start = time.perf_counter()
        with self._progress(name, total) as progress:
            report = doing(progress=progress)
            if getattr(report, "reused", None) is True:
                progress(total or 0)
        seconds = time.perf_counter() - start
        log.info("%s took %.2f s: %s", name, seconds, summary(report))
        self.workspace.results.set_stage(name, seconds, summary(report))
        return report

    @_locked
    def extract(self) -> ExtractReport:
        """Extract the features of all images; a recipe without features has nothing to do."""
        space, report = self.workspace, ExtractReport()
        if self._recipe.features is not None:
            sources = list(space.sources.images.values())
            doing = work.extracting(space, sources, self.device, self._threads)
            report = self._stage("extract", len(sources), doing)
        space.results.set_failures(space.sources.failures)
        space.leave_out(report.failures)
        space.remark()
        return report

    @_locked
    def pairs(self) -> Choice:
        """Choose the pairs to match and write them to `pairs.txt`."""

        def choose(progress: Callable[[int], object]) -> Choice:
            found = make_pairs(self.workspace.image_set(), self._recipe.pairs)
            if found.problems and not found.pairs:
                raise ConfigError(f"pairs: none is left: {'; '.join(found.problems[:3])}")
            self.workspace.lists.choose(found.pairs)
            return found

        found = self._stage("pairs", None, choose, _summary_of_pairs)
        report_problems(found.problems)
        return found

    @_locked
    def match(self) -> PairsReport:
        """Match all pairs of `pairs.txt`."""
        space = self.workspace
        pairs = space.pairs_to_match()
        doing = work.matching(space, pairs, self.device, self._threads)
        report = self._stage("match", len(pairs), doing)
        if space.extracted is None:
            space.results.set_failures(space.sources.failures)
        space.leave_out(report.failures)
        if report.failures and report.computed + report.reused == 0:
            name, reason = next(iter(report.failures.items()))
            raise ConfigError(f"no pair could be matched; {name}: {reason}")
        return report

    @_locked
    def refine(self) -> RefineReport:
        """Refine the correspondences of all pairs that are matched.

        Raises:
            ConfigError: the recipe names no refiner.
        """
        if self._recipe.refiner is None:
            raise ConfigError("the recipe names no refiner: there is nothing to refine")
        pairs = self.workspace.to_refine()
        doing = work.refining(self.workspace, pairs, self.device, self._threads)
        report = self._stage("refine", len(pairs), doing)
        self.workspace.leave_out(report.failures)
        return report

    @_locked
    def tracks(self) -> TracksReport:
        """Turn the correspondences of all pairs that are matched into features and matches.

        Raises:
            ConfigError: the matcher matches features, so that there are none.
        """
        if self._recipe.tracks is None:
            raise ConfigError(
                f"the matcher {self._recipe.matcher.name!r} matches features: there are no tracks "
                "to make; verify comes next"
            )
        digests, pairs = self.workspace.to_track()
        doing = work.tracking(self.workspace, pairs, digests)
        return self._stage("tracks", len(digests), doing)

    def _make_tracks(self) -> None:
        """Go from correspondences to features and matches, where the matcher gives those."""
        if self._recipe.refiner is not None:
            self.refine()
        if self._recipe.tracks is not None:
            self.tracks()

    @_locked
    def verify(self) -> VerifyReport:
        """Verify the matches of all pairs that are matched."""
        pairs = self.workspace.matched_pairs()
        doing = work.verifying(self.workspace, pairs, self._threads)
        return self._stage("verify", len(pairs), doing)

    @_locked
    def expand(self) -> ExpandReport:
        """Match and verify neighbours of neighbours too, in at most `pairs.expand` rounds."""

        def renew() -> None:
            self.match()
            self._make_tracks()
            self.verify()

        def add(progress: Callable[[int], object]) -> ExpandReport:
            return expand(self.workspace, renew, self.workspace.verified_pairs)

        return self._stage("expand", None, add)

    @_locked
    def import_features(self) -> DatabaseReport:
        """Write `database.db` from the stores: all images with features, all verified pairs."""
        pairs = self.workspace.verified_pairs()
        return self._stage("import", len(pairs), work.importing(self.workspace, pairs))

    @_locked
    def import_into(self, database: str | Path, *, add_images: bool = False) -> ImportReport:
        """Add what `import_features` would write to a COLMAP database that was made elsewhere.

        See `sfm_match.stages.import_into.import_into`; the pairs need not be verified before.

        Raises:
            ConfigError: it is the `database.db` of this folder.
            DatabaseError: it cannot be used or changed.
            ConflictError: it holds something else than what would be added.
        """
        space = self.workspace
        space.lists.check_expanded()
        pairs = space.matched_pairs()
        doing = work.importing_into(space, Path(database), pairs, add_images, self._threads)
        return self._stage("import_into", len(pairs), doing)

    @_locked
    def map(self) -> MapReport:
        """Reconstruct from `database.db` into `models/` and `model/`.

        Raises:
            ConfigError: the database was made with other settings or from other images.
        """
        space = self.workspace
        before = shown(space.out)
        doing = work.mapping(space, space.verified_pairs(), self._threads)
        report = self._stage("map", len(space.sources.images), doing)
        if not report.reused or shown(space.out) != before:
            space.results.forget_evaluation()
        if report.reason:
            log.error("no model: %s", report.reason)
        return report

    @_locked
    def polish(self) -> PolishReport:
        """Go over the models of `map` again, into `polished/` and `model/`.

        Raises:
            ConfigError: the recipe does not ask for it, or there is no model of its settings.
        """
        if self._recipe.polish is None:
            raise ConfigError("polish.rounds is 0, so there is nothing to polish; set it to 1")
        space, rounds = self.workspace, self._recipe.polish.config["rounds"]
        before = shown(space.out)
        doing = work.polishing(space, space.verified_pairs(), self.device, self._threads)
        report = self._stage("polish", rounds * len(space.sources.images), doing)
        if not report.reused or shown(space.out) != before:
            space.results.forget_evaluation()
        return report

    def evaluate(self, truth: str | Path) -> ModelEvaluation:
        """Compare `model/` with the truth, a COLMAP model.

        Where it is polished, the model before that is compared too, for the results.
        """
        out, truth = self.workspace.out, Path(truth)
        evaluation = evaluate_model(out / "model", truth)
        content = evaluation.to_dict()
        if shown(out) == POLISHED:
            content["before_polish"] = evaluate_model(out / MODELS / "0", truth).to_dict()
        self.workspace.results.set_evaluation(content, truth)
        return evaluation

    @_locked
    def all(self) -> MapReport:
        """Run all stages."""
        _ = self.workspace.cameras  # whether they fit the images is known before the work
        self.extract()
        self.pairs()
        self.match()
        self._make_tracks()
        self.verify()
        if self._recipe.pairs.expand:
            self.expand()
        self.import_features()
        found = self.map()
        if self._recipe.polish is None or not found.models:
            return found
        done = self.polish()
        return replace(found, models=done.models, reused=found.reused and done.reused)


def _summary_of_pairs(found: Choice) -> dict[str, Any]:
    return {"methods": found.counts, "pairs": len(found.pairs), "problems": found.problems}
