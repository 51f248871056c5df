"""An output folder: exported, cleaned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfm_match.cli.options import Out
from sfm_match.stages.clean import clean_stores
from sfm_match.stages.export import export as export_stores
from sfm_match.stages.recipe import recipe_for
from sfm_match.stages.repair import repair_stores
from sfm_match.stages.workspace import Workspace

app = typer.Typer()


@app.command("export")
def export(
    out: Out,
    layout: Annotated[str, typer.Option("--format", help="hloc or colmap-text.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder; OUT/FORMAT by default.")] = None,
) -> None:
    """Write features and matches in the layout of another tool."""
    space = Workspace(out, recipe_for(out, None, None, {}, ()), wait=False)
    digests, pairs = space.digests(), space.matched_pairs()
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


@app.command("repair")
def repair(out: Out) -> None:
    """Delete the damaged files of OUT's stores; running again computes what they held again."""
    space = Workspace(out, recipe_for(out, None, None, {}, ()), wait=False)
    with space.lock():
        damages = repair_stores(out)
    for damage in damages:
        typer.echo(f"deleted {damage.path}: damaged ({damage.reason})")
    if not damages:
        typer.echo("nothing is damaged")
