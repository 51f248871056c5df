"""The stages: `run` for all of them, and one command for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sfm_match.cli.options import Images, Out, RunOptions, with_run_options
from sfm_match.cli.output import finish, finish_map
from sfm_match.io.model import read_model
from sfm_match.stages.run import Run

app = typer.Typer()

Truth = Annotated[
    Path | None, typer.Option("--truth", help="COLMAP model to compare the result with.")
]


@app.command("run")
@with_run_options
def run_all(images: Images, out: Out, options: RunOptions, truth: Truth = None) -> None:
    """Reconstruct a folder of images: every stage, each only where it is not done yet."""
    run = options.open(out, images)
    if truth is not None:
        read_model(truth)  # a wrong path is better known before the work than after it
    finish_map(run, run.all(), options.as_json, truth)


@app.command("extract")
@with_run_options
def extract(images: Images, out: Out, options: RunOptions) -> None:
    """Extract the features of a folder of images; the recipe is kept for the stages that follow."""
    run = options.open(out, images)
    done = run.extract()
    finish(run, options.as_json, f"{done.computed} images extracted, {done.reused} were there")


def _add_stage(name: str, text: str, work: Callable[[Run, bool], None]) -> None:
    """Add the command of one stage on an output folder that an earlier command made."""

    def command(out: Out, options: RunOptions) -> None:
        work(options.open(out), options.as_json)

    app.command(name, help=text)(with_run_options(command))


def _pairs(run: Run, as_json: bool) -> None:
    found = run.pairs()
    finish(run, as_json, f"{len(found.pairs)} pairs; {len(found.problems)} problems")


def _match(run: Run, as_json: bool) -> None:
    done = run.match()
    finish(run, as_json, f"{done.computed} pairs matched, {done.reused} were there")


def _verify(run: Run, as_json: bool) -> None:
    done = run.verify()
    finish(run, as_json, f"{done.computed} pairs verified, {done.reused} were there")


def _import(run: Run, as_json: bool) -> None:
    counts = run.import_features().counts
    text = f"{counts.images} images, {counts.verified_pairs} pairs, {counts.inliers} inlier matches"
    finish(run, as_json, text)


def _map(run: Run, as_json: bool) -> None:
    finish_map(run, run.map(), as_json)


_add_stage("pairs", "Choose the pairs to match and write OUT/pairs.txt.", _pairs)
_add_stage("match", "Match the pairs of OUT/pairs.txt.", _match)
_add_stage("verify", "Estimate the two-view geometry of every matched pair.", _verify)
_add_stage("import", "Write OUT/database.db, a COLMAP database.", _import)
_add_stage("map", "Reconstruct from OUT/database.db into OUT/model.", _map)
