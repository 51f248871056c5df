"""In which turn keypoints are chosen so that they cover the image evenly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sfm_match.types import ArrayF32

_KEYPOINTS_PER_CELL = 8

ArrayI64 = npt.NDArray[np.int64]


def turns(points: ArrayF32, rank: ArrayI64, limit: int) -> ArrayI64:
    """Return in which turn each point is chosen, int64 (N,): 0 for the best of each part.

    The points' bounding box is cut into square cells, about one for eight points that are to be
    kept. The best point of each cell comes first, then the second best of each, and so on.

    Args:
        points: float32 (N, 2), x and y in pixels.
        rank: int64 (N,), larger is better, no two equal.
        limit: how many points are to be kept.
    """
    if len(points) == 0:
        return np.zeros(0, np.int64)
    low = points.min(axis=0)
    width, height = (points.max(axis=0) - low + 1).tolist()
    size = np.sqrt(width * height * _KEYPOINTS_PER_CELL / limit)
    columns, rows = np.floor((points - low) / size).astype(np.int64).T
    cells = rows * (int(columns.max()) + 1) + columns
    order = np.lexsort((-rank, cells))
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - np.repeat(starts, sizes)
    return turn
