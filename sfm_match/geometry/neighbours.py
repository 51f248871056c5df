"""Which images are near each other: by cameras, by shared points, by links over a third image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array

from sfm_match.types import ArrayF64

Indices = npt.NDArray[np.int64]

_BLOCK_ROWS = 256


def k_smallest(costs: npt.NDArray[np.floating[Any]], num: int) -> Indices:
    """Return the smallest costs of each row that are finite, at most `num` of them.

    Args:
        costs: floating (R, N).
        num: how many of each row, at least one.

    Returns:
        int64 (M, 2), row and column, row by row with ascending cost, equal costs in the order of
        their columns.
    """
    if costs.shape[1] > num:
        limit = np.partition(costs, num - 1, axis=1)[:, num - 1 : num]
        rows, columns = np.nonzero((costs <= limit) & np.isfinite(costs))
    else:
        rows, columns = np.nonzero(np.isfinite(costs))
    order = np.lexsort((columns, costs[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    # What ties with the last one may be too much.
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return np.stack([rows, columns], axis=1)[rank < num]


def nearest_others(
    costs: Callable[[slice], npt.NDArray[np.floating[Any]]], num_images: int, num: int
) -> Indices:
    """Return the images of smallest finite cost for each image, itself excepted.

    Args:
        costs: called with a block of rows, gives their costs to all, floating (R, num_images).
        num_images: how many images there are.
        num: how many for each, at most.

    Returns:
        int64 (M, 2), as `k_smallest`.
    """
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, num_images, _BLOCK_ROWS):
        block = costs(slice(start, min(start + _BLOCK_ROWS, num_images)))
        np.fill_diagonal(block[:, start:], np.inf)
        found.append(np.add(k_smallest(block, num), (start, 0)))
    return np.concatenate(found)


def camera_distances(
    centres0: ArrayF64, axes0: ArrayF64, centres1: ArrayF64, axes1: ArrayF64, max_angle: float
) -> ArrayF64:
    """Return the distances of cameras, infinite where they look in too different directions.

    Args:
        centres0: float64 (R, 3), projection centres.
        axes0: float64 (R, 3), unit optical axes in the world.
        centres1: float64 (N, 3).
        axes1: float64 (N, 3).
        max_angle: the largest angle between two optical axes, in degrees. A turn of the camera
            about its axis does not count.

    Returns:
        float64 (R, N), in the world's units.
    """
    distances = np.linalg.norm(centres0[:, None] - centres1[None], axis=2)
    cosines = np.clip(axes0 @ axes1.T, -1, 1)
    return np.where(cosines >= np.cos(np.radians(max_angle)) - 1e-12, distances, np.inf)


def shared_points(images: Indices, points: Indices, num_images: int) -> csr_array:
    """Return how many points each two images share, int64 (num_images, num_images).

    Args:
        images: int64 (M,), the image of each observation, from 0 on.
        points: int64 (M,), the point of each observation, from 0 on. An image that observes a
            point twice shares it once.
        num_images: how many images there are.

    Returns:
        a symmetric sparse matrix with an empty diagonal.
    """
    num_points = int(points.max(initial=-1)) + 1
    shape = (num_images, num_points)
    seen = csr_array(coo_array((np.ones(len(images), np.int64), (images, points)), shape=shape))
    seen.data[:] = 1
    counts = csr_array(seen @ seen.T)
    counts.setdiag(0)
    counts.eliminate_zeros()
    return counts


def neighbours_of_neighbours(links: Indices, weights: ArrayF64, num_images: int) -> csr_array:
    """Return how strongly images that are not linked hang together over a third one.

    Over each common neighbour j the images i and k hang together by the geometric mean of the
    weights of i-j and j-k; all common neighbours count together.

    Args:
        links: int64 (M, 2), linked images, each pair once.
        weights: float64 (M,), positive.
        num_images: how many images there are.

    Returns:
        a symmetric sparse matrix, float64 (num_images, num_images), with an empty diagonal.
    """
    shape = (num_images, num_images)
    upper = coo_array((np.sqrt(weights), (links[:, 0], links[:, 1])), shape=shape)
    roots = csr_array(upper + upper.T)
    over = csr_array(roots @ roots)
    over.setdiag(0)
    linked = csr_array(roots > 0)
    over = csr_array(over - over.multiply(linked))
    over.eliminate_zeros()
    return over
