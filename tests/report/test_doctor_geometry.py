"""Scenes that are hard to begin with, and focal lengths: the doctor names the one thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sfm_match.report.doctor import examine
from sfm_match.report.findings import Severity
from tests.colmap_scene import Scene, synthesize
from tests.report.broken import scene_of, the_only

WARNING, PROBLEM = Severity.WARNING, Severity.PROBLEM


def facing(centre: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    """Return the pose (3, 4) of a camera that looks from its centre to a point, y downwards."""
    axis = np.subtract(target, centre) / np.linalg.norm(np.subtract(target, centre))
    right = np.cross([0.0, 1.0, 0.0], axis)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(axis, right), axis])
    return np.column_stack([rotation, -rotation @ np.array(centre)])


def deep(num: int = 300) -> np.ndarray:
    return np.random.default_rng(0).uniform([-1.2, -0.9, 4], [1.2, 0.9, 12], (num, 3))


def cube(num: int = 300) -> np.ndarray:
    return np.random.default_rng(0).uniform([-1, -1, 5], [1, 1, 7], (num, 3))


ARC = [
    facing((x, 0.3 * (-1) ** i, 0.0), (0.0, 0.0, 6.0)) for i, x in enumerate(np.linspace(-3, 3, 6))
]


@pytest.mark.parametrize(
    ("make", "code", "severity"),
    [
        (lambda: scene_of(cube() * [1, 1, 0] + [[0, 0, 6]], ARC), "planar-pairs", WARNING),
        (
            lambda: scene_of(
                deep(), [facing((0, 0, z), (0, 0, 20)) for z in np.linspace(0, 1.5, 5)]
            ),
            "forward-motion",
            PROBLEM,
        ),
        (
            lambda: scene_of(
                deep(), [facing((x, 0, 0), (x, 0, 6)) for x in np.linspace(0, 0.3, 4)]
            ),
            "narrow-pairs",
            PROBLEM,
        ),
        (
            lambda: scene_of(cube(), [facing((0, 0, 0), (x, 0, 6)) for x in (-0.4, 0, 0.4)]),
            "narrow-pairs",
            PROBLEM,
        ),
    ],
    ids=["a plane", "forward", "close together", "turning on the spot"],
)
def test_no_good_pair_to_begin_with(
    tmp_path: Path, make: Callable[[], Scene], code: str, severity: Severity
) -> None:
    make().write_database(tmp_path / "database.db")
    finding = the_only(examine(tmp_path / "database.db"))
    assert (finding.code, finding.severity) == (code, severity)


# Not all optical axes meet in one point: such pictures say nothing of the focal length.
AROUND = [
    facing((x, 0.4 * (-1) ** i, -0.5 * (i % 3)), (0.3 * x, (-1) ** (i // 2) * 0.7, 6.0))
    for i, x in enumerate(np.linspace(-2, 2, 8))
]


@pytest.mark.parametrize("focal", [400.0, 900.0])
def test_a_false_prior_of_the_focal_length(tmp_path: Path, focal: float) -> None:
    scene_of(cube(), AROUND, focal=focal).write_database(tmp_path / "database.db")
    finding = the_only(examine(tmp_path / "database.db"))
    assert (finding.code, finding.severity) == ("focal-prior", WARNING)
    said = float(finding.where[0].detail.rpartition("say ")[2])
    assert said == pytest.approx(600, rel=0.05)


@pytest.mark.parametrize("poses", [AROUND, None], ids=["around", "axes meet"])
def test_a_guessed_focal_length_is_no_prior(tmp_path: Path, poses: list[np.ndarray] | None) -> None:
    if poses is None:
        scene = synthesize(8, noise=0.3, focal=800, prior=False)
    else:
        scene = scene_of(cube(), poses, focal=800, prior=False)
    scene.write_database(tmp_path / "database.db")
    assert examine(tmp_path / "database.db") == []


def test_a_prior_that_is_off_by_some_per_cent_is_as_good_as_exif(tmp_path: Path) -> None:
    scene_of(cube(), AROUND, focal=650).write_database(tmp_path / "database.db")
    assert examine(tmp_path / "database.db") == []
