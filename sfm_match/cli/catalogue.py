"""What there is: components and recipes."""

from __future__ import annotations

import typer

from sfm_match.cli.options import AsJson
from sfm_match.cli.output import show
from sfm_match.stages.catalogue import describe_components, format_components
from sfm_match.stages.recipe import read_tables, recipe_names

app = typer.Typer()


@app.command("models")
def models(as_json: AsJson = False) -> None:
    """List every component with its options, licence and weights."""
    found = describe_components()
    show(as_json, format_components(found), found)


@app.command("recipes")
def recipes(as_json: AsJson = False) -> None:
    """List the packaged recipes."""
    found = {name: read_tables(name) for name in recipe_names()}
    lines = [f"{name:16} {tables['description']}" for name, tables in found.items()]
    show(as_json, "\n".join(lines), found)
