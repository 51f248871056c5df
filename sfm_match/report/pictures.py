"""Keypoints, graphs, matches and maps drawn on photographs: panels, which `figures` lays out.

A panel is data: pictures beside each other in one height, with dots and lines on them. Points are
in corner-origin pixels of the pictures they are given with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sfm_match.report.colours import (
    AGREES,
    FAINT,
    Floats,
    Scale,
    map_scale,
    muted,
    score_scale,
)
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Image

Rows = npt.NDArray[np.integer[Any]]

_GAP = 0.012  # between two pictures, as a part of their height
_MAX_ASPECT = 4.0


@dataclass(frozen=True, eq=False)
class Dots:
    """Points of a panel.

    Attributes:
        points: float64 (N, 2), in the panel's units.
        colours: float32 (N, 3), or one colour for all.
        size: their diameter in typographic points.
    """

    points: ArrayF64
    colours: ArrayF32 | str
    size: float


@dataclass(frozen=True, eq=False)
class Lines:
    """Straight lines of a panel.

    Attributes:
        ends: float64 (M, 2, 2), their two ends, in the panel's units.
        colours: float32 (M, 3), or one colour for all.
        width: in typographic points.
        opacity: from 0 to 1.
    """

    ends: ArrayF64
    colours: ArrayF32 | str
    width: float
    opacity: float


@dataclass(frozen=True, eq=False)
class Panel:
    """One or two pictures, what is drawn on them, and what it is.

    Attributes:
        caption: what it shows, in one line.
        pictures: uint8 (H, W, 3) or (H, W).
        boxes: left, top, right and bottom of each picture, in the panel's units.
        lines: below the dots.
        dots: on the pictures.
        scale: what the colours mean, where they are those of values.
    """

    caption: str
    pictures: tuple[Image, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    lines: tuple[Lines, ...] = ()
    dots: tuple[Dots, ...] = ()
    scale: Scale | None = None

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in the panel's units."""
        return max(box[2] for box in self.boxes), max(box[3] for box in self.boxes)

    def place(self, side: int, points: Floats) -> ArrayF64:
        """Return points (N, 2) of a picture in the panel's units, float64 (N, 2)."""
        left, top, right, _ = self.boxes[side]
        scale = (right - left) / self.pictures[side].shape[1]
        placed: ArrayF64 = np.asarray(points, np.float64) * scale + np.array([left, top])
        return placed


def panel_of(caption: str, *pictures: Image) -> Panel:
    """Return a panel of one picture or of two, with nothing on them.

    Two lie beside each other in the height of the first; wide ones above each other.
    """
    height, width = pictures[0].shape[:2]
    boxes = [(0.0, 0.0, float(width), float(height))]
    if len(pictures) > 1:
        height1, width1 = pictures[1].shape[:2]
        gap = _GAP * height
        beside = width1 * height / height1
        if (width + gap + beside) / height <= _MAX_ASPECT:
            boxes.append((width + gap, 0.0, width + gap + beside, float(height)))
        else:
            gap = _GAP * width
            boxes.append((0.0, height + gap, float(width), height + gap + height1 * width / width1))
    return Panel(caption, pictures, tuple(boxes))


def draw_picture(image: Image, caption: str) -> Panel:
    """Draw a picture as it is."""
    return panel_of(caption, image)


def draw_map(values: Floats, caption: str, scale: Scale | None = None) -> Panel:
    """Draw a map of values (H, W); from 0 to 1 without a scale."""
    scale = scale or map_scale()
    pixels = (scale.colours(values) * 255).round().astype(np.uint8)
    return replace(panel_of(caption, pixels), scale=scale)


def draw_keypoints(
    image: Image,
    points: Floats,
    scores: Floats | None = None,
    *,
    caption: str = "",
    max_keypoints: int = 0,
) -> Panel:
    """Draw keypoints, coloured by their scores.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        points: (N, 2).
        scores: (N,), larger is better; without, all have one colour.
        caption: the number of keypoints unless given.
        max_keypoints: draw the best so many; 0 for all.
    """
    order = np.arange(len(points)) if scores is None else np.argsort(-scores, kind="stable")
    rows = order[: max_keypoints or None][::-1]  # the best lie above the others
    panel = panel_of(caption or f"{_part(len(rows), len(points))} keypoints", muted(image))
    if scores is None:
        return replace(panel, dots=(Dots(panel.place(0, points[rows]), AGREES, 2.2),))
    scale = score_scale(scores[rows])
    dots = Dots(panel.place(0, points[rows]), scale.colours(scores[rows]), 2.2)
    return replace(panel, dots=(dots,), scale=scale)


def draw_graph(
    images: Sequence[Image],
    points: Sequence[Floats],
    edges: Sequence[Rows],
    common: Sequence[ArrayBool] | None = None,
    *,
    caption: str = "",
) -> Panel:
    """Draw the graph of one image's keypoints, or those of two images.

    Args:
        images: one or two, uint8 (H, W, 3) or (H, W).
        points: (N, 2) of each image.
        edges: (E, 2) of each image, rows of its points.
        common: bool (E,) of each image, the edges that both graphs have: they are set off from
            the others; all without.
        caption: the number of edges unless given.
    """
    caption = caption or " and ".join(f"{len(e)}" for e in edges) + " edges"
    panel = panel_of(caption, *(muted(image) for image in images))
    lines, dots = [], []
    for side, (of_image, pairs) in enumerate(zip(points, edges, strict=True)):
        places = panel.place(side, of_image)
        is_common = np.ones(len(pairs), np.bool_) if common is None else common[side]
        lines.append(Lines(places[pairs[~is_common]], FAINT, 0.5, 0.4))
        lines.append(Lines(places[pairs[is_common]], AGREES, 0.6, 0.9))
        dots.append(Dots(places, FAINT, 1.6))
    return replace(panel, lines=tuple(lines), dots=tuple(dots))


def draw_matches(
    image0: Image,
    image1: Image,
    points0: Floats,
    points1: Floats,
    values: Floats | None = None,
    *,
    scale: Scale | None = None,
    colour: str = AGREES,
    caption: str = "",
    max_lines: int = 0,
) -> Panel:
    """Draw matches as lines from one image to the other.

    Args:
        image0: uint8 (H, W, 3) or (H, W).
        image1: likewise.
        points0: (M, 2).
        points1: (M, 2).
        values: (M,), by which the lines are coloured; without, they have one colour.
        scale: the colours of values; without, one of scores over their range.
        colour: of all lines where there are no values.
        caption: the number of matches unless given.
        max_lines: draw so many at most, evenly chosen over the values; 0 for all.
    """
    rows = _chosen(len(points0), values, max_lines)
    caption = caption or f"{len(points0)} matches"
    if len(rows) < len(points0):
        caption += f", {len(rows)} drawn"
    panel = panel_of(caption, muted(image0), muted(image1))
    places = panel.place(0, points0[rows]), panel.place(1, points1[rows])
    colours: ArrayF32 | str = colour
    if values is not None:
        scale = scale or score_scale(values)
        colours = scale.colours(values[rows])
    few = len(rows) <= 150
    return replace(
        panel,
        lines=(Lines(np.stack(places, axis=1), colours, 0.8 if few else 0.6, 0.9 if few else 0.7),),
        dots=tuple(Dots(at, colours, 2.4 if few else 1.8) for at in places),
        scale=None if values is None else scale,
    )


def common_edges(edges: Rows, others: Rows, partners: Rows) -> ArrayBool:
    """Return which edges (E, 2) of a graph another one has, bool (E,).

    Args:
        edges: int (E, 2), the lower row first.
        others: int (F, 2), likewise, of the other graph.
        partners: int (N,), the other graph's node for each node; -1 for none.
    """
    ends = np.sort(partners[edges], axis=1)
    num = int(max(others.max(initial=-1), partners.max(initial=-1))) + 1
    found = np.isin(ends[:, 0] * num + ends[:, 1], others[:, 0] * num + others[:, 1])
    return np.asarray(found & (ends >= 0).all(axis=1), np.bool_)


def _chosen(num: int, values: Floats | None, limit: int) -> Rows:
    """Return the rows to draw, in the order of their values; evenly chosen where there are more."""
    order = np.arange(num) if values is None else np.argsort(values, kind="stable")
    if not limit or num <= limit:
        return order
    return order[np.linspace(0, num - 1, limit).round().astype(np.intp)]


def _part(drawn: int, num: int) -> str:
    return f"{num}" if drawn == num else f"the best {drawn} of {num}"
