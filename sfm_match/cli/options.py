"""The arguments and options that several commands share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import torch
import typer

from sfm_match.cli.output import bar
from sfm_match.spec import ConfigError
from sfm_match.stages.progress import Progress, no_progress
from sfm_match.stages.recipe import Recipe, recipe_for
from sfm_match.stages.run import Run
from sfm_match.weights import ENV_FOLDERS, ENV_PERMISSIVE_ONLY

Images = Annotated[Path, typer.Argument(help="Folder of images.", show_default=False)]
Out = Annotated[Path, typer.Argument(help="Output folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON to standard output.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("-o", "--option", metavar="TABLE.KEY=VALUE", help="Set an option of the recipe."),
]


@dataclass(frozen=True)
class RunOptions:
    """The options of every command that runs stages on an output folder."""

    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Name of a packaged recipe, or a TOML file.")
    ] = None
    features: Annotated[str | None, typer.Option("--features", help="Extractor.")] = None
    matcher: Annotated[str | None, typer.Option("--matcher", help="Matcher.")] = None
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", help="Method, several joined by +, or a file of pairs."),
    ] = None
    mapper: Annotated[
        str | None,
        typer.Option("--mapper", help="incremental, global, hierarchical or triangulation."),
    ] = None
    option: Settings = None
    device: Annotated[
        str, typer.Option("--device", help="Torch device; auto: a GPU if there is one.")
    ] = "auto"
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of all random numbers.")] = None
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Processor cores to use; all by default.")
    ] = None
    as_json: AsJson = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another run on OUT to end.")] = (
        False
    )

    weights_dir: Annotated[
        Path | None, typer.Option("--weights-dir", help="Folder to look for weights in first.")
    ] = None
    permissive_only: Annotated[
        bool,
        typer.Option("--permissive-only", help="Refuse weights that forbid commercial use."),
    ] = False

    def open(self, out: Path, images: Path | None = None) -> Run:
        """Open an output folder with these options; without images, one that was made before."""
        return Run(
            out,
            self.settings(out, images),
            device=self.device,
            threads=self.threads,
            wait=self.wait,
            progress=self.progress,
        )

    def settings(self, out: Path, images: Path | None = None) -> Recipe:
        """Return the recipe with these options; without images, the one that is kept in `out`."""
        self._set_weights()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return recipe_for(out, images, self.recipe, self._tables(), self.option or ())

    @property
    def progress(self) -> Progress:
        """What shows the progress."""
        return no_progress if self.quiet else bar

    def _set_weights(self) -> None:
        # In the environment, so that processes that build the components see them too.
        if self.weights_dir is not None:
            folders = [str(self.weights_dir.absolute()), os.environ.get(ENV_FOLDERS, "")]
            os.environ[ENV_FOLDERS] = os.pathsep.join(filter(None, folders))
        if self.permissive_only:
            os.environ[ENV_PERMISSIVE_ONLY] = "1"

    def _tables(self) -> dict[str, Any]:
        """Return the tables of the recipe that the named options change."""
        named = {"features": self.features, "matcher": self.matcher, "mapper": self.mapper}
        tables: dict[str, Any] = {
            table: {"name": name} for table, name in named.items() if name is not None
        }
        if self.pairs is not None and Path(self.pairs).is_file():
            tables["pairs"] = {"method": "file", "path": str(Path(self.pairs).absolute())}
        elif self.pairs is not None and Path(self.pairs).name != Path(self.pairs).stem:
            raise ConfigError(f"--pairs {self.pairs}: no such file")
        elif self.pairs is not None:
            tables["pairs"] = {"method": self.pairs}
        if self.seed is not None:
            tables["seed"] = self.seed
        return tables


def with_run_options(
    command: Callable[..., None], without: Collection[str] = ()
) -> Callable[..., None]:
    """Give a command all `RunOptions` but some, which come to it as its argument `options`."""
    shared = [field.name for field in fields(RunOptions) if field.name not in without]

    @wraps(command)
    def run(**values: Any) -> None:
        options = RunOptions(**{name: values.pop(name) for name in shared})
        command(options=options, **values)

    # What typer reads: the command's own arguments, then the shared ones.
    hints = get_type_hints(command, include_extras=True) | get_type_hints(
        RunOptions, include_extras=True
    )
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
    ours = [p for p in inspect.signature(RunOptions).parameters.values() if p.name in shared]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [p.replace(kind=keyword, annotation=hints[p.name]) for p in [*own, *ours]]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return run
