"""Annotated keypoints, matched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sfm_match.cli.options import AsJson
from sfm_match.cli.output import show
from sfm_match.geometry.keypoint_graphs import delaunay_edges
from sfm_match.report.colours import AGREES, DISAGREES
from sfm_match.report.figures import check_format, compose, save_figure
from sfm_match.report.pictures import Panel, draw_graph, draw_matches
from sfm_match.spec import ConfigError, Spec
from sfm_match.stages.executor import resolve_device
from sfm_match.stages.match_points import PointMatches, match_points
from sfm_match.stages.recipe import parse_settings

app = typer.Typer()

# Every annotated keypoint has a partner.
_ALL_MATCHED = {"pygm": {"dustbin": 0.0}}

Points = "Its keypoints: a .mat file as Willow's, or text with x and y in each line."
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "-o", "--option", metavar="matcher.KEY=VALUE", help="Set an option of the matcher."
    ),
]


@app.command("match-points")
def match_annotated(
    image0: Annotated[Path, typer.Argument(help="An image.", show_default=False)],
    image1: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    points0: Annotated[Path, typer.Argument(help=Points, show_default=False)],
    points1: Annotated[Path, typer.Argument(help="Those of the other image.", show_default=False)],
    matcher: Annotated[str, typer.Option("--matcher", help="A matcher of features.")] = "pygm",
    option: Settings = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Picture to write, .png or .svg; IMAGE0--IMAGE1.png by default."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="Torch device.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Match keypoints that were annotated in two images, and count how many are right.

    Keypoint i of one image belongs to keypoint i of the other. The picture shows right matches and
    wrong ones, and both Delaunay graphs.
    """
    path = to or Path(f"{image0.stem}--{image1.stem}.png")
    check_format(path)
    spec = Spec.parse("matchers", matcher, _options(matcher, option or []), where="matcher")
    found = match_points((image0, image1), (points0, points1), spec, resolve_device(device))
    title = f"{image0.name}, {image1.name}: {_label(spec)}"
    save_figure(compose([[_matches(found)], [_graphs(found)]], title), path)
    correct, num = int(found.correct.sum()), len(found.points[0])
    text = (
        f"{len(found.matches)} matches; {correct} of {num} keypoints matched right "
        f"({found.accuracy:.1%}); {path}"
    )
    show(as_json, text, {**found.to_dict(), "picture": str(path)})


def _options(matcher: str, settings: list[str]) -> dict[str, object]:
    tables = parse_settings(settings)
    for name in tables:
        if name != "matcher":
            raise ConfigError(f"-o {name}: only options of the matcher, as matcher.KEY=VALUE")
    return {**_ALL_MATCHED.get(matcher, {}), **tables.get("matcher", {})}


def _label(spec: Spec) -> str:
    solver = spec.config.get("solver")
    return f"{spec.name} ({solver})" if solver else spec.name


def _matches(found: PointMatches) -> Panel:
    """Draw right matches and wrong ones in their colours."""
    panels = []
    for chosen, colour in ((found.correct, AGREES), (~found.correct, DISAGREES)):
        rows = found.matches.indices[chosen]
        ends = found.points[0][rows[:, 0]], found.points[1][rows[:, 1]]
        panels.append(draw_matches(*found.images, *ends, colour=colour))
    right, wrong = panels
    num_right = int(found.correct.sum())
    return replace(
        right,
        caption=f"{num_right} right, {len(found.matches) - num_right} wrong, "
        f"{len(found.points[0]) - len(found.matches)} not matched",
        lines=right.lines + wrong.lines,
        dots=right.dots + wrong.dots,
    )


def _graphs(found: PointMatches) -> Panel:
    edges = [delaunay_edges(points) for points in found.points]
    return draw_graph(found.images, found.points, edges, caption="Delaunay graphs")
