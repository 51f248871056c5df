from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfm_match.stages.diagnosis import why_no_model
from sfm_match.types import Matches, Pair
from tests.colmap_scene import Scene, synthesize
from tests.stages.test_mappers import RECONSTRUCTING, run


@pytest.fixture(scope="module")
def scene() -> Scene:
    return synthesize(8, num_points=150, noise=0.3)


def reason(scene: Scene, out: Path, pairs: list[Pair] | None = None, name: str = "") -> str:
    scene.write_database(out / "database.db", pairs)
    report = run(out, scene, name or "incremental")
    assert report.models == []
    assert not (out / "model").exists()
    assert report.reason is not None
    return report.reason


@pytest.mark.parametrize("name", RECONSTRUCTING)
def test_no_matches(scene: Scene, tmp_path: Path, name: str) -> None:
    found = reason(scene, tmp_path, [], name)
    assert "8 of 8 images have keypoints" in found
    assert "0 pairs have matches, 0 of them a verified geometry" in found
    assert "nothing links the images" in found


def test_no_keypoints(scene: Scene, tmp_path: Path) -> None:
    bare = replace(scene, keypoints={n: np.zeros((0, 2), np.float32) for n in scene.names})
    assert "0 of 8 images have keypoints" in reason(bare, tmp_path, [])


def with_few_matches(scene: Scene, num: int) -> Scene:
    few = {p: Matches(m.indices[:num], m.scores[:num]) for p, m in scene.matches.items()}
    return replace(scene, matches=few)


def test_too_few_inliers(scene: Scene, tmp_path: Path) -> None:
    found = reason(with_few_matches(scene, 20), tmp_path)
    assert "28 pairs have matches, 28 of them a verified geometry" in found
    assert "link 8 of 8 images at most (1 groups)" in found
    assert "0 pairs have the 25 inliers that an initial pair needs at the least" in found
    assert "(the best has 20; a quarter of mapper.mapper.init_min_num_inliers)" in found


@pytest.mark.parametrize(("threshold", "num_models"), [(140, 1), (180, 0)])
def test_colmap_goes_down_to_a_quarter_of_the_threshold(
    scene: Scene, tmp_path: Path, threshold: int, num_models: int
) -> None:
    with_few_matches(scene, 40).write_database(tmp_path / "database.db")
    options = {"mapper": {"init_min_num_inliers": threshold}}
    report = run(tmp_path, scene, "incremental", options)
    assert len(report.models) == num_models
    if num_models == 0:
        assert report.reason is not None
        assert "0 pairs have the 45 inliers" in report.reason


def test_the_option_of_the_hierarchical_mapper_is_named(scene: Scene, tmp_path: Path) -> None:
    with_few_matches(scene, 20).write_database(tmp_path / "database.db")
    options = {"incremental_options": {"mapper": {"init_min_num_inliers": 200}}}
    found = why_no_model(tmp_path / "database.db", "hierarchical", options)
    assert "0 pairs have the 50 inliers" in found
    assert "mapper.incremental_options.mapper.init_min_num_inliers" in found
    # The other mappers need no initial pair.
    for name in ("global", "triangulation"):
        assert "initial" not in why_no_model(tmp_path / "database.db", name, {})


def test_a_disconnected_graph(scene: Scene, tmp_path: Path) -> None:
    names = scene.names
    few = with_few_matches(scene, 20)
    groups = [Pair(names[0], names[1]), Pair(names[1], names[2]), Pair(names[4], names[5])]
    found = reason(few, tmp_path, groups)
    assert "3 pairs have matches, 3 of them" in found
    assert "link 3 of 8 images at most (5 groups)" in found


def test_too_narrow_angles(scene: Scene, tmp_path: Path) -> None:
    scene.write_database(tmp_path / "database.db")
    options = {"mapper": {"init_min_tri_angle": 360.0, "init_min_num_inliers": 120}}
    found = why_no_model(tmp_path / "database.db", "incremental", options)
    assert "28 pairs have the 30 inliers" in found
    assert "0 of the best 28 of them have the triangulation angle of 90 degrees" in found
