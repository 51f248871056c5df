"""The stages: `run` for all of them, and one command for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sfm_match.cli.options import Images, Out, RunOptions, with_run_options
from sfm_match.cli.output import LEFT_OUT, finish, finish_map
from sfm_match.stages.evaluate import check_truth
from sfm_match.stages.run import Run

app = typer.Typer()

Into = Annotated[Path | None, typer.Option("--into", help="COLMAP database of yours to add to.")]
AddImages = Annotated[
    bool, typer.Option("--add-images", help="Add images that the database lacks.")
]
Truth = Annotated[
    Path | None, typer.Option("--truth", help="COLMAP model to compare the result with.")
]


@app.command("run")
@with_run_options
def run_all(images: Images, out: Out, options: RunOptions, truth: Truth = None) -> None:
    """Reconstruct a folder of images: every stage, each only where it is not done yet."""
    run = options.open(out, images)
    if truth is not None:
        check_truth(truth, run.workspace.sources.images)  # better known now than after the work
    polished = run.workspace.recipe.polish is not None
    finish_map(run, run.all(), options.as_json, truth, polished)


@app.command("extract")
@with_run_options
def extract(images: Images, out: Out, options: RunOptions) -> None:
    """Extract the features of a folder of images; the recipe is kept for the stages that follow."""
    run = options.open(out, images)
    done = run.extract()
    if run.workspace.extracted is None:
        num = len(run.workspace.sources.images)
        text = f"the recipe has no features to extract from {num} images; pairs comes next"
        finish(run, options.as_json, text)
        return
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


def _refine(run: Run, as_json: bool) -> None:
    done = run.refine()
    text = (
        f"{done.computed} pairs refined, {done.correspondences} correspondences to "
        f"{done.refined}; {done.reused} pairs were there"
    )
    finish(run, as_json, text)


def _tracks(run: Run, as_json: bool) -> None:
    done = run.tracks()
    text = (
        f"{done.tracks} tracks of {done.mean_length:.2f} images on average, "
        f"{done.keypoints} keypoints"
    )
    finish(run, as_json, text)


def _verify(run: Run, as_json: bool) -> None:
    done = run.verify()
    finish(run, as_json, f"{done.computed} pairs verified, {done.reused} were there")


def _expand(run: Run, as_json: bool) -> None:
    done = run.expand()
    added, rounds = sum(done.rounds), len(done.rounds)
    finish(run, as_json, f"{added} pairs added in {rounds} rounds, {done.linked} of them linked")


def _map(run: Run, as_json: bool) -> None:
    finish_map(run, run.map(), as_json)


def _polish(run: Run, as_json: bool) -> None:
    done = run.polish()
    best, change = done.models[0], done.changes[0]
    text = (
        f"{change.moved} of {change.observations} keypoints of {best.images} images moved, by "
        f"{change.median_shift:.3f} px in the median; {change.failed} could not be aligned, "
        f"{change.rejected} were put back; reprojection error {change.error_before:.3f} px to "
        f"{change.error_after:.3f} px"
    )
    finish(run, as_json, text)


_add_stage("pairs", "Choose the pairs to match and write OUT/pairs.txt.", _pairs)
_add_stage("match", "Match the pairs of OUT/pairs.txt.", _match)
_add_stage("refine", "Refine the correspondences of a detector-free matcher.", _refine)
_add_stage("tracks", "Turn the correspondences of a detector-free matcher into tracks.", _tracks)
_add_stage("verify", "Estimate the two-view geometry of every matched pair.", _verify)
_add_stage("expand", "Match and verify neighbours of neighbours, if pairs.expand is set.", _expand)


@app.command("import")
@with_run_options
def import_features(
    out: Out, options: RunOptions, into: Into = None, add_images: AddImages = False
) -> None:
    """Write OUT/database.db, a COLMAP database; or add to a database of yours, with --into.

    Nothing in that database is overwritten: images are found by their names, with their cameras,
    rigs and frames, and where it holds something else than what would be added, it is left as it
    is and all of that is listed.
    """
    if add_images and into is None:
        raise typer.BadParameter("--add-images goes with --into FILE")
    run = options.open(out)
    if into is None:
        counts = run.import_features().counts
        text = (
            f"{counts.images} images, {counts.verified_pairs} pairs, "
            f"{counts.inliers} inlier matches"
        )
        finish(run, options.as_json, text)
        return
    done = run.import_into(into, add_images=add_images)
    for name in done.missing:
        typer.echo(f"left out: {name}: not in {into}; --add-images adds it", err=True)
    text = (
        f"{into}: {done.found} images found, {done.images} added; added keypoints of "
        f"{done.keypoints} images, matches of {done.matched_pairs} pairs and geometries of "
        f"{done.verified_pairs}; {done.verified_again} pairs verified with its cameras"
    )
    finish(run, options.as_json, text)
    if done.missing:
        raise typer.Exit(LEFT_OUT)


_add_stage("map", "Reconstruct from OUT/database.db into OUT/model.", _map)
_add_stage(
    "polish",
    "Align the keypoints of OUT/models in the images and adjust again, if polish.rounds is set.",
    _polish,
)
