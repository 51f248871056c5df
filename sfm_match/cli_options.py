"""The arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Images = Annotated[Path, typer.Argument(help="Folder of images.", show_default=False)]
Out = Annotated[Path, typer.Argument(help="Output folder.", show_default=False)]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="Name of a packaged recipe, or a TOML file.")
]
Features = Annotated[str | None, typer.Option("--features", help="Extractor.")]
Matcher = Annotated[str | None, typer.Option("--matcher", help="Matcher.")]
Pairs = Annotated[
    str | None, typer.Option("--pairs", help="exhaustive, sequential, or a file of pairs.")
]
Mapper = Annotated[
    str | None,
    typer.Option("--mapper", help="incremental, global, hierarchical or triangulation."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("-o", "--option", metavar="TABLE.KEY=VALUE", help="Set an option of the recipe."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of all random numbers.")]
Device = Annotated[str, typer.Option("--device", help="Torch device; auto: a GPU if there is one.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Processor cores to use; all by default.")
]
Truth = Annotated[
    Path | None, typer.Option("--truth", help="COLMAP model to compare the result with.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON to standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for another run on OUT to end.")]


def tables_of(
    features: str | None,
    matcher: str | None,
    pairs: str | None,
    mapper: str | None,
    seed: int | None,
) -> dict[str, Any]:
    """Return the tables that the named options change."""
    tables: dict[str, Any] = {}
    for table, name in (("features", features), ("matcher", matcher), ("mapper", mapper)):
        if name is not None:
            tables[table] = {"name": name}
    if pairs is not None and Path(pairs).is_file():
        tables["pairs"] = {"method": "file", "path": str(Path(pairs).absolute())}
    elif pairs is not None:
        tables["pairs"] = {"method": pairs}
    if seed is not None:
        tables["seed"] = seed
    return tables
