from __future__ import annotations

import numpy as np
import pycolmap
import pytest

from sfm_match.geometry.parallax import Parallax, parallax
from tests.colmap_scene import camera, project

POINTS = np.random.default_rng(0).uniform([-1, -1, 5], [1, 1, 8], (200, 3))


def of_move(move: list[float], keep: str = "") -> Parallax | None:
    """Return the parallax of a camera that moves without turning."""
    poses = [np.c_[np.eye(3), -np.array(centre)] for centre in ([0.0, 0.0, 0.0], move)]
    points = [project(POINTS, pose).astype(np.float64) for pose in poses]
    rows = np.arange(len(POINTS), dtype=np.uint32)
    geometry = pycolmap.estimate_calibrated_two_view_geometry(
        camera(), points[0], camera(), points[1], np.stack([rows, rows], axis=1)
    )
    assert geometry.config == pycolmap.TwoViewGeometryConfiguration.CALIBRATED.value
    if keep != "all":
        for name in {"E", "F", "H"} - {keep}:
            setattr(geometry, name, None)
    return parallax(camera(), points[0], camera(), points[1], geometry)


def test_to_the_side() -> None:
    found = of_move([1.0, 0.0, 0.0], "all")
    assert found is not None
    rays = POINTS / np.linalg.norm(POINTS, axis=1)[:, None]
    others = POINTS - [1.0, 0, 0]
    cosines = np.sum(rays * others, axis=1) / np.linalg.norm(others, axis=1)
    assert found.angle == pytest.approx(np.degrees(np.median(np.arccos(cosines))), abs=0.05)
    assert found.forward < 0.01


def test_forward() -> None:
    found = of_move([0.0, 0.0, 2.0], "all")
    assert found is not None
    assert found.forward > 0.999


@pytest.mark.parametrize("keep", ["E", "F", ""])
def test_a_geometry_without_its_matrix_is_estimated_anew(keep: str) -> None:
    found, full = of_move([1.0, 0.0, 0.0], keep), of_move([1.0, 0.0, 0.0], "all")
    assert found is not None
    assert full is not None
    assert found.angle == pytest.approx(full.angle, rel=0.02)


def test_a_geometry_without_a_class_has_no_pose() -> None:
    points = project(POINTS, np.c_[np.eye(3), np.zeros(3)]).astype(np.float64)
    assert parallax(camera(), points, camera(), points, pycolmap.TwoViewGeometry()) is None
