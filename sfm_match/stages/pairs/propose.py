"""Pairs to add once some are verified."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from sfm_match.geometry.neighbours import nearest_others, neighbours_of_neighbours
from sfm_match.stages.pairs.config import Config
from sfm_match.stages.pairs.places import pairs_of_rows
from sfm_match.types import ArrayF64, Pair


def propose_pairs(
    inliers: Mapping[Pair, int], tried: Collection[Pair], config: Config
) -> list[Pair]:
    """Return the pairs of neighbours of neighbours that were not tried yet, sorted.

    Each image gets those `config.neighbours` of them to which its verified pairs link it best.

    Args:
        inliers: the verified pairs -> the number of their inliers.
        tried: all pairs that were matched, verified or not.
        config: what a link is, and how many are proposed.
    """
    strong = {pair: num for pair, num in inliers.items() if num >= config.expand_inliers}
    names = sorted({name for pair in strong for name in (pair.a, pair.b)})
    row = {name: i for i, name in enumerate(names)}
    links = np.array([(row[pair.a], row[pair.b]) for pair in strong], np.int64).reshape(-1, 2)
    weights = np.array(list(strong.values()), np.float64)
    known = [(row[p.a], row[p.b]) for p in tried if p.a in row and p.b in row]
    done = np.array(known, np.int64).reshape(-1, 2)
    over = neighbours_of_neighbours(links, weights, len(names))

    def costs(rows: slice) -> ArrayF64:
        strength = over[rows].toarray()
        for a, b in (done.T, done.T[::-1]):
            mine = (a >= rows.start) & (a < rows.stop)
            strength[a[mine] - rows.start, b[mine]] = 0
        return np.where(strength > 0, -strength, np.inf)

    return pairs_of_rows(names, nearest_others(costs, len(names), config.neighbours))
