"""What there is to see of one image or of a pair, as rows of panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sfm_match.geometry.keypoint_graphs import delaunay_edges, knn_edges
from sfm_match.report.colours import (
    AGREES,
    DISAGREES,
    Floats,
    Scale,
    error_scale,
    principal_colours,
    score_scale,
)
from sfm_match.report.pictures import (
    Panel,
    Rows,
    common_edges,
    draw_graph,
    draw_keypoints,
    draw_map,
    draw_matches,
    draw_picture,
)
from sfm_match.spec import ConfigError, nearest
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Image

OF_IMAGE = ("keypoints", "edges", "descriptors", "maps")
OF_PAIR = ("matches", "inliers", "outliers", "edges", "keypoints", "descriptors", "maps")
GRAPHS = ("delaunay", "knn")


@dataclass(frozen=True)
class Choice:
    """What is drawn, and how much of it.

    Attributes:
        draw: some of `OF_IMAGE` or `OF_PAIR`; empty for all that there is of an image, and for
            what a pair's matches say.
        max_lines: matches drawn in a panel, evenly chosen over their scores or errors; 0 for all.
        max_keypoints: keypoints of an image that are drawn and linked, the best; 0 for all.
        graph: one of `GRAPHS`.
        neighbours: of the graph `knn`.
    """

    draw: tuple[str, ...] = ()
    max_lines: int = 200
    max_keypoints: int = 2000
    graph: str = "delaunay"
    neighbours: int = 5

    def __post_init__(self) -> None:
        if self.graph not in GRAPHS:
            raise ConfigError(f"no graph {self.graph!r}; {nearest(self.graph, GRAPHS)}")

    def edges(self, points: Floats) -> Rows:
        """Return the edges (E, 2) of the graph of points (N, 2)."""
        if self.graph == "knn":
            return knn_edges(points, self.neighbours)
        return delaunay_edges(points)

    @property
    def graph_name(self) -> str:
        """What the graph is called in captions."""
        return "Delaunay" if self.graph == "delaunay" else f"{self.neighbours} nearest neighbours"


@dataclass(frozen=True, eq=False)
class ImageContent:
    """What is known of one image. Points are in its corner-origin pixels.

    Attributes:
        image: uint8 (H, W, 3) or (H, W).
        points: float32 (N, 2), its keypoints.
        scores: float32 (N,).
        descriptors: floating (h, w, D), dense; None where the extractor has none.
        maps: by what they are called, (h, w), from 0 to 1.
    """

    image: Image
    points: ArrayF32
    scores: ArrayF32
    descriptors: ArrayF32 | None
    maps: Mapping[str, ArrayF32]


@dataclass(frozen=True, eq=False)
class PairContent:
    """What is known of the matches of two images.

    Attributes:
        points0: float32 (M, 2), in the first image.
        points1: float32 (M, 2), in the second image.
        scores: float32 (M,).
        inliers: bool (M,); None where the pair has not been verified.
        errors: float64 (M,), in pixels; None where the truth is not known.
    """

    points0: ArrayF32
    points1: ArrayF32
    scores: ArrayF32
    inliers: ArrayBool | None = None
    errors: ArrayF64 | None = None


def image_rows(shown: ImageContent, choice: Choice) -> list[list[Panel]]:
    """Return the panels of one image, two in a row.

    Raises:
        ConfigError: something is to be drawn that there is not.
    """
    kinds = _kinds(choice, OF_IMAGE, OF_IMAGE)
    panels: list[Panel] = []
    if "keypoints" in kinds:
        panels.append(_keypoints(shown, "", choice))
    if "edges" in kinds:
        rows = _best(shown, choice)
        edges = choice.edges(shown.points[rows])
        caption = f"{choice.graph_name}: {len(edges)} edges of {len(rows)} keypoints"
        panels.append(draw_graph([shown.image], [shown.points[rows]], [edges], caption=caption))
    dense = [panel for row in _dense_rows([shown], [""], kinds, choice) for panel in row]
    if dense and (len(panels) + len(dense)) % 2:
        panels.append(draw_picture(shown.image, "picture"))
    panels += dense
    return [panels[i : i + 2] for i in range(0, len(panels), 2)]


def pair_rows(
    images: tuple[ImageContent, ImageContent],
    names: tuple[str, str],
    found: PairContent,
    choice: Choice,
) -> list[list[Panel]]:
    """Return the panels of a pair.

    Without a choice: the matches; inliers and outliers beside each other where the pair has been
    verified; and the graphs of the inliers, or else of all matches.

    Raises:
        ConfigError: something is to be drawn that there is not.
    """
    verdicts = () if found.inliers is None else ("inliers", "outliers")
    kinds = _kinds(choice, OF_PAIR, ("matches", *verdicts, "edges"))
    rows: list[list[Panel]] = []
    if "matches" in kinds:
        rows.append([_matches(images, found, None, choice)])
    if chosen := [kind for kind in ("inliers", "outliers") if kind in kinds]:
        if found.inliers is None:
            raise ConfigError(
                f"{names[0]} and {names[1]} have not been verified, so there are no {chosen[0]} to "
                "draw; verify first, or --draw matches"
            )
        rows.append([_matches(images, found, kind, choice) for kind in chosen])
    if "edges" in kinds:
        rows.append([_graphs(images, found, choice)])
    if "keypoints" in kinds:
        captions = [f"{name}: " for name in names]
        rows.append([_keypoints(s, c, choice) for s, c in zip(images, captions, strict=True)])
    return rows + _dense_rows(images, names, kinds, choice)


def _kinds(choice: Choice, known: Sequence[str], default: Sequence[str]) -> Sequence[str]:
    for kind in choice.draw:
        if kind in OF_PAIR and kind not in known:
            raise ConfigError(f"--draw {kind}: is drawn between two images; name the other one too")
        if kind not in known:
            raise ConfigError(f"--draw {kind}: no such thing; {nearest(kind, known)}")
    return choice.draw or default


def _best(shown: ImageContent, choice: Choice) -> Rows:
    """Return the rows of the keypoints with the highest scores."""
    return np.argsort(-shown.scores, kind="stable")[: choice.max_keypoints or None]


def _keypoints(shown: ImageContent, prefix: str, choice: Choice) -> Panel:
    num, drawn = len(shown.points), len(_best(shown, choice))
    caption = f"{prefix}{num} keypoints" + ("" if drawn == num else f", the best {drawn} drawn")
    return draw_keypoints(
        shown.image,
        shown.points,
        shown.scores,
        caption=caption,
        max_keypoints=choice.max_keypoints,
    )


def _dense_rows(
    images: Sequence[ImageContent], names: Sequence[str], kinds: Sequence[str], choice: Choice
) -> list[list[Panel]]:
    """Return a row for the descriptors and one for each map, with a panel for each image."""
    rows: list[list[Panel]] = []
    captions = [f"{name}: " if name else "" for name in names]
    descriptors = [shown.descriptors for shown in images if shown.descriptors is not None]
    if "descriptors" in kinds and len(descriptors) == len(images):
        coloured = principal_colours(*descriptors)
        caption = f"{descriptors[0].shape[2]}-dimensional descriptors, three principal components"
        rows.append(
            [
                draw_picture(c, f"{name}{caption}")
                for c, name in zip(coloured, captions, strict=True)
            ]
        )
    for name in images[0].maps if "maps" in kinds else ():
        rows.append(
            [draw_map(s.maps[name], f"{c}{name}") for s, c in zip(images, captions, strict=True)]
        )
    if choice.draw and not rows and {"descriptors", "maps"} & set(kinds):
        raise ConfigError(
            "the extractor says nothing of all pixels, so there are no descriptors and maps to "
            "draw; r2d2 and aliked do"
        )
    return rows


def _matches(
    images: tuple[ImageContent, ImageContent],
    found: PairContent,
    verdict: str | None,
    choice: Choice,
) -> Panel:
    """Draw all matches, or the inliers, or the outliers."""
    keep = np.ones(len(found.scores), np.bool_)
    colour = AGREES
    if verdict is not None:
        assert found.inliers is not None
        keep = found.inliers if verdict == "inliers" else ~found.inliers
        colour = AGREES if verdict == "inliers" else DISAGREES
    values: Floats | None = None
    scale: Scale | None = None
    if found.errors is not None:
        values, scale = found.errors[keep], error_scale()
    elif verdict is None:
        values, scale = found.scores[keep], score_scale(found.scores)
    return draw_matches(
        images[0].image,
        images[1].image,
        found.points0[keep],
        found.points1[keep],
        values,
        scale=scale,
        colour=colour,
        caption=_caption(verdict or "matches", keep, found.errors),
        max_lines=choice.max_lines,
    )


def _caption(kind: str, keep: ArrayBool, errors: ArrayF64 | None) -> str:
    num = int(np.count_nonzero(keep))
    text = f"{num} {kind}"
    if kind != "matches" and len(keep):
        text += f" ({100 * num / len(keep):.0f} %)"
    if errors is not None and num:
        median = float(np.median(errors[keep]))
        digits = f"{median:.2g}" if median < 99 else f"{median:.0f}"
        text += f", median error {digits} px"
    return text


def _graphs(images: tuple[ImageContent, ImageContent], found: PairContent, choice: Choice) -> Panel:
    """Draw the graph of the matched keypoints of each image, common edges set off."""
    keep = np.ones(len(found.scores), np.bool_) if found.inliers is None else found.inliers
    of = "matches" if found.inliers is None else "inliers"
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(-found.scores[rows], kind="stable")[: choice.max_keypoints or None]]
    points = found.points0[rows], found.points1[rows]
    edges = choice.edges(points[0]), choice.edges(points[1])
    same = np.arange(len(rows))
    common = common_edges(edges[0], edges[1], same), common_edges(edges[1], edges[0], same)
    num, everything = int(np.count_nonzero(common[0])), max(map(len, edges))
    share = f" ({100 * num / everything:.0f} %)" if everything else ""
    caption = f"{choice.graph_name} of the {of}: {num} of {everything} edges{share} in both images"
    return draw_graph([s.image for s in images], points, edges, common, caption=caption)
