"""HPatches, on made sequences in its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfm_match.benchmarks.hpatches import LARGE_SEQUENCES, read_hpatches
from sfm_match.benchmarks.settings import HomographyConfig
from sfm_match.geometry.homographies import warp
from sfm_match.spec import ConfigError
from sfm_match.stages.recipe import Recipe
from tests.components import checkpoint
from tests.protocols import layouts
from tests.protocols.runs import run

SHIFTS = [np.array([[1.0, 0, dx], [0, 1, 2 * dx], [0, 0, 1]]) for dx in (0, 2, 5, 8, 12)]
TILTS = [np.array([[1.0, 0, 3], [0, 1, 0], [k * 1e-4, 0, 1]]) for k in (1, 2, 3, 4, 5)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hpatches")
    layouts.write_hpatches(root, {"i_ajuntament": SHIFTS, "v_boat": TILTS, "v_talent": SHIFTS})
    return root


@pytest.fixture(scope="module")
def result(root: Path) -> dict[str, Any]:
    return run("hpatches", root, root / "out", options={"repeatability_keypoints": 300})


def test_what_is_read(root: Path) -> None:
    found = read_hpatches(root, None, HomographyConfig(), ())
    assert len(found.pairs) == 10
    assert found.left_out == ("v_talent",)
    assert found.pairs[1].names == ("i_ajuntament/1.ppm", "i_ajuntament/3.ppm")
    assert [pair.group for pair in found.pairs] == ["illumination"] * 5 + ["viewpoint"] * 5
    # The second image's homography is a shift by (2, 4), of any origin.
    np.testing.assert_allclose(warp(np.array([[0.5, 0.5]]), found.pairs[1].H), [[2.5, 4.5]])
    # A tilt depends on it: the centre of the first pixel goes where H takes (0, 0).
    np.testing.assert_allclose(warp(np.array([[0.5, 0.5]]), found.pairs[5].H), [[3.5, 0.5]])


def test_the_eight_large_sequences(root: Path) -> None:
    assert len(set(LARGE_SEQUENCES)) == 8
    assert [name[0] for name in LARGE_SEQUENCES] == ["i"] * 5 + ["v"] * 3
    every = read_hpatches(root, None, HomographyConfig(large_sequences=True), ())
    assert (len(every.pairs), every.left_out) == (15, ())
    assert len(read_hpatches(root, None, HomographyConfig(), ["v_talent"]).pairs) == 5


def test_measures_on_true_homographies(result: dict[str, Any]) -> None:
    assert [(r["estimator"], r["threshold"]) for r in result["runs"]] == [
        ("dlt", None),
        ("opencv", 3.0),
        ("poselib", 3.0),
    ]
    assert result["left_out"] == ["v_talent"]
    for one in result["runs"]:
        assert list(one["accuracy"]) == [str(t) for t in range(1, 11)]
        assert one["accuracy"]["3"] > 98
        assert one["repeatability"] > 60
        assert one["localization_error"] < 0.5
        assert set(one["groups"]) == {"illumination", "viewpoint"}
        assert [one["groups"][name]["num_pairs"] for name in one["groups"]] == [5, 5]
    poselib = result["runs"][2]
    assert list(poselib["auc"]) == ["1", "3", "5"]
    assert poselib["auc"]["1"] > 85
    # The first of the shifts is none: the image is the same, and so are its keypoints.
    first = poselib["pairs"][0]
    assert (first["accuracy"]["1"], first["repeatability"]) == (100, 100)
    assert first["error"] < 1e-3
    means = [row["accuracy"]["1"] for row in poselib["pairs"]]
    assert poselib["accuracy"]["1"] == pytest.approx(np.mean(means))
    assert poselib["groups"]["viewpoint"]["accuracy"]["1"] == pytest.approx(np.mean(means[5:]))


def test_errors_are_in_pixels_of_the_resized_images(root: Path, result: dict[str, Any]) -> None:
    half = run(
        "hpatches", root, root / "out", options={"resize": "160x120", "estimators": ("poselib",)}
    )
    pairs = half["runs"][0]["pairs"]
    assert half["num_keypoints"] < result["num_keypoints"]
    assert np.mean([row["accuracy"]["3"] for row in pairs]) > 98
    assert max(row["error"] for row in pairs) < 3


def test_at_most_so_many_matches_of_the_highest_score(root: Path) -> None:
    found = run(
        "hpatches",
        root,
        root / "out",
        protocol="loftr",
        options={"max_matches": 50, "resize": "none"},
        scenes=["v_boat"],
    )
    assert {row["num_matches"] for row in found["runs"][0]["pairs"]} == {50}
    assert list(found["runs"][0]["auc"]) == ["3", "5", "10"]
    assert set(found["runs"][0]["groups"]) == {"viewpoint"}


def test_a_matcher_without_keypoints(root: Path) -> None:
    checkpoint("coarse-16")
    recipe = Recipe.load("coarse-loftr", images={"path": str(root)})
    found = run("hpatches", root, root / "out", recipe=recipe, scenes=["v_boat"])
    assert (found["features"], found["refiner"]["name"]) == (None, "photometric")
    assert found["num_keypoints"] is None
    poselib = found["runs"][2]
    assert (poselib["repeatability"], poselib["localization_error"]) == (None, None)
    # Its grid is one of 16 pixels: without the refiner no match would be this near.
    assert poselib["accuracy"]["1"] > 90


def test_an_image_that_is_damaged_is_a_failure_of_its_pairs(tmp_path: Path) -> None:
    layouts.write_hpatches(tmp_path, {"v_boat": TILTS})
    image = tmp_path / "v_boat" / "4.ppm"
    image.write_bytes(image.read_bytes()[:1000])
    found = run("hpatches", tmp_path, tmp_path / "out")
    assert list(found["failures"]) == ["v_boat/4.ppm"]
    failed = found["runs"][0]["pairs"][2]
    assert (failed["error"], failed["num_matches"], failed["accuracy"]["10"]) == (None, 0, 0)
    assert found["runs"][0]["num_failed"] == 1


def test_wrong_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no scene in this benchmark's layout; see"):
        read_hpatches(tmp_path, None, HomographyConfig(), ())
    layouts.write_hpatches(tmp_path, {"v_boat": TILTS})
    (tmp_path / "v_boat" / "H_1_3").write_text("1 0 0 0 1 0 0 0")
    with pytest.raises(ConfigError, match="H_1_3: is not nine numbers of an invertible matrix"):
        read_hpatches(tmp_path, None, HomographyConfig(), ())
    (tmp_path / "v_boat" / "H_1_3").unlink()
    with pytest.raises(ConfigError, match="H_1_3: cannot be read: No such file"):
        read_hpatches(tmp_path, None, HomographyConfig(), ())
