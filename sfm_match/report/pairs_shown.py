"""The pairs that a report draws: the best, the worst, and those that verification refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfm_match.io.match_graph import MatchGraph, PairPoints
from sfm_match.report.model_view import evenly
from sfm_match.types import ArrayBool, ArrayF32

NUM_BEST, NUM_WORST, NUM_REFUSED = 2, 4, 2


@dataclass(frozen=True)
class ShownPair:
    """A pair that is drawn.

    Attributes:
        kind: `best`, `worst` or `refused`.
        a: the name of an image.
        b: the name of the other one.
        num_matches: of the pair.
        num_inliers: those that its geometry keeps.
    """

    kind: str
    a: str
    b: str
    num_matches: int
    num_inliers: int


def choose_pairs(graph: MatchGraph) -> list[ShownPair]:
    """Return the pairs to draw.

    The best have the most inliers, the worst the fewest of those that were verified; refused are
    those with the most matches of those that were not.
    """
    order = np.lexsort((-graph.num_matches, -graph.num_inliers))
    verified = [row for row in order if graph.num_inliers[row] > 0]
    by_matches = np.argsort(-graph.num_matches, kind="stable")
    refused = [r for r in by_matches if graph.num_inliers[r] == 0 and graph.num_matches[r] > 0]
    best, rest = verified[:NUM_BEST], verified[NUM_BEST:]
    kinds = {"best": best, "worst": rest[::-1][:NUM_WORST], "refused": refused[:NUM_REFUSED]}
    return [_shown(graph, kind, int(row)) for kind, rows in kinds.items() for row in rows]


def _shown(graph: MatchGraph, kind: str, row: int) -> ShownPair:
    a, b = (graph.names[image] for image in graph.pairs[row])
    return ShownPair(kind, a, b, int(graph.num_matches[row]), int(graph.num_inliers[row]))


def some_lines(
    found: PairPoints, max_inliers: int, max_outliers: int
) -> tuple[ArrayF32, ArrayF32, ArrayBool]:
    """Return an even part of a pair's matches: points (M, 2) twice, and which are inliers (M,)."""
    rows = [
        kind[evenly(len(kind), at_most)]
        for kind, at_most in (
            (np.flatnonzero(~found.inliers), max_outliers),
            (np.flatnonzero(found.inliers), max_inliers),
        )
    ]
    chosen = np.concatenate(rows)
    return found.points0[chosen], found.points1[chosen], found.inliers[chosen]
