"""Relative poses compared with the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfm_match.cli.options import Images, RunOptions, with_run_options
from sfm_match.cli.output import LEFT_OUT, show
from sfm_match.stages.evaluate_pairs import evaluate_pairs
from sfm_match.stages.pair_results import format_pairs_evaluation

Truth = Annotated[
    Path,
    typer.Argument(
        help="A list of pairs as SuperGlue's: name0 name1 rotation0 rotation1 K0 (9 values) K1 (9) "
        "T_0to1 (16), where K has the centre of the first pixel at (0, 0), and a rotation is the "
        "quarter turns counter-clockwise that turn the picture upright; or a folder with a COLMAP "
        "model, of which all pairs are taken.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder where features and matches are kept for the next time."),
]
Estimator = Annotated[
    list[str],
    typer.Option("--estimator", help="poselib, pycolmap or opencv; may be given several times."),
]
Threshold = Annotated[
    list[float],
    typer.Option(
        "--threshold",
        help="Largest distance of an inlier from the epipolar geometry, in pixels; may be given "
        "several times.",
    ),
]
MinAngle = Annotated[
    float,
    typer.Option(
        "--min-angle", min=0, max=180, help="Least angle between the viewing directions, degrees."
    ),
]
MaxAngle = Annotated[
    float,
    typer.Option(
        "--max-angle", min=0, max=180, help="Largest angle between the viewing directions, degrees."
    ),
]


def compare_pairs(
    truth: Truth,
    images: Images,
    options: RunOptions,
    out: Out = None,
    estimator: Estimator = ["poselib"],  # noqa: B006 (typer copies it)
    threshold: Threshold = [1.5],  # noqa: B006
    min_angle: MinAngle = 0.0,
    max_angle: MaxAngle = 180.0,
) -> None:
    """Match pairs of images and compare their relative poses with the truth.

    AUC of the larger of the rotation's and the translation direction's error, 180 degrees where
    there is no pose; precision and matching score as in SuperGlue (epipolar, 5e-4).
    """
    evaluation = evaluate_pairs(
        truth,
        options.settings(out or images, images),
        out,
        estimators=estimator,
        thresholds=threshold,
        min_angle=min_angle,
        max_angle=max_angle,
        device=options.device,
        threads=options.threads,
        progress=options.progress,
    )
    show(options.as_json, format_pairs_evaluation(evaluation), evaluation.to_dict())
    for name, reason in evaluation.failures.items():
        typer.echo(f"left out: {name}: {reason}", err=True)
    if evaluation.missing:
        num = len(evaluation.missing)
        typer.echo(f"left out: {num} images of the truth are not in {images}", err=True)
    if evaluation.failures or evaluation.missing:
        raise typer.Exit(LEFT_OUT)


command = with_run_options(compare_pairs, without=("pairs", "mapper", "wait"))
