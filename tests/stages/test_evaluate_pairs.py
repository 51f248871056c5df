from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest

from sfm_match import Recipe, evaluate_pairs
from sfm_match.geometry import poses
from sfm_match.io.store import Store
from sfm_match.spec import ConfigError
from sfm_match.stages.pair_results import PairsEvaluation, format_pairs_evaluation
from sfm_match.types import ArrayF64, Features
from tests import plugin_matcher
from tests.io.test_pose_pairs import line_of
from tests.io.test_pose_pairs import write as write_list
from tests.scenes import NAMES, NUM_PAIRS, SIZE, make_images, make_truth, truncate

SCALE = SIZE[0] / 960
SETTINGS = ("features.max_keypoints=600",)


def recipe(images: Path, *settings: str, seed: int = 0) -> Recipe:
    return Recipe.load("sift", *SETTINGS, *settings, seed=seed, images={"path": images})


def write_pairs(folder: Path, truth: Path, names: tuple[str, ...], turns: str = "0 0") -> Path:
    """Write all pairs of a model as a list, with the intrinsics of a SIZE image."""
    model = pycolmap.Reconstruction(truth)
    world = {image.name: image.cam_from_world().matrix() for image in model.images.values()}
    lines = [
        line_of(f"{a} {b}", turns, k, k, np.vstack([pose, [0, 0, 0, 1]]))
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        for k, pose in [(turned_k(0), poses.relative_pose(world[a], world[b]))]
    ]
    return write_list(folder, *lines)


def turned_k(turn: int) -> ArrayF64:
    """K of a turned picture, but for distortion, with the first pixel's centre at (0, 0)."""
    width, height = SIZE if turn % 2 == 0 else SIZE[::-1]
    focal = 770 * SCALE
    return np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, their truth, and an evaluation's stores in `out`."""
    folder = tmp_path_factory.mktemp("gallery")
    make_images(folder)
    make_truth(folder)
    return folder


@pytest.fixture(scope="module")
def result(gallery: Path) -> PairsEvaluation:
    return evaluate_pairs(
        gallery / "truth",
        recipe(gallery / "images"),
        gallery / "out",
        estimators=("poselib", "opencv"),
        thresholds=(0.5, 1.0),
        threads=2,
    )


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


def as_pinhole(folder: Path, truth: Path) -> Path:
    """Write a model with the camera of `turned_k` in the size of the images."""
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        model="PINHOLE",
        width=SIZE[0],
        height=SIZE[1],
        params=[770 * SCALE, 770 * SCALE, 160, 120],
        camera_id=1,
    )
    model.add_camera_with_trivial_rig(camera)
    for image in pycolmap.Reconstruction(truth).images.values():
        bare = pycolmap.Image(name=image.name, camera_id=1, image_id=image.image_id)
        model.add_image_with_trivial_frame(bare, image.cam_from_world())
    folder.mkdir()
    model.write(folder)
    return folder


def errors_of(evaluation: PairsEvaluation) -> list[float]:
    return [pose.error for pose in evaluation.runs[0].poses]


def test_a_list_and_a_model_of_the_same_truth_agree(
    tmp_path: Path, gallery: Path, result: PairsEvaluation
) -> None:
    settings = recipe(gallery / "images")
    pinhole = as_pinhole(tmp_path / "pinhole", gallery / "truth")
    of_list = evaluate_pairs(write_pairs(tmp_path, pinhole, NAMES), settings, gallery / "out")
    of_model = evaluate_pairs(pinhole, settings, gallery / "out")
    assert errors_of(of_list) == pytest.approx(errors_of(of_model), abs=1e-6)
    assert of_list.precision == pytest.approx(of_model.precision)
    # The real camera has a little distortion, which a list cannot say.
    assert errors_of(of_list) != pytest.approx(errors_of(result), abs=1e-3)


def test_a_pair_in_the_other_order_has_the_flipped_matches(
    tmp_path: Path, gallery: Path, result: PairsEvaluation
) -> None:
    first, second = NAMES[:2]
    pinhole = as_pinhole(tmp_path / "pinhole", gallery / "truth")
    there = write_pairs(tmp_path, pinhole, (first, second))
    forth = evaluate_pairs(there, recipe(gallery / "images"), gallery / "out")
    there = write_pairs(tmp_path, pinhole, (second, first))
    back = evaluate_pairs(there, recipe(gallery / "images"), gallery / "out")
    assert back.matches[0].names == (second, first)
    assert back.matches[0].num_keypoints == (forth.matches[0].num_keypoints or ())[::-1]
    assert back.precision == pytest.approx(forth.precision)
    assert back.runs[0].poses[0].error < 3
    assert back.precision is not None
    assert back.precision > 90


def turned(pixels: Any, turn: int) -> Any:
    """Turn a picture clockwise by quarters."""
    return np.rot90(pixels, -turn)


def test_rotations_of_a_list_are_honoured(tmp_path: Path, gallery: Path) -> None:
    """Pictures that lie turned in their files, for an extractor that needs them upright."""
    world = {
        image.name: image.cam_from_world().matrix()
        for image in pycolmap.Reconstruction(gallery / "truth").images.values()
    }
    found = {}
    for case, turns in (("straight", (0, 0, 0)), ("turned", (1, 2, 3))):
        folder = tmp_path / case
        (folder / "images").mkdir(parents=True)
        rolled = []
        for name, turn in zip(NAMES, turns, strict=False):
            pixels = cv2.imread(str(gallery / "images" / name))
            cv2.imwrite(str(folder / "images" / f"{name}.png"), turned(pixels, turn))
            # A direction to the right comes to point down.
            quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
            rolled.append(np.linalg.matrix_power(quarter, turn) @ world[name])
        lines = [
            line_of(
                f"{NAMES[i]}.png {NAMES[j]}.png",
                f"{turns[i]} {turns[j]}",
                turned_k(turns[i]),
                turned_k(turns[j]),
                np.vstack([poses.relative_pose(rolled[i], rolled[j]), [0, 0, 0, 1]]),
            )
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        settings = recipe(folder / "images", "features.upright=true")
        found[case] = evaluate_pairs(
            write_list(folder, *lines), settings, folder / "out", threads=1
        )
    a, b = found["turned"], found["straight"]
    assert [pair.num_matches for pair in a.matches] == [pair.num_matches for pair in b.matches]
    assert b.precision is not None
    assert b.precision > 90
    assert a.precision == pytest.approx(b.precision, abs=0.5)
    assert errors_of(a) == pytest.approx(errors_of(b), abs=0.3)
    (store_folder,) = (tmp_path / "turned" / "out" / "features").iterdir()
    store = Store(store_folder, Features)
    sizes = {name: tuple(item.image_size) for name, item in store.items(store.entries())}
    store.close()
    # In the raster of the file, whichever way the picture was turned for the extractor.
    assert [sizes[f"{name}.png"] for name in NAMES[:3]] == [SIZE[::-1], SIZE, SIZE[::-1]]


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
