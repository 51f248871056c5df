"""Graphs on keypoints: Delaunay triangulation, nearest neighbours, all pairs.

Edges are not directed: int64 (E, 2), the lower row first, each once, sorted. The graph moves with
the points when they are permuted, but for ties of distances and of cocircular points. Keypoints
that coincide, as SIFT's with two orientations, are no error: they have the same neighbours, and
each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay, QhullError, cKDTree

from sfm_match.types import ArrayBool, ArrayF64

Edges = npt.NDArray[np.int64]
Points = npt.NDArray[np.floating[Any]]


def delaunay_edges(points: Points) -> Edges:
    """Return the edges of the Delaunay triangulation.

    Points on a line have none: each is linked to the next one along it.

    Args:
        points: floating (N, 2), finite.

    Returns:
        int64 (E, 2).

    Raises:
        ValueError: the points are not finite or not (N, 2).
    """
    points = _checked(points)
    places, place_of = np.unique(points, axis=0, return_inverse=True)
    return _of_all_points(_triangulate(places), place_of.reshape(-1))


def knn_edges(points: Points, k: int) -> Edges:
    """Link each point to its k nearest others: two are linked where either is near to the other.

    Args:
        points: floating (N, 2), finite.
        k: how many, at least one; fewer points have all edges.

    Returns:
        int64 (E, 2).

    Raises:
        ValueError: the points are not finite or not (N, 2), or k is below 1.
    """
    points = _checked(points)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    num = len(points)
    if num <= k + 1:
        return full_edges(num)
    found = np.asarray(cKDTree(points).query(points, k=k + 1)[1], np.int64)
    rows = np.arange(num)[:, None]
    # Where many coincide, a point need not be among its own nearest: then the last one is too many.
    others = found != rows
    others[others.all(axis=1), -1] = False
    links = np.stack([np.broadcast_to(rows, found.shape)[others], found[others]], axis=1)
    return _undirected(links)


def full_edges(num: int) -> Edges:
    """Return all pairs of `num` points, int64 (num (num - 1) / 2, 2)."""
    return np.stack(np.triu_indices(num, 1), axis=1).astype(np.int64)


def adjacency(edges: Edges, num: int) -> ArrayBool:
    """Return the symmetric matrix bool (num, num) that is True where an edge (E, 2) is."""
    matrix = np.zeros((num, num), np.bool_)
    matrix[edges[:, 0], edges[:, 1]] = True
    return matrix | matrix.T


def _checked(points: Points) -> ArrayF64:
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError(f"points must be finite (N, 2), got {points.dtype} {points.shape}")
    return points.astype(np.float64)


def _triangulate(places: ArrayF64) -> Edges:
    """Return the edges of a triangulation of points no two of which coincide."""
    if len(places) < 3:
        return full_edges(len(places))
    centred = places - places.mean(axis=0)
    try:
        found = Delaunay(centred)
    except QhullError:
        return _along_a_line(centred)
    corners = found.simplices[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    # Too close to others for qhull to triangulate: linked to the nearest corner.
    left_out = found.coplanar[:, [0, 2]]
    return _undirected(np.concatenate([corners, left_out]).astype(np.int64))


def _along_a_line(centred: ArrayF64) -> Edges:
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    order = np.argsort(centred @ axes[0], kind="stable")
    return _undirected(np.stack([order[:-1], order[1:]], axis=1))


def _of_all_points(edges: Edges, place_of: npt.NDArray[np.int64]) -> Edges:
    """Return the edges of points from those of the places, of which each point has one."""
    order = np.argsort(place_of, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(place_of[order])) + 1)
    if len(members) == len(place_of):
        return _undirected(order[edges])
    crowded = [place for place, rows in enumerate(members) if len(rows) > 1]
    among = [rows[full_edges(len(rows))] for rows in (members[place] for place in crowded)]
    across = [
        np.stack(np.meshgrid(members[a], members[b]), axis=-1).reshape(-1, 2) for a, b in edges
    ]
    return _undirected(np.concatenate([*among, *across, np.zeros((0, 2), np.int64)]))


def _undirected(links: Edges) -> Edges:
    """Return links (E, 2) with the lower row first, sorted, each once."""
    if len(links) == 0:
        return np.zeros((0, 2), np.int64)
    return np.unique(np.sort(links, axis=1), axis=0).astype(np.int64)
