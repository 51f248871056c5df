"""Why there is no model, or a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfm_match.cli.options import AsJson
from sfm_match.cli.output import show
from sfm_match.logs import quiet_colmap
from sfm_match.report.doctor import Examination, examine_folder
from sfm_match.report.findings import Severity, format_findings, worst

WARNINGS = 5
PROBLEMS = 6

app = typer.Typer()

Place = Annotated[
    Path,
    typer.Argument(
        metavar="OUT_OR_DATABASE",
        help="Output folder, or a COLMAP database of any tool.",
        show_default=False,
    ),
]
Model = Annotated[
    Path | None,
    typer.Option("--model", help="COLMAP model of the database, if it is not below OUT."),
]
Pictures = Annotated[
    Path | None,
    typer.Option(
        "--images", help="Folder of images: detect SIFT in some again to check the pixel origin."
    ),
]


@app.command("doctor")
def doctor(
    place: Place, model: Model = None, images: Pictures = None, as_json: AsJson = False
) -> None:
    """Say what is wrong with a database or a run, and what to try; nothing is changed.

    Exit codes: 0 nothing is wrong, there may be notes; 5 warnings; 6 problems, which leave no model
    or a wrong one.
    """
    quiet_colmap()
    found = examine_folder(place, model=model, images=images)
    content = {
        "database": str(found.database),
        "counts": found.counts,
        "findings": [finding.to_dict() for finding in found.findings],
    }
    show(as_json, f"{_summary(found)}\n{format_findings(found.findings)}", content)
    severity = worst(found.findings)
    if severity is not None and severity > Severity.NOTE:
        raise typer.Exit(PROBLEMS if severity == Severity.PROBLEM else WARNINGS)


def _summary(found: Examination) -> str:
    counts = found.counts
    text = (
        f"{found.database}: {counts['images']} images, {counts['keypoints']} keypoints; "
        f"{counts['matched_pairs']} pairs with matches, {counts['verified_pairs']} verified"
    )
    if counts["inliers_per_pair"]:
        least, _, median, _, most = counts["inliers_per_pair"]
        text += f" (inliers: {least:.0f} to {most:.0f}, median {median:.0f})"
    return text
