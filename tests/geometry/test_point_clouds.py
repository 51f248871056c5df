from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.geometry.point_clouds import Beam, Scan, accuracy, completeness
from sfm_match.types import ArrayF64

AT_ORIGIN = np.eye(4)[:3]
TOLERANCES = (0.01, 0.02, 0.05)
BEAM = Beam(0.02, 0.5)


def wall(distance: float = 2.0, step: float = 0.01) -> ArrayF64:
    """Points of the plane x = distance around the x-axis."""
    ys, zs = np.meshgrid(np.arange(-0.2, 0.2, step), np.arange(-0.2, 0.2, step))
    return np.column_stack([np.full(ys.size, distance), ys.ravel(), zs.ravel()])


def voxel_mean(points: ArrayF64, values: Sequence[float | None], size: float) -> float:
    sums = []
    for shift in (0.0, 0.5):
        cells = defaultdict(list)
        for point, value in zip(points, values, strict=True):
            if value is not None:
                cells[tuple(np.floor(point / size + shift))].append(value)
        sums += [float(np.mean(found)) for found in cells.values()]
    return 100 * float(np.mean(sums)) if sums else 0.0


def slow_accuracy(scans: list[Scan], points: ArrayF64, tolerance: float, size: float) -> float:
    """Every point against every beam, as the benchmark describes it."""
    values: list[float | None] = []
    for point in points:
        is_accurate = in_free_space = False
        for scan in scans:
            R, t = scan.world_from_scan[:, :3], scan.world_from_scan[:, 3]
            p = R.T @ (point - t)
            radius = BEAM.start_radius + np.linalg.norm(p) * np.tan(np.radians(BEAM.divergence))
            for q in scan.points:
                along = p @ q / np.linalg.norm(q)
                aside = np.linalg.norm(p - along * q / np.linalg.norm(q))
                if along >= 0 and aside <= radius:
                    is_accurate |= bool(np.linalg.norm(p - q) <= tolerance)
                    in_free_space |= bool(along < np.linalg.norm(q))
        values.append(1.0 if is_accurate else 0.0 if in_free_space else None)
    return voxel_mean(points, values, size)


def random_scan(rng: np.random.Generator) -> Scan:
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.column_stack([q * np.sign(np.linalg.det(q)), rng.normal(0, 0.2, 3)])
    return Scan(rng.normal(0, 0.3, (40, 3)) + np.array([1.0, 0, 0]), pose)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_both_measures_are_those_of_loops_over_all_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scans = [random_scan(rng), random_scan(rng)]
    world = np.concatenate([scan.in_world for scan in scans])
    points = world[rng.integers(0, 80, 25)] + rng.normal(0, 0.03, (25, 3))
    points[:5] *= 0.5
    found = accuracy(scans, points, TOLERANCES, 0.1, BEAM)
    for value, tolerance in zip(found, TOLERANCES, strict=True):
        assert value == pytest.approx(slow_accuracy(scans, points, tolerance, 0.1), abs=1e-9)
    nearest = np.linalg.norm(world[:, None] - points[None], axis=2).min(axis=1)
    for value, tolerance in zip(
        completeness(scans, points, TOLERANCES, 0.1), TOLERANCES, strict=True
    ):
        assert value == pytest.approx(voxel_mean(world, nearest <= tolerance, 0.1), abs=1e-9)


def test_in_front_of_the_wall_is_wrong_behind_it_is_unknown() -> None:
    scans = [Scan(wall(), AT_ORIGIN)]
    beam = Beam(0.01, 0.0)
    on, front, behind, aside = [2.0, 0, 0], [1.7, 0, 0], [2.3, 0, 0], [0.0, 5, 0]

    def measure(*points: list[float]) -> float:
        return float(accuracy(scans, np.array(points), [0.05], 0.01, beam)[0])

    assert measure(on) == 100
    assert measure(on, front) == pytest.approx(50)
    assert measure(on, behind, aside) == 100  # they do not count
    assert measure(behind) == 0  # nothing counts


def test_tolerances_are_distances_along_the_beam_too() -> None:
    scans = [Scan(wall(), AT_ORIGIN)]
    points = np.array([[1.985, 0.0, 0.0]])
    assert accuracy(scans, points, TOLERANCES).tolist() == [0, 100, 100]


def test_completeness_counts_volume_not_points() -> None:
    dense = np.random.default_rng(0).uniform(0.0, 0.004, (1000, 3)) + 0.001
    sparse = np.array([[1.003, 0.003, 0.003]])
    scans = [Scan(np.concatenate([dense, sparse]), AT_ORIGIN)]
    # The sparse cube is complete, the dense one is not: half of the volume, one point of 1001.
    assert completeness(scans, sparse, [0.01]).tolist() == [50]
    assert completeness(scans, np.empty((0, 3)), [0.01, 0.02]).tolist() == [0, 0]


def test_points_far_away_do_no_harm() -> None:
    scans = [Scan(wall(), AT_ORIGIN)]
    points = np.array([[2.0, 0, 0], [1e9, -1e9, 1e9]])
    assert accuracy(scans, points, [0.01], 0.01, Beam(0.01, 0.0)).tolist() == [100]
    assert accuracy(scans, np.empty((0, 3)), [0.01]).tolist() == [0]


def test_a_scan_s_pose_moves_its_points_and_its_beams() -> None:
    pose = np.array([[0, -1, 0, 5.0], [1, 0, 0, 6], [0, 0, 1, 7]])
    scans = [Scan(wall(), pose)]
    on, front = pose[:, :3] @ [2.0, 0, 0] + pose[:, 3], pose[:, :3] @ [1.0, 0, 0] + pose[:, 3]
    measured = accuracy(scans, np.array([on, front]), [0.01], 0.01, Beam(0.01, 0.0))
    assert measured.tolist() == [50]
