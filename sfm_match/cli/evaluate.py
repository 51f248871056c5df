"""Results compared with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfm_match.cli import evaluate_pairs
from sfm_match.cli.options import AsJson
from sfm_match.cli.output import show
from sfm_match.stages.evaluate import evaluate_model, format_evaluation

app = typer.Typer(help="Compare results with the truth.", no_args_is_help=True)
app.command("pairs")(evaluate_pairs.command)


@app.command("model")
def compare_model(
    model: Annotated[Path, typer.Argument(help="COLMAP model, binary or text.")],
    truth: Annotated[Path, typer.Argument(help="COLMAP model with the true poses.")],
    as_json: AsJson = False,
) -> None:
    """Compare the poses of a model with the truth, after a similarity alignment."""
    evaluation = evaluate_model(model, truth)
    show(as_json, format_evaluation(evaluation), evaluation.to_dict())
