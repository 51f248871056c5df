"""Pictures of an image, or of the matches of two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfm_match.cli.options import Out, RunOptions, with_run_options
from sfm_match.cli.output import show as show_result
from sfm_match.report.figures import check_format, compose, save_figure
from sfm_match.report.pages import (
    OF_PAIR,
    Choice,
    ImageContent,
    PairContent,
    image_rows,
    pair_rows,
)
from sfm_match.report.pictures import Panel
from sfm_match.spec import ConfigError
from sfm_match.stages.executor import resolve_device
from sfm_match.stages.show import Shown, show_dense, show_image, show_pair
from sfm_match.stages.workspace import Workspace

app = typer.Typer()

_DENSE = {"descriptors", "maps"}

Name0 = Annotated[str, typer.Argument(help="An image, as OUT/pairs.txt names it.")]
Name1 = Annotated[str | None, typer.Argument(help="Another one, to see the matches of both.")]
Draw = Annotated[
    list[str] | None,
    typer.Option("--draw", help=f"Only this: {', '.join(OF_PAIR)}; may be given several times."),
]
To = Annotated[
    Path | None,
    typer.Option("--to", help="Picture to write, .png or .svg; in OUT/pictures by default."),
]
Truth = Annotated[
    Path | None,
    typer.Option("--truth", help="COLMAP model with the true poses: matches coloured by error."),
]
MaxLines = Annotated[
    int, typer.Option("--max-lines", min=0, help="Draw so many matches in a panel; 0 for all.")
]
MaxKeypoints = Annotated[
    int,
    typer.Option("--max-keypoints", min=0, help="Draw the best so many keypoints; 0 for all."),
]
Graph = Annotated[str, typer.Option("--graph", help="Edges between keypoints: delaunay or knn.")]
Neighbours = Annotated[
    int, typer.Option("--neighbours", min=1, help="Neighbours of a keypoint in the graph knn.")
]


def draw_picture(
    out: Out,
    name0: Name0,
    options: RunOptions,
    name1: Name1 = None,
    draw: Draw = None,
    to: To = None,
    truth: Truth = None,
    max_lines: MaxLines = Choice.max_lines,
    max_keypoints: MaxKeypoints = Choice.max_keypoints,
    graph: Graph = Choice.graph,
    neighbours: Neighbours = Choice.neighbours,
) -> None:
    """Write a picture of one image, or of the matches of two.

    One image: its keypoints, their graph, and what R2D2 and ALIKED say of all pixels. Two: their
    matches, coloured by score, or by the distance from the true epipolar lines with --truth;
    inliers and outliers beside each other; and which edges of their graphs are in both.
    """
    choice = Choice(tuple(draw or ()), max_lines, max_keypoints, graph, neighbours)
    if to is not None:
        check_format(to)
    if name1 is None and truth is not None:
        raise ConfigError("--truth tells the errors of matches: give two images")
    space = Workspace(out, options.settings(out), wait=False)
    names = (name0,) if name1 is None else (name0, name1)
    if name1 is None:
        rows = _rows_of_image(space, name0, choice, options.device)
    else:
        rows = _rows_of_pair(space, (name0, name1), choice, truth, options.device)
    path = to or out / "pictures" / _file_name(names, choice.draw)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(compose(rows, _title(space, names)), path)
    captions = [panel.caption for row in rows for panel in row]
    show_result(options.as_json, str(path), {"picture": str(path), "panels": captions})


def _rows_of_image(space: Workspace, name: str, choice: Choice, device: str) -> list[list[Panel]]:
    shown = show_image(space, name)
    with_dense = not choice.draw or bool(_DENSE & set(choice.draw))
    return image_rows(_content(space, shown, with_dense, device), choice)


def _rows_of_pair(
    space: Workspace, names: tuple[str, str], choice: Choice, truth: Path | None, device: str
) -> list[list[Panel]]:
    pair = show_pair(space, *names, truth=truth)
    found = PairContent(pair.points0, pair.points1, pair.scores, pair.inliers, pair.errors)
    with_dense = bool(_DENSE & set(choice.draw))
    first, second = (_content(space, shown, with_dense, device) for shown in pair.images)
    return pair_rows((first, second), names, found, choice)


def _content(space: Workspace, shown: Shown, with_dense: bool, device: str) -> ImageContent:
    dense = show_dense(space, shown.image, resolve_device(device)) if with_dense else None
    return ImageContent(
        shown.image,
        shown.points,
        shown.scores,
        None if dense is None else dense.descriptors,
        {} if dense is None else dense.maps,
    )


def _title(space: Workspace, names: tuple[str, ...]) -> str:
    specs = (space.recipe.features, space.recipe.matcher)[: len(names)]
    return f"{', '.join(names)}: {' + '.join(spec.name for spec in specs if spec is not None)}"


def _file_name(names: tuple[str, ...], drawn: tuple[str, ...]) -> str:
    """Return a file name that no other picture of the folder has."""
    parts = [name.replace("%", "%25").replace("/", "%2F") for name in names]
    return "--".join([*parts, *drawn]) + ".png"


app.command("show")(
    with_run_options(draw_picture, without=("pairs", "mapper", "seed", "threads", "quiet", "wait"))
)
