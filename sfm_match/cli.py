"""The command line: arguments in, text or JSON out."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from sfm_match.cli_options import (
    AsJson,
    Device,
    Features,
    Images,
    Mapper,
    Matcher,
    Out,
    Pairs,
    Quiet,
    RecipeName,
    Seed,
    Settings,
    Threads,
    Truth,
    Wait,
    tables_of,
)
from sfm_match.io.images import ImageError
from sfm_match.io.model import ModelError, read_model
from sfm_match.io.shard import StoreError
from sfm_match.spec import ConfigError
from sfm_match.stages.catalogue import describe_components, format_components
from sfm_match.stages.clean import clean_stores
from sfm_match.stages.evaluate import evaluate_model, format_evaluation
from sfm_match.stages.executor import WorkerError
from sfm_match.stages.export import export as export_stores
from sfm_match.stages.mapping import MAPPER_THREAD, MapReport
from sfm_match.stages.match import match_digest
from sfm_match.stages.recipe import read_tables, recipe_for, recipe_names
from sfm_match.stages.run import Run, no_progress
from sfm_match.stages.workspace import LockedError, Workspace
from sfm_match.weights import WeightsError

_HELP = """From photographs to a verified COLMAP model, with any local feature and any matcher.

Exit codes: 0 done; 1 something is wrong with the input, the message says what; 2 wrong usage;
3 no model came out, the message says why; 4 done, but some images were left out; 130 Ctrl-C.
"""

app = typer.Typer(
    help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)
evaluate_app = typer.Typer(help="Compare results with the truth.", no_args_is_help=True)
app.add_typer(evaluate_app, name="eval")

NO_MODEL = 3
LEFT_OUT = 4
STOPPED = 130
_MAX_PROBLEMS = 5
INPUT_ERRORS = (
    ConfigError,
    ImageError,
    ModelError,
    StoreError,
    LockedError,
    WeightsError,
    WorkerError,
)


@contextmanager
def _bar(stage: str, total: int | None) -> Iterator[Callable[[int], object]]:
    # A log file needs no line for each tenth of a second.
    pause = 0.1 if sys.stderr.isatty() else 5.0
    with tqdm(total=total, desc=f"{stage:8}", disable=total is None, mininterval=pause) as bar:
        yield bar.update


def _show(as_json: bool, text: str, content: Any) -> None:
    typer.echo(json.dumps(content, indent=1) if as_json else text)


def _finish(run: Run, as_json: bool, text: str) -> None:
    """Print what came out, and what was left out."""
    content = run.workspace.results.content
    _show(as_json, text, content)
    for problem in content["stages"].get("pairs", {}).get("problems", ())[:_MAX_PROBLEMS]:
        typer.echo(f"pairs: {problem}", err=True)
    for name, reason in content["failures"].items():
        typer.echo(f"left out: {name}: {reason}", err=True)
    if content["failures"]:
        raise typer.Exit(LEFT_OUT)


def _finish_map(run: Run, report: MapReport, as_json: bool, truth: Path | None = None) -> None:
    if report.reason:
        _show(as_json, f"no model: {report.reason}", run.workspace.results.content)
        raise typer.Exit(NO_MODEL)
    best, out, sources = report.models[0], run.workspace.out, run.workspace.sources
    text = (
        f"{out / 'model'}: {best.images} of {len(sources.images) + len(sources.failures)} images, "
        f"{best.points} points, track length {best.track_length:.2f}, "
        f"reprojection error {best.reprojection_error:.3f} px"
    )
    if len(report.models) > 1:
        text += f"; {len(report.models) - 1} smaller models in {out / 'models'}"
    if truth is not None:
        text += "\n" + format_evaluation(run.evaluate(truth))
    _finish(run, as_json, text)


@app.command("run")
def run_all(
    images: Images,
    out: Out,
    recipe: RecipeName = None,
    features: Features = None,
    matcher: Matcher = None,
    pairs: Pairs = None,
    mapper: Mapper = None,
    option: Settings = None,
    device: Device = "auto",
    seed: Seed = None,
    threads: Threads = None,
    truth: Truth = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    wait: Wait = False,
) -> None:
    """Reconstruct a folder of images: every stage, each only where it is not done yet."""
    tables = tables_of(features, matcher, pairs, mapper, seed)
    settings = recipe_for(out, images, recipe, tables, option or ())
    bar = no_progress if quiet else _bar
    run = Run(out, settings, device=device, threads=threads, wait=wait, progress=bar)
    if truth is not None:
        read_model(truth)  # a wrong path is better known before the work than after it
    _finish_map(run, run.all(), as_json, truth)


def _add_stage(name: str, text: str, work: Callable[[Run, bool], None]) -> None:
    """Add the command of one stage on an output folder that an earlier command made."""

    def command(
        out: Out,
        recipe: RecipeName = None,
        features: Features = None,
        matcher: Matcher = None,
        pairs: Pairs = None,
        mapper: Mapper = None,
        option: Settings = None,
        device: Device = "auto",
        seed: Seed = None,
        threads: Threads = None,
        as_json: AsJson = False,
        quiet: Quiet = False,
        wait: Wait = False,
    ) -> None:
        tables = tables_of(features, matcher, pairs, mapper, seed)
        settings = recipe_for(out, None, recipe, tables, option or ())
        bar = no_progress if quiet else _bar
        run = Run(out, settings, device=device, threads=threads, wait=wait, progress=bar)
        work(run, as_json)

    app.command(name, help=text)(command)


def _pairs(run: Run, as_json: bool) -> None:
    found = run.pairs()
    _finish(run, as_json, f"{len(found.pairs)} pairs; {len(found.problems)} problems")


def _match(run: Run, as_json: bool) -> None:
    done = run.match()
    _finish(run, as_json, f"{done.computed} pairs matched, {done.reused} were there")


def _verify(run: Run, as_json: bool) -> None:
    done = run.verify()
    _finish(run, as_json, f"{done.computed} pairs verified, {done.reused} were there")


def _import(run: Run, as_json: bool) -> None:
    counts = run.import_features().counts
    text = f"{counts.images} images, {counts.verified_pairs} pairs, {counts.inliers} inlier matches"
    _finish(run, as_json, text)


def _map(run: Run, as_json: bool) -> None:
    _finish_map(run, run.map(), as_json)


@app.command("extract")
def extract(
    images: Images,
    out: Out,
    recipe: RecipeName = None,
    features: Features = None,
    matcher: Matcher = None,
    pairs: Pairs = None,
    mapper: Mapper = None,
    option: Settings = None,
    device: Device = "auto",
    seed: Seed = None,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    wait: Wait = False,
) -> None:
    """Extract the features of a folder of images; the recipe is kept for the stages that follow."""
    tables = tables_of(features, matcher, pairs, mapper, seed)
    settings = recipe_for(out, images, recipe, tables, option or ())
    bar = no_progress if quiet else _bar
    run = Run(out, settings, device=device, threads=threads, wait=wait, progress=bar)
    done = run.extract()
    _finish(run, as_json, f"{done.computed} images extracted, {done.reused} were there")


_add_stage("pairs", "Choose the pairs to match and write OUT/pairs.txt.", _pairs)
_add_stage("match", "Match the pairs of OUT/pairs.txt.", _match)
_add_stage("verify", "Estimate the two-view geometry of every matched pair.", _verify)
_add_stage("import", "Write OUT/database.db, a COLMAP database.", _import)
_add_stage("map", "Reconstruct from OUT/database.db into OUT/model.", _map)


@evaluate_app.command("model")
def evaluate(
    model: Annotated[Path, typer.Argument(help="COLMAP model, binary or text.")],
    truth: Annotated[Path, typer.Argument(help="COLMAP model with the true poses.")],
    as_json: AsJson = False,
) -> None:
    """Compare the poses of a model with the truth, after a similarity alignment."""
    evaluation = evaluate_model(model, truth)
    _show(as_json, format_evaluation(evaluation), evaluation.to_dict())


@app.command("models")
def models(as_json: AsJson = False) -> None:
    """List every component with its options, licence and weights."""
    found = describe_components()
    _show(as_json, format_components(found), found)


@app.command("recipes")
def recipes(as_json: AsJson = False) -> None:
    """List the packaged recipes."""
    found = {name: read_tables(name) for name in recipe_names()}
    lines = [f"{name:16} {tables['description']}" for name, tables in found.items()]
    _show(as_json, "\n".join(lines), found)


@app.command("export")
def export(
    out: Out,
    layout: Annotated[str, typer.Option("--format", help="hloc or colmap-text.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder; OUT/FORMAT by default.")] = None,
) -> None:
    """Write features and matches in the layout of another tool."""
    space = Workspace(out, recipe_for(out, None, None, {}, ()), wait=False)
    digests = space.digests()
    pairs = space.pairs(lambda p: (p, match_digest(p, digests)) in space.matches, "match")
    target = to or out / layout
    for path in export_stores(layout, target, digests, pairs, space.features, space.matches):
        typer.echo(path)


@app.command("clean")
def clean(out: Out) -> None:
    """Delete the stores that the current recipe of OUT does not use."""
    space = Workspace(out, recipe_for(out, None, None, {}, ()), wait=False)
    with space.lock():
        for path in clean_stores(space):
            typer.echo(f"deleted {path}")


def main() -> None:
    """Run the command line; errors of the input are one line on standard error."""
    try:
        app(standalone_mode=True)
    except (*INPUT_ERRORS, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == STOPPED:  # what typer makes of Ctrl-C
            typer.echo("stopped; the same command goes on from what is finished", err=True)
            if any(thread.name == MAPPER_THREAD for thread in threading.enumerate()):
                # It is in pycolmap, not every mapper of which can be cancelled, and would abort
                # the process when it came back to an interpreter that has ended.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(STOPPED)
        raise
