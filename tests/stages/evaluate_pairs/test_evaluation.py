"""The pairs of a COLMAP model, of photographs, and what is reported of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match import Recipe, evaluate_pairs
from sfm_match.geometry import poses
from sfm_match.spec import ConfigError
from sfm_match.stages.pair_results import PairsEvaluation, format_pairs_evaluation
from tests import plugin_matcher
from tests.pair_evaluation import errors_of, recipe
from tests.scenes import NAMES, NUM_PAIRS, make_images, make_truth, truncate


def test_a_scene_of_photographs(result: PairsEvaluation) -> None:
    assert (result.num_images, len(result.matches), len(result.runs)) == (6, NUM_PAIRS, 4)
    assert result.precision is not None
    assert result.precision > 90
    assert result.num_keypoints is not None
    assert 200 < result.num_keypoints < 1000
    best = result.runs[0]
    assert (best.estimator, best.threshold, best.num_failed) == ("poselib", 0.5, 0)
    assert best.auc[0] > 75
    assert list(best.auc) == sorted(best.auc)
    for pair, pose in zip(result.matches, best.poses, strict=True):
        assert pair.names[0] < pair.names[1]
        assert 5 <= pose.num_inliers <= pair.num_matches


def test_what_is_kept_is_not_computed_again(gallery: Path, result: PairsEvaluation) -> None:
    shards = {path: path.stat().st_mtime_ns for path in gallery.glob("out/*/*/*.h5")}
    assert len(shards) >= 2
    again = evaluate_pairs(
        gallery / "truth", recipe(gallery / "images"), gallery / "out", thresholds=(0.5,), threads=1
    )
    assert {path: path.stat().st_mtime_ns for path in gallery.glob("out/*/*/*.h5")} == shards
    assert again.matches == result.matches
    # Neither threads nor other estimators change a result; times do differ.
    assert [pose.error for pose in again.runs[0].poses] == [p.error for p in result.runs[0].poses]
    assert again.extract_milliseconds == result.extract_milliseconds
    assert again.match_milliseconds == result.match_milliseconds
    assert again.extract_milliseconds is not None


def test_the_plain_form_survives_json(gallery: Path, result: PairsEvaluation) -> None:
    several = result.to_dict()
    assert json.loads(json.dumps(several, allow_nan=False)) == several
    assert [(run["estimator"], run["threshold"]) for run in several["runs"]] == [
        ("poselib", 0.5),
        ("poselib", 1.0),
        ("opencv", 0.5),
        ("opencv", 1.0),
    ]
    one = evaluate_pairs(
        gallery / "truth", recipe(gallery / "images", seed=7), gallery / "out", thresholds=(0.5,)
    ).to_dict()
    assert (one["estimator"], one["threshold"], one["seed"]) == ("poselib", 0.5, 7)
    assert one["features"]["fingerprint"] == result.to_dict()["runs"][0]["features"]["fingerprint"]
    assert one["features"]["config"]["max_keypoints"] == 600
    assert list(one["auc"]) == ["5", "10", "20"]
    assert len(one["pairs"]) == one["num_pairs"] == NUM_PAIRS
    errors = [pair["error"] for pair in one["pairs"]]
    expected = poses.auc(errors, [5, 10, 20])
    assert list(one["auc"].values()) == pytest.approx(list(expected))
    assert set(one["ms"]) == {"extract", "match", "estimate"}
    assert one["precision"] == pytest.approx(np.mean([p["precision"] for p in one["pairs"]]))


def test_the_table(result: PairsEvaluation) -> None:
    lines = format_pairs_evaluation(result).splitlines()
    assert lines[0] == "pairs      15 of 6 images"
    assert lines[1].startswith(f"features   {result.features and result.features.folder_name}: ")
    assert f"precision {result.precision:.1f} %" in lines[2]
    assert " ".join(lines[4].split()) == "pose AUC (%) 5 deg 10 deg 20 deg failed ms a pair"
    assert lines[5].startswith("poselib, 0.5 px ")
    assert [float(cell) for cell in lines[5].split()[3:6]] == [
        round(value, 2) for value in result.runs[0].auc
    ]
    assert lines[-1] == "seed 0"


def test_an_image_that_cannot_be_used_fails_its_pairs(tmp_path: Path) -> None:
    images, truth = make_images(tmp_path, NAMES[:3]), make_truth(tmp_path, NAMES[:4])
    truncate(images / NAMES[1])
    found = evaluate_pairs(truth, recipe(images), threads=1)
    assert list(found.failures) == [NAMES[1]]
    assert found.missing == (NAMES[3],)
    assert [pose.error == 180 for pose in found.runs[0].poses] == [True, False, True]
    assert found.runs[0].num_failed == 2
    assert found.matches[0].precision == 0
    assert found.matches[0].num_keypoints is not None
    assert found.matches[0].num_keypoints[1] == 0
    assert "1 images of the truth are not in" in format_pairs_evaluation(found)


def test_a_matcher_without_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_matcher.register(monkeypatch)
    images, truth = make_images(tmp_path, NAMES[:3]), make_truth(tmp_path, NAMES[:3])
    settings = Recipe.of_tables({"images": {"path": images}, "matcher": {"name": "points"}})
    found = evaluate_pairs(truth, settings, tmp_path / "out", threads=1)
    assert (found.features, found.num_keypoints, found.matching_score) == (None, None, None)
    assert found.precision is not None
    assert found.precision > 90
    assert max(errors_of(found)) < 10
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == [
        "correspondences"
    ]
    assert "features" not in format_pairs_evaluation(found)
    plain = found.to_dict()
    assert (plain["features"], plain["pairs"][0]["num_keypoints"]) == (None, None)
    truncate(images / NAMES[0])
    damaged = evaluate_pairs(truth, settings, tmp_path / "out", threads=1)
    assert list(damaged.failures) == [NAMES[0]]
    assert [pose.error == 180 for pose in damaged.runs[0].poses] == [True, True, False]
    assert damaged.matches[2] == found.matches[2]


def test_only_the_pairs_of_the_angles_are_used(tmp_path: Path, gallery: Path) -> None:
    world = {
        i.name: i.cam_from_world().matrix()[2, :3]
        for i in pycolmap.Reconstruction(gallery / "truth").images.values()
    }
    angles = {
        (a, b): np.degrees(np.arccos(world[a] @ world[b])) for a in NAMES for b in NAMES if a < b
    }
    middle = float(np.median(list(angles.values())))
    found = evaluate_pairs(
        gallery / "truth", recipe(gallery / "images"), gallery / "out", max_angle=middle
    )
    assert {pair.names for pair in found.matches} == {n for n, a in angles.items() if a <= middle}
    assert 0 < len(found.matches) < NUM_PAIRS


@pytest.mark.parametrize(
    ("estimators", "thresholds", "message"),
    [
        (("ransac",), (1.0,), "no estimator named 'ransac'; have opencv, poselib, pycolmap"),
        (("poselib",), (-1.0,), "positive number of pixels"),
        ((), (1.0,), "needs an estimator and a threshold"),
    ],
)
def test_wrong_settings_are_found_before_the_work(
    tmp_path: Path,
    gallery: Path,
    estimators: tuple[str, ...],
    thresholds: tuple[float, ...],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_pairs(
            gallery / "truth",
            recipe(gallery / "images"),
            tmp_path / "out",
            estimators=estimators,
            thresholds=thresholds,
        )
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_images_is_refused(gallery: Path) -> None:
    with pytest.raises(ConfigError, match=r"images\.path: the folder of images is not set"):
        evaluate_pairs(gallery / "truth", Recipe.load("sift"))


def test_no_image_can_be_used(tmp_path: Path) -> None:
    images, truth = make_images(tmp_path, NAMES[:2]), make_truth(tmp_path, NAMES[:2])
    for name in NAMES[:2]:
        truncate(images / name)
    with pytest.raises(ConfigError, match=r"no image of .*truth can be used; 00\.jpg: "):
        evaluate_pairs(truth, recipe(images))
