"""What there is: components and recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from sfm_match.cli.options import AsJson
from sfm_match.cli.output import show
from sfm_match.stages.catalogue import (
    describe_components,
    describe_one,
    format_components,
    format_one,
)
from sfm_match.stages.recipe import read_tables, recipe_names

app = typer.Typer()


@app.command("models")
def models(
    name: Annotated[
        str | None, typer.Argument(help="Show a component or weights, with their card.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List every component with its options, licence and weights, or show one of them."""
    if name is None:
        found = describe_components()
        show(as_json, format_components(found), found)
    else:
        found = describe_one(name)
        show(as_json, format_one(found), found)


@app.command("recipes")
def recipes(as_json: AsJson = False) -> None:
    """List the packaged recipes."""
    found = {name: read_tables(name) for name in recipe_names()}
    lines = [f"{name:16} {tables['description']}" for name, tables in found.items()]
    show(as_json, "\n".join(lines), found)
