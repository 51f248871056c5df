"""What the commands print, and their exit codes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from tqdm import tqdm

from sfm_match.stages.evaluate import format_evaluation
from sfm_match.stages.mapping import MapReport
from sfm_match.stages.run import Run

NO_MODEL = 3
LEFT_OUT = 4
STOPPED = 130
_MAX_PROBLEMS = 5
_OF_IMAGES = ("extract", "tracks", "map", "polish")


@contextmanager
def bar(stage: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Show the progress of a stage on standard error; in a log only one line at its end."""
    live = sys.stderr.isatty()
    unit = " images" if stage in _OF_IMAGES else " pairs"
    start, done = time.monotonic(), 0
    # By time alone, so that the seconds go on where nothing else does.
    options: dict[str, Any] = {"unit": unit, "miniters": 0, "mininterval": 0.1}
    with tqdm(
        total=total, desc=f"{stage:8}", disable=total is None or not live, **options
    ) as shown:

        def add(steps: int) -> None:
            nonlocal done
            done += steps
            shown.update(steps)

        yield add
    if total is not None and not live:
        seconds = time.monotonic() - start
        typer.echo(f"{stage}: {done} of {total}{unit} in {seconds:.1f} s", err=True)


def show(as_json: bool, text: str, content: Any) -> None:
    """Print a result, as text or as JSON."""
    typer.echo(json.dumps(content, indent=1) if as_json else text)


def finish(run: Run, as_json: bool, text: str) -> None:
    """Print what came out, and what was left out."""
    content = run.workspace.results.content
    show(as_json, text, content)
    _tell(content)
    if content["failures"]:
        raise typer.Exit(LEFT_OUT)


def _tell(content: dict[str, Any]) -> None:
    """Print on standard error what is not as one may think: pairs, images, other files."""
    for problem in content["stages"].get("pairs", {}).get("problems", ())[:_MAX_PROBLEMS]:
        typer.echo(f"pairs: {problem}", err=True)
    for name, remark in content["remarks"].items():
        typer.echo(f"note: {name}: {remark}", err=True)
    ignored = content.get("ignored", ())
    if ignored:
        more = f" and {len(ignored) - _MAX_PROBLEMS} more" if len(ignored) > _MAX_PROBLEMS else ""
        names = ", ".join(ignored[:_MAX_PROBLEMS])
        typer.echo(f"note: ignored, no image by its suffix: {names}{more}", err=True)
    for name, reason in content["failures"].items():
        typer.echo(f"left out: {name}: {reason}", err=True)


def finish_map(
    run: Run, report: MapReport, as_json: bool, truth: Path | None = None, polished: bool = False
) -> None:
    """Print which model came out, or why there is none; and what it was before it was polished."""
    if report.reason:
        content = run.workspace.results.content
        show(as_json, f"no model: {report.reason}", content)
        _tell(content)
        raise typer.Exit(NO_MODEL)
    best, out, sources = report.models[0], run.workspace.out, run.workspace.sources
    text = (
        f"{out / 'model'}: {best.images} of {len(sources.images) + len(sources.failures)} images, "
        f"{best.points} points, track length {best.track_length:.2f}, "
        f"reprojection error {best.reprojection_error:.3f} px"
    )
    if polished:
        before = run.workspace.results.content["stages"]["polish"]["changes"][0]["error_before"]
        text += f" ({before:.3f} px before polishing)"
    if len(report.models) > 1:
        text += f"; {len(report.models) - 1} smaller models in {out / 'models'}"
    if truth is not None:
        text += "\n" + format_evaluation(run.evaluate(truth))
        first = run.workspace.results.content["evaluation"].get("before_polish")
        if first is not None:
            text += f"\n{'before polishing':15}" + "".join(
                f"{a:10.2f}" for a in first["auc"].values()
            )
    finish(run, as_json, text)
