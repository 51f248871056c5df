"""The report: one HTML file that needs nothing else and loads nothing."""

from __future__ import annotations

import base64
import gzip
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.io.files import write_text
from sfm_match.report.charts import Histogram, error_histogram, length_histogram
from sfm_match.report.embedded import (
    embed_images,
    embed_matrix,
    embed_model,
    embed_pairs,
    safe_json,
)
from sfm_match.report.errors import Observations, observations_of
from sfm_match.report.graph import Drawing, draw_graph
from sfm_match.report.material import Material
from sfm_match.report.model_view import ModelView, evenly, view_model
from sfm_match.report.notes import graph_notes, images_note, model_notes
from sfm_match.report.pairs_shown import ShownPair, choose_pairs
from sfm_match.report.tables import duration, image_rows, stage_rows, summary_tiles
from sfm_match.report.thumbnails import Thumbnail, make_thumbnails
from sfm_match.report.verdict import judge

MAX_POINTS = 40_000
MAX_IMAGES = 2000
MAX_EDGES = 1500
_PICTURE_BYTES = 2_000_000
_PICTURE_SIDE = 800
_PAIR_PICTURE_BYTES = 500_000
_PAIR_PICTURE_SIDE = 640
_PROGRAMS = ("pictures.js", "scene.js", "pairs.js", "matrix.js", "controls.js")


@dataclass(frozen=True)
class ReportFile:
    """The file that was written.

    Attributes:
        path: of the file.
        bytes: its size.
        images: how many images it shows.
        points: how many 3D points it shows.
    """

    path: Path
    bytes: int
    images: int
    points: int


def write_report(material: Material, path: Path, threads: int) -> ReportFile:
    """Write the report, below 10 MB whatever the size of the run.

    Of more than `MAX_IMAGES` images, `MAX_POINTS` points and `MAX_EDGES` pairs an even part, or
    the strongest, are shown, and the page says so.

    Args:
        material: what it is made from.
        path: the file.
        threads: how many images to decode at once.

    Raises:
        FileError: the file cannot be written.
    """
    all_names = material.names
    names = [all_names[row] for row in evenly(len(all_names), MAX_IMAGES)]
    model, graph = material.model, material.graph
    observed = {} if model is None else observations_of(model)
    view = None if model is None else view_model(model, material.truth, MAX_POINTS, names)
    pairs = choose_pairs(graph) if graph else []
    pictures, pair_pictures = _pictures(material, names, pairs, threads)
    embedded: dict[str, Any] = {
        **embed_images(names, pictures, material, observed),
        **embed_pairs(pairs, pair_pictures, material),
        **embed_matrix(material),
    }
    if view is not None:
        embedded |= embed_model(view, names)
    drawing = None
    if graph is not None:
        drawing = draw_graph(len(graph.names), graph.pairs, graph.num_inliers, MAX_EDGES)
    context = {
        "material": material,
        "results": material.results,
        "title": title_of(material.images),
        "made": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "verdict": judge(material.results, len(observed) if model else None, material.findings),
        "tiles": summary_tiles(material, observed),
        "rows": image_rows(material, names, observed),
        "part": images_note(len(names), len(all_names)),
        "has_pictures": bool(pictures),
        "view": view,
        "pairs": [p for p in pairs if {p.a, p.b} <= pair_pictures.keys()],
        "drawing": drawing,
        "graph": graph,
        "lines": _lines(drawing),
        "notes": [] if view is None else model_notes(view),
        "graph_notes": _graph_notes(material, drawing, observed),
        "histograms": _histograms(material, observed),
        "stages": stage_rows(material.results["stages"]),
        "command": _command(material),
        "registered": observed.keys(),
    }
    text = _render(context, embedded, view)
    write_text(path, text)
    return ReportFile(path, path.stat().st_size, len(names), len(view.points) if view else 0)


def _pictures(
    material: Material, names: list[str], pairs: list[ShownPair], threads: int
) -> tuple[dict[str, Thumbnail], dict[str, Thumbnail]]:
    """Return the pictures of the images and those, often larger, of the pairs."""
    of_pairs = {name for pair in pairs for name in (pair.a, pair.b)}
    every, few = (
        {name: path for name in chosen if (path := material.images / name).is_file()}
        for chosen in (names, sorted(of_pairs))
    )
    return (
        make_thumbnails(every, _PICTURE_BYTES, _PICTURE_SIDE, threads),
        make_thumbnails(few, _PAIR_PICTURE_BYTES, _PAIR_PICTURE_SIDE, threads),
    )


def _graph_notes(
    material: Material, drawing: Drawing | None, observed: Mapping[str, Observations]
) -> list[str]:
    if material.graph is None or drawing is None:
        return []
    return graph_notes(drawing, len(set(material.graph.names) - observed.keys()))


def _lines(drawing: Drawing | None) -> list[dict[str, float]]:
    """Return the lines of the match graph: their ends, and how strong they are, from 0 to 1."""
    if drawing is None or not len(drawing.edges):
        return []
    ends = drawing.places[drawing.edges].reshape(-1, 4).round(4).tolist()
    strengths = np.log1p(drawing.weights) / np.log1p(drawing.weights.max())
    return [
        {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "strength": round(strength, 3)}
        for (x1, y1, x2, y2), strength in zip(ends, strengths.tolist(), strict=True)
    ]


def _histograms(material: Material, observed: Mapping[str, Observations]) -> dict[str, Histogram]:
    if material.model is None or not material.model.num_points3D():
        return {}
    points = material.model.points3D.values()
    lengths = np.array([point.track.length() for point in points], np.int64)
    errors = np.concatenate([found.found for found in observed.values()])
    return {
        "Track length": length_histogram(lengths),
        "Reprojection error": error_histogram(errors),
    }


def _command(material: Material) -> str:
    """Return the command that runs the same again."""
    images, recipe = shlex.quote(str(material.images)), "recipe.toml"
    return f"sfm-match run {images} OUT --recipe {recipe}"


def _render(context: dict[str, Any], embedded: dict[str, Any], view: ModelView | None) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page = files("sfm_match.report") / "page"
    program = "\n".join((page / name).read_text(encoding="utf-8") for name in _PROGRAMS)
    library = ""
    if view is not None:
        from plotly.offline import get_plotlyjs

        packed = gzip.compress(get_plotlyjs().encode(), mtime=0)
        library = base64.b64encode(packed).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["duration"] = duration
    template = environment.from_string((page / "page.html").read_text(encoding="utf-8"))
    # Only what is marked here is not escaped: files of this package and JSON that is safe.
    return template.render(
        context,
        style=Markup((page / "page.css").read_text(encoding="utf-8")),
        program=Markup(program),
        library=library,
        data=Markup(safe_json(embedded)),
    )


def title_of(images: Path) -> str:
    """Return what a folder of images is called: a folder `images` is named after its parent."""
    named = images.parent if images.name.lower() in ("images", "photos") else images
    return named.name or str(images)
