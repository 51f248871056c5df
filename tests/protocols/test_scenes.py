"""Scenes with a true model, on small made data sets in the layouts of each benchmark."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfm_match.benchmarks.scene_tasks import subsets_of
from sfm_match.benchmarks.scenes import (
    read_colmap,
    read_eth3d,
    read_phototourism,
    read_strecha,
)
from sfm_match.benchmarks.settings import SceneConfig
from sfm_match.spec import ConfigError
from sfm_match.stages.recipe import Recipe
from tests.components import checkpoint
from tests.protocols import layouts
from tests.protocols.layouts import NAMES, gallery_truth, homogeneous
from tests.protocols.runs import run

SUBSETS = {"subset_sizes": (3, 5), "subset_counts": (2, 1)}


@pytest.fixture(scope="module")
def imc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imc")
    layouts.write_imc(root)
    return root


@pytest.fixture(scope="module")
def imc_result(imc: Path) -> dict[str, Any]:
    return run("phototourism", imc, imc / "out", options=SUBSETS)


@pytest.fixture(scope="module")
def eth3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("eth3d")
    layouts.write_eth3d(root)
    return root


def test_what_is_read_of_phototourism(imc: Path) -> None:
    found = read_phototourism(imc, None, SceneConfig(subset_sizes=(3, 5), subset_counts=(2, 1)), ())
    prefix = "sacre_coeur/set_100/images"
    (scene,) = found.scenes
    assert scene.names == [f"{prefix}/{name}.jpg" for name in NAMES]
    assert {key: len(names) for key, names in scene.subsets.items()} == {
        "3bag_000": 3,
        "3bag_001": 3,
        "5bag_000": 5,
    }
    assert scene.subsets["3bag_001"][0] == f"{prefix}/{NAMES[2]}.jpg"
    # The pairs of the list, in its order.
    first, second = found.pairs.truth.pairs
    assert first.names == (f"{prefix}/{NAMES[1]}.jpg", f"{prefix}/{NAMES[0]}.jpg")
    assert second.names == (f"{prefix}/{NAMES[3]}.jpg", f"{prefix}/{NAMES[2]}.jpg")
    K, poses = gallery_truth()
    relative = homogeneous(poses[NAMES[0]]) @ np.linalg.inv(homogeneous(poses[NAMES[1]]))
    np.testing.assert_allclose(first.cam1_from_cam0, relative[:3], atol=1e-12)
    np.testing.assert_allclose(first.cameras[0].params, [K[0, 0], K[1, 1], K[0, 2], K[1, 2]])
    only_fives = SceneConfig(subset_sizes=(5,), subset_counts=(1,))
    assert list(read_phototourism(imc, None, only_fives, ()).scenes[0].subsets) == ["5bag_000"]


def test_pairs_and_subsets_of_phototourism(imc_result: dict[str, Any]) -> None:
    pairs, threes, five = imc_result["runs"]
    assert (pairs["task"], pairs["estimator"], pairs["num_pairs"]) == ("pairs", "poselib", 2)
    assert max(row["error"] for row in pairs["pairs"]) < 3
    assert (threes["subset_size"], threes["num_subsets"], threes["num_pairs"]) == (3, 2, 6)
    assert (five["subset_size"], five["num_subsets"], five["num_pairs"]) == (5, 1, 10)
    assert five["intrinsics"] == "unknown"
    assert five["num_registered"] == 5
    assert five["maa"]["10"] > 80
    rows = five["pairs"]
    assert {row["group"] for row in rows} == {"sacre_coeur/5bag_000"}
    for limit in (5, 10):
        accuracies = [np.mean([row["error"] < d for row in rows]) for d in range(1, limit + 1)]
        assert five["maa"][str(limit)] == pytest.approx(100 * np.mean(accuracies), abs=1e-9)
    json.dumps(imc_result, allow_nan=False)


def test_pairs_of_images_outside_of_the_model_have_failed(imc_result: dict[str, Any]) -> None:
    for one in imc_result["runs"][1:]:
        failed = [row for row in one["pairs"] if row["rotation_error"] is None]
        assert {row["error"] for row in failed} <= {180.0}
        assert one["num_failed"] == len(failed)


def test_models_of_subsets_are_kept(imc: Path, imc_result: dict[str, Any]) -> None:
    assert len(list(imc.glob("out/models/**/database.db"))) == 3
    models = {path: path.stat().st_mtime_ns for path in imc.glob("out/models/**/images.bin")}
    assert models
    again = run("phototourism", imc, imc / "out", options={**SUBSETS, "tasks": ("subsets",)})
    now = {path: path.stat().st_mtime_ns for path in imc.glob("out/models/**/images.bin")}
    assert now == models
    assert [one["pairs"] for one in again["runs"]] == [
        one["pairs"] for one in imc_result["runs"][1:]
    ]


@pytest.mark.parametrize("model", ["gt", "sparse/0", "sparse", "model"])
def test_colmap_models_are_found_in_the_usual_places(tmp_path: Path, model: str) -> None:
    layouts.write_colmap(tmp_path, "room", "images", model)
    found = read_colmap(tmp_path, None, SceneConfig(), ())
    assert found.scenes[0].names == [f"room/images/{name}.jpg" for name in NAMES]
    assert len(found.pairs.truth.pairs) == 10
    assert set(found.pairs.groups) == {"room"}
    # The folder of the scene itself is as good.
    alone = read_colmap(tmp_path / "room", None, SceneConfig(), ())
    assert alone.scenes[0].names == found.scenes[0].names


def test_subsets_are_drawn_by_the_seed(tmp_path: Path, eth3d: Path) -> None:
    layouts.write_colmap(tmp_path, "room", "images", "gt")
    (scene,) = read_colmap(tmp_path, None, SceneConfig(), ()).scenes
    config = SceneConfig(subset_sizes=(2, 4, 9), subset_counts=(3, 2, 5))
    found = subsets_of(scene, config, seed=1)
    assert sorted(found) == ["2bag_000", "2bag_001", "2bag_002", "4bag_000", "4bag_001"]
    assert all(len(set(names)) == int(key[0]) for key, names in found.items())
    assert found == subsets_of(scene, config, seed=1)
    assert found != subsets_of(scene, config, seed=2)
    with pytest.raises(ConfigError, match="room: has 5 images, fewer than any of subset_sizes"):
        subsets_of(scene, SceneConfig(subset_sizes=(9,), subset_counts=(1,)), 0)
    (wall,) = read_eth3d(eth3d, None, SceneConfig(), ()).scenes
    assert len(subsets_of(wall, config, 0)["4bag_000"]) == 4


def test_true_intrinsics_make_a_model_of_a_colmap_scene(tmp_path: Path) -> None:
    layouts.write_colmap(tmp_path, "room", "images", "gt")
    options = {"tasks": ("model", "subsets"), "subset_sizes": (5,), "subset_counts": (1,)}
    subsets, model = run("colmap", tmp_path, tmp_path / "out", options=options)["runs"]
    (scene,) = model["scenes"]
    assert (scene["scene"], scene["num_images"], scene["num_registered"]) == ("room", 5, 5)
    assert scene["position_error"]["max"] < 0.1  # of a room of 8 m
    assert scene["rotation_error"]["max"] < 1
    assert subsets["intrinsics"] == "truth"
    assert subsets["auc"]["5"] > 80


def test_what_is_read_of_eth3d(eth3d: Path) -> None:
    found = read_eth3d(eth3d, None, SceneConfig(min_shared_points=60), ())
    (scene,) = found.scenes
    assert scene.names[0] == "wall/images/dslr_images_undistorted/DSC_0000.JPG"
    assert len(found.pairs.truth.pairs) == 6
    assert scene.scans is not None
    (scan,) = scene.scans()
    assert len(scan.points) == 500 * 375
    corners = np.array([[0.0, 0, 0], [1.996, 1.496, 0]])
    np.testing.assert_allclose(scan.in_world[[0, -1]], corners, atol=1e-6)
    with pytest.raises(ConfigError, match=r"wall: no two images see 61 points .*it has 60\)"):
        read_eth3d(eth3d, None, SceneConfig(min_shared_points=61), ())


def test_triangulated_points_lie_on_the_wall(eth3d: Path) -> None:
    result = run("eth3d", eth3d, eth3d / "out")
    pairs, points = result["runs"]
    assert pairs["auc"]["1"] > 80
    assert list(points["accuracy"]) == ["0.01", "0.02", "0.05"]
    assert points["accuracy"]["0.01"] > 95
    assert 3 < points["completeness"]["0.01"] < points["completeness"]["0.05"] < 90
    assert points["num_points"] > 300
    assert points["scenes"][0]["accuracy"] == points["accuracy"]


def test_triangulation_in_smaller_images_uses_smaller_cameras(eth3d: Path) -> None:
    options = {"resize": "max-320", "tasks": ("triangulation",)}
    (points,) = run("eth3d", eth3d, eth3d / "out", options=options)["runs"]
    assert points["accuracy"]["0.02"] > 90


def test_correspondences_become_tracks_and_points(eth3d: Path) -> None:
    checkpoint("coarse-16")
    recipe = Recipe.load("coarse-loftr", images={"path": str(eth3d)})
    pairs, points = run("eth3d", eth3d, eth3d / "out", recipe=recipe)["runs"]
    assert pairs["auc"]["1"] > 80
    assert points["accuracy"]["0.01"] > 95
    assert points["num_points"] > 300


def test_anchored_correspondences(eth3d: Path) -> None:
    """Keypoints of an extractor that the matcher itself has no use for."""
    checkpoint("coarse-16")
    settings = ("features.name=sift", "features.max_keypoints=700", "tracks.anchor=true")
    recipe = Recipe.load("coarse-loftr", *settings, images={"path": str(eth3d)})
    (points,) = run(
        "eth3d", eth3d, eth3d / "out", recipe=recipe, options={"tasks": ("triangulation",)}
    )["runs"]
    assert points["accuracy"]["0.01"] > 95
    stores = [path.name.split("-")[0] for path in (eth3d / "out" / "features").iterdir()]
    assert {"sift", "tracks"} <= set(stores)


def test_scans_are_needed_for_triangulation(tmp_path: Path) -> None:
    layouts.write_colmap(tmp_path, "room", "images", "gt")
    with pytest.raises(ConfigError, match="room has no laser scans to compare triangulation with"):
        run("colmap", tmp_path, tmp_path / "out", options={"tasks": ("triangulation",)})


def test_scenes_that_are_not_there(tmp_path: Path, imc: Path) -> None:
    with pytest.raises(ConfigError, match="holds no scene in this benchmark's layout"):
        read_strecha(tmp_path, None, SceneConfig(), ())
    with pytest.raises(ConfigError, match="no scene 'sacre'; did you mean 'sacre_coeur'"):
        read_phototourism(imc, None, SceneConfig(), ["sacre"])
    layouts.write_colmap(tmp_path, "room", "images", "gt")
    (tmp_path / "room" / "images" / f"{NAMES[1]}.jpg").unlink()
    with pytest.raises(ConfigError, match="1 of the benchmark's 5 images are not there: room/im"):
        read_colmap(tmp_path, None, SceneConfig(), ())


@pytest.mark.slow
def test_strecha_s_fountain(tmp_path: Path, test_data: Path) -> None:
    """The real photographs, in the layout of the data set, reduced to half for speed."""
    data = test_data / "fountain-P11"
    folder = layouts.write_strecha(
        tmp_path, "fountain-P11", data / "images", data / "ground_truth.json"
    )
    found = read_strecha(tmp_path, None, SceneConfig(), ())
    assert [pair.names[0][-8:] for pair in found.pairs.truth.pairs[::10]] == [
        f"{a:04}.jpg" for a, _ in list(combinations(range(11), 2))[::10]
    ]
    recipe = Recipe.load("sift", "features.max_keypoints=2000", images={"path": str(folder)})
    options = {"resize": "max-512", "estimators": ("poselib", "opencv")}
    result = run("strecha", tmp_path, tmp_path / "out", recipe=recipe, options=options)
    poselib, opencv, model = result["runs"]
    assert poselib["num_pairs"] == 55
    assert poselib["auc"]["10"] > 85
    assert poselib["auc"]["1"] > opencv["auc"]["1"]
    (scene,) = model["scenes"]
    assert scene["num_registered"] == 11
    assert scene["position_error"]["max"] < 0.03  # metres, of a fountain 5 m wide
    assert scene["rotation_error"]["max"] < 0.3
