"""One image's observations -> its keypoints: greedy modes of the weighted point density.

A detector-free matcher finds a point of the scene anew in each pair, each time a little elsewhere.
The observations of an image are gathered in cells of half a radius. The cell where they are densest
(by a biweight kernel) becomes a seed and takes the cells in its radius, then the best of the
others, and so on, as in non-maximum suppression; at the end every cell goes to the nearest seed.
Rounds of local maxima do that for the whole image at once: a cell that is denser than all undecided
cells around it is a seed whatever happens elsewhere.

Nothing depends on the order of the observations, not even the last bit: sums over them are of whole
numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sfm_match.geometry.tracks_graph import hash_bits
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, ArrayI32

_CELLS_PER_RADIUS = 2
_WEIGHT_STEPS = 1 << 12
_STEPS_PER_PIXEL = 1 << 10


@dataclass(frozen=True, eq=False)
class Clusters:
    """The keypoints of one image.

    Attributes:
        labels: int32 (K,), to which keypoint each observation belongs.
        centres: float32 (N, 2), x and y in pixels.
    """

    labels: ArrayI32
    centres: ArrayF32


def cluster_points(
    points: ArrayF32,
    weights: ArrayF32,
    radius: float,
    anchors: ArrayF32 | None = None,
    anchor_radius: float = 0.0,
) -> Clusters:
    """Gather the observations of one image into keypoints.

    Args:
        points: float32 (K, 2), x and y in pixels.
        weights: float32 (K,); a centre is the weighted mean of its observations. Only ratios
            count; below 1/4096 of the largest they count as that.
        radius: pixels; an observation is not farther than that from its keypoint's densest part
            (the cells that are compared are half as wide, so that it may be 1.7 times as far).
        anchors: float32 (A, 2), keypoints that are there already and keep their places: they come
            first, and take the observations around them.
        anchor_radius: pixels; how far.

    Raises:
        ValueError: the radius is not positive.
    """
    if not radius > 0:
        raise ValueError(f"the radius must be above 0 pixels, got {radius}")
    if anchors is None or len(anchors) == 0:
        return _cluster(points, weights, radius)
    labels = _nearest_within(points, anchors, anchor_radius)
    free = labels < 0
    others = _cluster(points[free], weights[free], radius)
    labels[free] = others.labels + len(anchors)
    return Clusters(labels, np.concatenate([anchors, others.centres]))


def _nearest_within(points: ArrayF32, anchors: ArrayF32, radius: float) -> ArrayI32:
    """Return which anchor each point belongs to, -1 where none is near."""
    distances, rows = cKDTree(anchors).query(points)
    return np.where(distances <= radius, rows, -1).astype(np.int32)


def _cluster(points: ArrayF32, weights: ArrayF32, radius: float) -> Clusters:
    if len(points) == 0:
        return Clusters(np.zeros(0, np.int32), np.zeros((0, 2), np.float32))
    cells = _gather(points, weights, radius / _CELLS_PER_RADIUS)
    near = _neighbours(cells, radius)
    seeds = _seeds(cells, near, radius)
    cluster_of_cell = (np.cumsum(seeds) - 1)[_nearest_seed(seeds, near)]
    num = int(np.count_nonzero(seeds))
    mass = np.bincount(cluster_of_cell, cells.mass, num)
    centres = np.stack([np.bincount(cluster_of_cell, s, num) / mass for s in cells.sums], axis=1)
    labels = cluster_of_cell[cells.of_point].astype(np.int32)
    return Clusters(labels, (centres / _STEPS_PER_PIXEL).astype(np.float32))


@dataclass(frozen=True, eq=False)
class _Cells:
    """The occupied cells of one image, sorted by code; sums are whole numbers, exact in float64."""

    codes: npt.NDArray[np.int64]
    width: int
    of_point: npt.NDArray[np.intp]
    mass: ArrayF64
    sums: tuple[ArrayF64, ArrayF64]


def _gather(points: ArrayF32, weights: ArrayF32, size: float) -> _Cells:
    places = np.floor(points.astype(np.float64) / size).astype(np.int64)
    columns, rows = (places - places.min(axis=0)).T
    # Neighbours are looked for within two columns; the margin keeps rows apart.
    width = int(columns.max()) + 1 + 2 * _CELLS_PER_RADIUS
    codes, of_point = np.unique(rows * width + columns, return_inverse=True)
    largest = float(weights.max())
    scaled = weights.astype(np.float64) * (_WEIGHT_STEPS / largest if largest > 0 else 0.0)
    whole = np.rint(scaled).clip(1, None)
    steps = np.rint(points.astype(np.float64) * _STEPS_PER_PIXEL)
    mass, x, y = (
        np.bincount(of_point, part).astype(np.float64)
        for part in (whole, whole * steps[:, 0], whole * steps[:, 1])
    )
    return _Cells(codes, width, of_point, mass, (x, y))


@dataclass(frozen=True, eq=False)
class _Near:
    """Which cells are near which: each two of them in both orders, and their squared distance."""

    cells: npt.NDArray[np.intp]
    others: npt.NDArray[np.intp]
    squared: ArrayF64


def _neighbours(cells: _Cells, radius: float) -> _Near:
    """Find all two cells whose weighted means are within the radius of each other."""
    codes, num, reach = cells.codes, len(cells.codes), _CELLS_PER_RADIUS
    padded = np.append(codes, np.iinfo(np.int64).max)
    x, y = (side / (cells.mass * _STEPS_PER_PIXEL) for side in cells.sums)
    every = np.arange(num)
    firsts, seconds, squares = [every[:0]], [every[:0]], [x[:0]]
    # Each cell with those behind it: in its own row, then in the rows below.
    starts = [(0, every + 1)]
    for step in range(1, reach + 1):
        starts.append((step, np.searchsorted(codes, codes + (step * cells.width - reach))))
    for step, start in starts:
        last = codes + (step * cells.width + reach)
        for offset in range(2 * reach + 1 if step else reach):
            other = np.minimum(start + offset, num)
            first = np.flatnonzero(padded[other] <= last)
            second = other[first]
            squared = np.square(x[first] - x[second]) + np.square(y[first] - y[second])
            within = squared <= radius**2
            firsts.append(first[within])
            seconds.append(second[within])
            squares.append(squared[within])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    squared = np.concatenate(squares)
    return _Near(
        np.concatenate([first, second]),
        np.concatenate([second, first]),
        np.concatenate([squared, squared]),
    )


def _seeds(cells: _Cells, near: _Near, radius: float) -> ArrayBool:
    """Choose seeds by the density around them, none within the radius of another."""
    num = len(cells.codes)
    taper = (1 - near.squared / radius**2) ** 2
    density = cells.mass + np.bincount(near.cells, taper * cells.mass[near.others], num)
    rank = np.empty(num, np.int64)
    rank[np.lexsort((hash_bits(cells.codes.astype(np.uint64)), density))] = np.arange(num)
    seeds = np.ones(num, np.bool_)
    undecided = np.ones(num, np.bool_)
    here, there = near.cells, near.others
    while len(here):
        beaten = np.zeros(num, np.bool_)
        beaten[here[rank[here] < rank[there]]] = True
        taken = here[~beaten[there] & undecided[there]]
        seeds[taken] = False
        undecided[taken] = False
        undecided[~beaten] = False
        alive = undecided[here] & undecided[there]
        here, there = here[alive], there[alive]
    return seeds


def _nearest_seed(seeds: ArrayBool, near: _Near) -> npt.NDArray[np.intp]:
    """Return for each cell the seed whose mean is nearest, itself for a seed."""
    rows = np.flatnonzero(seeds[near.others] & ~seeds[near.cells])
    cell, seed, squared = near.cells[rows], near.others[rows], near.squared[rows]
    least = np.full(len(seeds), np.inf)
    np.minimum.at(least, cell, squared)
    rows = np.flatnonzero(squared == least[cell])
    nearest = np.where(seeds, np.arange(len(seeds)), len(seeds))
    np.minimum.at(nearest, cell[rows], seed[rows])
    return nearest
