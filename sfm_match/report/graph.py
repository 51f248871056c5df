"""The match graph as a drawing: where the images lie, which pairs are drawn, the matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree, shortest_path

from sfm_match.types import ArrayBool, ArrayF64

ArrayInt = npt.NDArray[np.int64]

_LAID_OUT = range(31, 1501)
_APART = 1.5
_ROUND = np.pi / 2


@dataclass(frozen=True, eq=False)
class Drawing:
    """A graph laid out in the unit square.

    Attributes:
        places: float64 (N, 2), x and y (downwards) of the images, from 0 to 1.
        edges: int64 (E, 2), the pairs drawn, as rows of the images; the weakest first.
        weights: int64 (E,), their verified matches.
        num_edges: how many verified pairs there are.
        groups: int64 (N,), which images are linked with each other; 0 is the largest group.
    """

    places: ArrayF64
    edges: ArrayInt
    weights: ArrayInt
    num_edges: int
    groups: ArrayInt


def draw_graph(num_images: int, pairs: ArrayInt, inliers: ArrayInt, max_edges: int) -> Drawing:
    """Lay out the graph of the verified pairs.

    Few images lie on a circle, in their order. More are placed so that those that are matched well
    lie close together, by classical multidimensional scaling (Torgerson, Psychometrika 1952) of the
    distances along the graph; very many lie on a circle again. Of too many pairs the strongest are
    drawn, and those without which a group would fall apart.

    Args:
        num_images: N.
        pairs: int64 (P, 2), rows of the images.
        inliers: int64 (P,), verified matches; pairs without any are left out.
        max_edges: how many pairs to draw.
    """
    verified = inliers > 0
    pairs, inliers = pairs[verified], inliers[verified]
    lengths = 1 / np.sqrt(inliers)  # a strong pair is short
    graph = coo_array((lengths, pairs.T), shape=(num_images, num_images)).tocsr()
    groups = _groups(graph, num_images)
    drawn = _strongest(graph, pairs, inliers, max_edges)
    order = np.flatnonzero(drawn)[np.argsort(inliers[drawn], kind="stable")]
    return Drawing(_places(graph, num_images), pairs[order], inliers[order], len(pairs), groups)


def match_matrix(
    num_images: int, pairs: ArrayInt, inliers: ArrayInt, max_side: int
) -> tuple[ArrayInt, int]:
    """Return the verified matches of all pairs, int64 (S, S), symmetric, and the images per cell.

    Where there are more images than `max_side`, a cell is the best pair of neighbouring images.
    """
    step = -(-max(num_images, 1) // max_side)
    side = -(-num_images // step)
    matrix = np.zeros((side, side), np.int64)
    rows = pairs // step
    np.maximum.at(matrix, (rows[:, 0], rows[:, 1]), inliers)
    return np.maximum(matrix, matrix.T), step


def _groups(graph: csr_array, num_images: int) -> ArrayInt:
    _, labels = connected_components(graph, directed=False)
    sizes = np.bincount(labels, minlength=1)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return rank[labels] if num_images else np.zeros(0, np.int64)


def _strongest(graph: csr_array, pairs: ArrayInt, inliers: ArrayInt, max_edges: int) -> ArrayBool:
    """Return which pairs to draw: the strongest ones and the tree that links all images best."""
    drawn = np.zeros(len(pairs), np.bool_)
    drawn[np.argsort(-inliers, kind="stable")[:max_edges]] = True
    if len(pairs) > max_edges:
        tree = minimum_spanning_tree(graph).tocoo()
        ends = np.sort(np.stack(tree.coords, axis=1), axis=1)
        in_tree = {tuple(row) for row in ends.tolist()}
        drawn |= np.array([tuple(row) in in_tree for row in pairs.tolist()], np.bool_)
    return drawn


def _places(graph: csr_array, num_images: int) -> ArrayF64:
    angles = 2 * np.pi * np.arange(num_images) / max(num_images, 1) - _ROUND
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if num_images not in _LAID_OUT or not graph.nnz:
        return (circle + 1) / 2
    distances = shortest_path(graph, directed=False)
    reached = np.isfinite(distances)
    distances[~reached] = _APART * distances[reached].max()
    squared = distances**2
    centred = squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    places = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0))
    # The sign of an axis is arbitrary: the first image lies at the top left.
    places = places[:, ::-1] * np.where(places[0, ::-1] > 0, -1, 1)
    low, high = places.min(axis=0), places.max(axis=0)
    return np.asarray((places - low) / np.maximum(high - low, 1e-9))
