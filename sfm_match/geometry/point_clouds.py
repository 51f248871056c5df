"""Accuracy and completeness of reconstructed points against laser scans, as ETH3D measures them.

Schoeps et al., "A Multi-View Stereo Benchmark with High-Resolution Images and Multi-Camera Videos",
CVPR 2017, section 4, and the options of the benchmark's own program, whose defaults are those here:

- Completeness is the part of the scans' points with a reconstructed point within a tolerance.
- Accuracy is the part of the reconstructed points within a tolerance of a scan's point. Not all
  space was scanned: a point that is not accurate is wrong only where a laser beam went through it,
  on its way to a point further away; elsewhere it does not count. A beam is a cone that begins with
  a radius at the scanner, which is the origin of a scan's own frame, and widens.
- Both are averages over cubes of space, so that dense parts do not count more than sparse ones: the
  part of each cube's points, averaged over the cubes of two grids, one of which is shifted by half
  a cube along each axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sfm_match.types import ArrayBool, ArrayF64

_POINTS_AT_A_TIME = 1 << 14
_GRID_SHIFTS = (0.0, 0.5)


@dataclass(frozen=True, eq=False, slots=True)
class Scan:
    """A laser scan.

    Attributes:
        points: float64 (N, 3) in the scanner's frame, in metres.
        world_from_scan: float64 (3, 4), a rigid motion.
    """

    points: ArrayF64
    world_from_scan: ArrayF64

    @property
    def in_world(self) -> ArrayF64:
        """The points in the world's frame, float64 (N, 3)."""
        return self.points @ self.world_from_scan[:, :3].T + self.world_from_scan[:, 3]


@dataclass(frozen=True)
class Beam:
    """The shape of a laser beam.

    Attributes:
        start_radius: its radius at the scanner, in metres.
        divergence: half of its opening angle, in degrees.
    """

    start_radius: float = 0.5 * 0.00225
    divergence: float = 0.011


def completeness(
    scans: Sequence[Scan], points: ArrayF64, tolerances: Sequence[float], voxel_size: float = 0.01
) -> ArrayF64:
    """Return the completeness of reconstructed points at each tolerance, float64 (T,), in percent.

    Args:
        scans: at least one, with at least one point.
        points: float64 (M, 3) in the world's frame; without any, nothing is complete.
        tolerances: (T,) in metres.
        voxel_size: side of a cube, in metres.
    """
    if len(points) == 0:
        return np.zeros(len(tolerances))
    scanned = np.concatenate([scan.in_world for scan in scans])
    tree = cKDTree(points)
    distances = np.asarray(tree.query(scanned, distance_upper_bound=1.001 * max(tolerances))[0])
    is_complete = distances[:, None] <= np.asarray(tolerances)
    return _mean_over_voxels(scanned, is_complete, np.ones_like(is_complete), voxel_size)


def accuracy(
    scans: Sequence[Scan],
    points: ArrayF64,
    tolerances: Sequence[float],
    voxel_size: float = 0.01,
    beam: Beam = Beam(),
) -> ArrayF64:
    """Return the accuracy of reconstructed points at each tolerance, float64 (T,), in percent.

    It is 0 where no point counts, as the benchmark has it.

    Args:
        scans: at least one.
        points: float64 (M, 3) in the world's frame.
        tolerances: (T,) in metres.
        voxel_size: side of a cube, in metres.
        beam: the shape of the lasers' beams.
    """
    distances = np.full(len(points), np.inf)
    in_front = np.zeros(len(points), np.bool_)
    for scan in scans:
        rotation, translation = scan.world_from_scan[:, :3], scan.world_from_scan[:, 3]
        nearest, is_front = _look(scan.points, (points - translation) @ rotation, beam)
        distances, in_front = np.minimum(distances, nearest), in_front | is_front
    is_accurate = distances[:, None] <= np.asarray(tolerances)
    return _mean_over_voxels(points, is_accurate, is_accurate | in_front[:, None], voxel_size)


def _look(scanned: ArrayF64, points: ArrayF64, beam: Beam) -> tuple[ArrayF64, ArrayBool]:
    """Compare points (M, 3) with those of the beams of a scan (N, 3) that go through them.

    Returns:
        float64 (M,), how far the nearest of these is, infinite where there is none; bool (M,),
        whether one of these lies beyond the point.
    """
    ranges = np.linalg.norm(scanned, axis=1)
    scanned, ranges = scanned[ranges > 0], ranges[ranges > 0]
    directions = scanned / ranges[:, None]
    tree = cKDTree(directions)
    nearest = np.full(len(points), np.inf)
    in_front = np.zeros(len(points), np.bool_)
    for start in range(0, len(points), _POINTS_AT_A_TIME):
        part = points[start : start + _POINTS_AT_A_TIME]
        rows, columns, radii = _beams_through(tree, part, beam)
        along = np.sum(directions[columns] * part[rows], axis=1)
        aside = np.linalg.norm(part[rows] - along[:, None] * directions[columns], axis=1)
        through = (along >= 0) & (aside <= radii[rows])
        rows, columns, along = rows[through], columns[through], along[through]
        distances = np.linalg.norm(scanned[columns] - part[rows], axis=1)
        np.minimum.at(nearest, start + rows, distances)
        in_front[start + rows[along < ranges[columns]]] = True
    return nearest, in_front


def _beams_through(
    tree: cKDTree, points: ArrayF64, beam: Beam
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], ArrayF64]:
    """Return the rows of points and of directions that may belong together, and beam radii (M,)."""
    distances = np.linalg.norm(points, axis=1)
    radii = beam.start_radius + distances * np.tan(np.deg2rad(beam.divergence))
    # A beam passes within a radius of a point if their angle's sine is at most radius / distance;
    # two directions at an angle are 2 sin(angle / 2) apart. Inside of the radius, all do.
    sines = np.divide(radii, distances, out=np.ones_like(radii), where=distances > radii)
    chords = np.where(distances > radii, 2 * np.sin(np.arcsin(sines) / 2), 2.0) + 1e-9
    towards = np.divide(
        points, distances[:, None], out=np.zeros_like(points), where=distances[:, None] > 0
    )
    found = tree.query_ball_point(towards, chords)
    counts = [len(columns) for columns in found]
    columns = np.concatenate([np.asarray(c, np.intp) for c in found] or [np.empty(0, np.intp)])
    return np.repeat(np.arange(len(points)), counts), columns, radii


def _mean_over_voxels(
    points: ArrayF64, is_good: ArrayBool, counts: ArrayBool, voxel_size: float
) -> ArrayF64:
    """Return the mean over cubes of the part of their points that are good, (T,) in percent.

    Args:
        points: float64 (N, 3).
        is_good: bool (N, T).
        counts: bool (N, T), which points count at all; a cube without any is left out.
        voxel_size: side of a cube.
    """
    sums, num_cells = np.zeros(is_good.shape[1]), np.zeros(is_good.shape[1])
    for shift in _GRID_SHIFTS:
        cell_of = _number(np.floor(points / voxel_size + shift))
        for t in range(is_good.shape[1]):
            num = np.bincount(cell_of, counts[:, t])
            good = np.bincount(cell_of, is_good[:, t])
            sums[t] += np.sum(good[num > 0] / num[num > 0])
            num_cells[t] += np.count_nonzero(num)
    return np.asarray(100 * np.divide(sums, num_cells, out=sums * 0, where=num_cells > 0))


def _number(cells: ArrayF64) -> npt.NDArray[np.int64]:
    """Return a number (N,) for each of the different rows of cells (N, 3)."""
    numbers = np.zeros(len(cells), np.int64)
    for column in cells.T:  # one after the other: their product may exceed 64 bits
        values, along = np.unique(column, return_inverse=True)
        _, numbers = np.unique(numbers * len(values) + along, return_inverse=True)
    return numbers
