"""The report and the viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sfm_match.cli.options import AsJson, Out
from sfm_match.cli.output import show
from sfm_match.report.doctor import examine_folder
from sfm_match.report.material import gather, read_results, truth_of
from sfm_match.report.viewer import PORT, serve
from sfm_match.report.write import write_report
from sfm_match.stages.evaluate import evaluate_model
from sfm_match.stages.executor import num_cores

app = typer.Typer()

Truth = Annotated[
    Path | None,
    typer.Option(
        "--truth", help="COLMAP model with the true poses; the one of the run by default."
    ),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of images, where it is not where the run found it."),
]


@app.command("report")
def report(
    out: Out,
    truth: Truth = None,
    images: Images = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="The file; OUT/report.html by default.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Processor cores to use; all by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what came out of a run as one HTML file that needs nothing else."""
    results = read_results(out)
    evaluation = None
    if truth is not None and (out / "model").is_dir():
        evaluation = evaluate_model(out / "model", truth).to_dict()
    has_database = (out / "database.db").is_file()
    material = gather(
        out,
        images=images,
        truth=truth or truth_of(results),
        evaluation=evaluation,
        findings=examine_folder(out).findings if has_database else (),
    )
    made = write_report(material, to or out / "report.html", threads or num_cores())
    content: dict[str, Any] = {
        "path": str(made.path),
        "bytes": made.bytes,
        "images": made.images,
        "points": made.points,
    }
    text = f"{made.path}: {made.bytes / 1e6:.1f} MB; open it in a browser"
    show(as_json, text, content)


@app.command("view")
def view(
    out: Out,
    truth: Truth = None,
    images: Images = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to serve on.")] = PORT,
    host: Annotated[
        str,
        typer.Option("--host", help="Address to serve on; 0.0.0.0 lets other machines see it."),
    ] = "127.0.0.1",
) -> None:
    """Serve OUT/model in a browser, until Ctrl-C."""
    material = gather(out, images=images, truth=truth or truth_of(read_results(out)))
    serve(material, host, port, typer.echo)
