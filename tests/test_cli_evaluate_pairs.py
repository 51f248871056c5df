"""`sfm-match eval pairs`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scenes import NAMES, call, make_images, make_truth, truncate

OPTIONS = ("--features", "sift", "-o", "features.max_keypoints=500", "--threads", "1", "-q")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images and their truth."""
    folder = tmp_path_factory.mktemp("scene")
    make_images(folder, NAMES[:3])
    make_truth(folder, NAMES[:3])
    return folder


def test_one_estimator_gives_one_object(folder: Path) -> None:
    ended = call(
        *("eval", "pairs", folder / "truth", folder / "images", "--out", folder / "out"),
        *(*OPTIONS, "--matcher", "nearest", "--seed", "3", "--json"),
    )
    assert (ended.code, ended.stderr) == (0, "")
    content = json.loads(ended.stdout)
    assert (content["estimator"], content["threshold"], content["seed"]) == ("poselib", 1.5, 3)
    assert set(content["auc"]) == {"5", "10", "20"}
    assert content["auc"]["20"] > 80
    assert [(pair["name0"], pair["name1"]) for pair in content["pairs"]] == [
        (NAMES[0], NAMES[1]),
        (NAMES[0], NAMES[2]),
        (NAMES[1], NAMES[2]),
    ]
    assert content["features"]["config"]["max_keypoints"] == 500
    assert (content["features"]["name"], content["matcher"]["name"]) == ("sift", "nearest")
    assert {path.name for path in (folder / "out").iterdir()} == {
        "features",
        "matches",
        "timings.json",
    }


def test_several_are_compared_in_a_table(folder: Path) -> None:
    ended = call(
        *("eval", "pairs", folder / "truth", folder / "images", "--out", folder / "out"),
        *(*OPTIONS, "--estimator", "opencv", "--estimator", "pycolmap"),
        *("--threshold", "0.5", "--threshold", "1"),
    )
    assert ended.code == 0
    labels = [line[:18].strip() for line in ended.stdout.splitlines()[5:9]]
    assert labels == ["opencv, 0.5 px", "opencv, 1 px", "pycolmap, 0.5 px", "pycolmap, 1 px"]


def test_nothing_is_left_behind_without_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = call("eval", "pairs", folder / "truth", folder / "images", *OPTIONS, "--json")
    assert json.loads(ended.stdout)["num_pairs"] == 3
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_is_left_out_changes_the_exit_code(tmp_path: Path) -> None:
    images, truth = make_images(tmp_path, NAMES[:3]), make_truth(tmp_path, NAMES[:3])
    truncate(images / NAMES[2])
    ended = call("eval", "pairs", truth, images, *OPTIONS, "--json")
    assert ended.code == 4
    assert ended.stderr.startswith(f"left out: {NAMES[2]}: ")
    content = json.loads(ended.stdout)
    assert list(content["failures"]) == [NAMES[2]]
    assert content["num_failed"] == 2
    assert content["pairs"][1]["error"] == 180
    assert content["pairs"][1]["rotation_error"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--estimator", "magsac"), "no estimator named 'magsac'; have opencv, poselib, pycolmap"),
        (("--threshold", "0"), "the threshold must be a positive number of pixels, got 0.0"),
        (("--min-angle", "170"), "no pair has 170 to 180 degrees between the viewing directions"),
        (("-o", "features.max_keypoint=5"), "features.max_keypoint: no such option; did you mean"),
        (("--matcher", "nearst"), "no matcher named 'nearst'; did you mean 'nearest'"),
    ],
)
def test_wrong_options_are_one_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = call("eval", "pairs", folder / "truth", folder / "images", *OPTIONS, *arguments)
    assert (ended.code, ended.stdout) == (1, "")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_truth_of_other_images_is_refused(folder: Path, tmp_path: Path) -> None:
    images = make_images(tmp_path, NAMES[3:5])
    ended = call("eval", "pairs", folder / "truth", images, *OPTIONS)
    assert ended.code == 1
    assert "0 of its 3 images with a pose are in" in ended.stderr
    assert "00.jpg, 01.jpg, 02.jpg, the folder 03.jpg, 04.jpg" in ended.stderr


def test_the_help_says_which_convention_k_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    ended = call("eval", "pairs", "--help")
    assert ended.code == 0
    text = " ".join(ended.stdout.replace("│", " ").split())
    assert "K has the centre of the first pixel at (0, 0)" in text
    assert "--mapper" not in text


def test_images_that_are_not_there_are_said_and_change_the_exit_code(
    folder: Path, tmp_path: Path
) -> None:
    images = make_images(tmp_path, NAMES[:2])
    ended = call("eval", "pairs", folder / "truth", images, *OPTIONS, "--matcher", "nearest")
    assert ended.code == 4
    assert f"left out: 1 images of the truth are not in {images}" in ended.stderr
