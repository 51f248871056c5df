"""Two images with too many keypoints for a solver: overlapping parts, matched one by one.

A part is around a seed, a pair of mutual nearest neighbours by their features: the keypoints
nearest to the seed in either image. What the parts find is merged by vote: a match found in several
of them counts more. A part around a wrong seed has no partners in common, and its votes are spread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

from sfm_match.types import ArrayF32, ArrayF64

Indices = npt.NDArray[np.int64]

_LEAST_VOTE = 1e-3


def cut_parts(
    points0: ArrayF64, points1: ArrayF64, seeds: Indices, num_nodes: int, overlap: int
) -> tuple[Indices, Indices]:
    """Return the keypoints of each part, the nearest to the seed first.

    Seeds are taken in their order; one is left out where both its keypoints are in `overlap` parts.

    Args:
        points0: float64 (N, 2).
        points1: float64 (M, 2).
        seeds: int64 (S, 2), rows of the points; the best first.
        num_nodes: keypoints of a part in each image.
        overlap: how many parts a keypoint is to be in.

    Returns:
        int64 (P, n) and (P, m), rows of either image's points; n is `num_nodes`, or N if that is
        less.
    """
    near0 = _nearest(points0, points0[seeds[:, 0]], num_nodes)
    near1 = _nearest(points1, points1[seeds[:, 1]], num_nodes)
    covered0, covered1 = np.zeros(len(points0), np.int64), np.zeros(len(points1), np.int64)
    chosen = []
    for part, (row0, row1) in enumerate(seeds):
        if covered0[row0] < overlap or covered1[row1] < overlap:
            chosen.append(part)
            covered0[near0[part]] += 1
            covered1[near1[part]] += 1
    return near0[chosen], near1[chosen]


def _nearest(points: ArrayF64, centres: ArrayF64, num: int) -> Indices:
    _, found = cKDTree(points).query(centres, k=np.arange(1, min(num, len(points)) + 1))
    return np.asarray(found, np.int64).reshape(len(centres), -1)


def merge_votes(
    parts: tuple[Indices, Indices],
    votes: Callable[[slice], ArrayF32],
    step: int,
    similarity: Callable[[Indices, Indices], ArrayF32],
) -> tuple[Indices, ArrayF32]:
    """Return the pairs of keypoints whose votes are the highest of both.

    Args:
        parts: int64 (P, n) and (P, m), the keypoints of each part.
        votes: called with some parts, gives the votes for all their pairs, float32 (B, n, m).
        step: how many parts at once.
        similarity: called with rows of either image, gives how similar the keypoints are,
            float32 (K,): of equal votes the more similar pair counts.

    Returns:
        int64 (M, 2), one to one, and the sums of their votes, float32 (M,).
    """
    rows, columns, values = [], [], []
    for block in _blocks(len(parts[0]), step):
        found = votes(block)
        which, i, j = np.nonzero(found > _LEAST_VOTE)
        rows.append(parts[0][block][which, i])
        columns.append(parts[1][block][which, j])
        values.append(found[which, i, j])
    if not rows:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    table = coo_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))))
    table.sum_duplicates()
    row, column = (np.asarray(ends, np.int64) for ends in table.coords)
    order = np.lexsort((similarity(row, column), table.data))[::-1]
    best = _first(row[order]) & _first(column[order])
    chosen = order[best]
    return np.stack([row[chosen], column[chosen]], axis=1), table.data[chosen].astype(np.float32)


def _blocks(num: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, num)) for start in range(0, num, step))


def _first(values: Indices) -> npt.NDArray[np.bool_]:
    """Return where a value occurs for the first time."""
    _, where = np.unique(values, return_index=True)
    first = np.zeros(len(values), np.bool_)
    first[where] = True
    return first
