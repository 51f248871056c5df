"""Public benchmarks, and the comparison of two results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sfm_match.cli.options import AsJson, RunOptions, with_run_options
from sfm_match.cli.output import LEFT_OUT, show
from sfm_match.io.files import write_text
from sfm_match.spec import ConfigError, fingerprint
from sfm_match.stages.recipe import Recipe, parse_settings

app = typer.Typer()

Name = Annotated[
    str,
    typer.Argument(
        help="megadepth-1500, scannet-1500, hpatches, phototourism, eth3d, strecha or colmap.",
        show_default=False,
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        "--data", help="Folder of the data set, see datasets/README.md.", show_default=False
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder where features, matches and results are kept for the next time; "
        "benchmark-NAME by default.",
    ),
]
Protocol = Annotated[
    str,
    typer.Option("--protocol", help="Published settings, the benchmark's first by default."),
]
Index = Annotated[
    Path | None, typer.Option("--index", help="Folder of the index files, if not in the data's.")
]
Scenes = Annotated[
    list[str] | None,
    typer.Option("--scene", help="Scene or sequence to take; may be given several times."),
]
Resize = Annotated[
    str | None,
    typer.Option("--resize", help="none, 640x480, long-840, short-480, max-1600; /8 at the end."),
]
Estimators = Annotated[
    list[str] | None, typer.Option("--estimator", help="May be given several times.")
]
Thresholds = Annotated[
    list[float] | None,
    typer.Option("--threshold", help="Of an inlier, in pixels; may be given several times."),
]
Change = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any other option of the protocol."),
]


def run_benchmark(
    name: Name,
    data: Data,
    options: RunOptions,
    out: Out = None,
    protocol: Protocol = "",
    index: Index = None,
    scene: Scenes = None,
    resize: Resize = None,
    estimator: Estimators = None,
    threshold: Thresholds = None,
    change: Change = None,
) -> None:
    """Run a public benchmark: match its images once, score every estimator and threshold.

    The results are written into OUT too, as results-METHOD-FINGERPRINT.json, for `compare`.
    """
    from sfm_match.benchmarks.run import run_benchmark as run
    from sfm_match.benchmarks.tables import format_results

    out = out or Path(f"benchmark-{name}")
    recipe = options.settings(out, data)
    results = run(
        name,
        data,
        recipe,
        out,
        protocol=protocol,
        options=_options(resize, estimator, threshold, change),
        index=index,
        scenes=scene or (),
        device=options.device,
        threads=options.threads,
        progress=options.progress,
    )
    path = out / f"results-{_label(recipe, results)}.json"
    write_text(path, json.dumps(results, indent=1))
    show(options.as_json, format_results(results), results)
    typer.echo(f"results: {path}", err=True)
    for image, reason in results["failures"].items():
        typer.echo(f"left out: {image}: {reason}", err=True)
    if results["failures"]:
        raise typer.Exit(LEFT_OUT)


def _options(
    resize: str | None,
    estimators: list[str] | None,
    thresholds: list[float] | None,
    changes: list[str] | None,
) -> dict[str, Any]:
    named = {"resize": resize, "estimators": estimators, "thresholds": thresholds}
    given = parse_settings(changes or ())
    nested = [key for key, value in given.items() if isinstance(value, dict)]
    if nested:
        raise ConfigError(f"--set {nested[0]}: the options of a protocol have no tables")
    return {**{key: value for key, value in named.items() if value is not None}, **given}


def _label(recipe: Recipe, results: dict[str, Any]) -> str:
    """Return the name of results; those of other settings have another fingerprint."""
    specs = [spec for spec in (recipe.features, recipe.matcher, recipe.refiner) if spec]
    made_from = [recipe.fingerprints, recipe.seed]
    made_from += [results[name] for name in ("protocol", "settings", "scenes")]
    return "-".join([*(spec.name for spec in specs), fingerprint(made_from)])


app.command("benchmark")(with_run_options(run_benchmark, without=("pairs", "wait")))


@app.command("compare")
def compare_results(
    a: Annotated[Path, typer.Argument(help="JSON of a result.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="JSON of another of the same pairs.")],
    samples: Annotated[int, typer.Option("--samples", min=100, help="Bootstrap samples.")] = 10_000,
    confidence: Annotated[
        float, typer.Option("--confidence", min=0.5, max=0.999, help="Of the intervals.")
    ] = 0.95,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the samples.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two results of `benchmark` or `eval pairs`: B less A, with bootstrap intervals."""
    from sfm_match.benchmarks.compare import compare, format_comparison, read_result

    found = compare(
        read_result(a), read_result(b), num_samples=samples, confidence=confidence, seed=seed
    )
    show(as_json, format_comparison(found), found)
