"""Wrong options, paths and commands: one line that says what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.finished import FIXED, Scene
from tests.scenes import (
    Outcome,
    call,
    finish,
    make_images,
    start,
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "sfit"], "no recipe or file 'sfit'; did you mean 'sift'"),
        (["--features", "sitf"], "did you mean 'sift'"),
        (["--matcher", "nearst"], "did you mean 'nearest'"),
        (["--mapper", "incremetal"], "did you mean 'incremental'"),
        (["--pairs", "exhaustiv"], "pairs.method"),
        (["-o", "features.max_keypoint=9"], "features.max_keypoint: no such option; did you mean"),
        (["-o", "features.max_keypoints=-1"], "features.max_keypoints"),
        (["-o", "matcher.ration=0.9"], "did you mean 'ratio'"),
        (["-o", "camera.model=PINHOL"], "did you mean 'PINHOLE'"),
        (["-o", "camera.params=1,2"], "camera.params: SIMPLE_RADIAL has the parameters f, cx, cy"),
        (["-o", "verify.ransac.max_errors=2"], "did you mean 'max_error'"),
        (["-o", "verify.ransac.max_error=wide"], "verify.ransac.max_error: must be of type float"),
        (["-o", "mapper.mapper.init_min_num_inlier=9"], "did you mean 'init_min_num_inliers'"),
        (["-o", "feature.resize=640"], "[feature]: no such table; did you mean 'features'"),
        (["-o", "features.resize"], "must be TABLE.KEY=VALUE"),
        (["-o", "seed=-1"], "seed: must be a whole number from 0 on"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_and_what_would_be_right(
    scene: Scene, tmp_path: Path, arguments: list[str], message: str
) -> None:
    outcome = call("run", scene.images, tmp_path / "out", *FIXED, *arguments)
    assert outcome.code == 1
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("error: ")
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_a_camera_that_does_not_fit_the_images_is_told_before_the_work(
    scene: Scene, tmp_path: Path
) -> None:
    images = shutil.copytree(scene.images, tmp_path / "images")
    shutil.copy(make_images(tmp_path / "large", ("07.jpg",), (480, 360)) / "07.jpg", images)
    out = tmp_path / "out"
    outcome = call("run", images, out, *FIXED, "-o", "camera.mode=single")
    assert outcome.code == 1
    assert "camera.mode=single: 07.jpg is 480 x 360" in outcome.stderr
    assert not (out / "features").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere", "out"], "nowhere: no such folder"),
        (["run", "empty", "out"], "empty: holds no image"),
        (["match", "out"], "out: not an output folder (it has no recipe.toml); extract first"),
        (["clean", "out"], "out: not an output folder"),
        (["export", "out", "--format", "hloc"], "out: not an output folder"),
        (["eval", "model", "empty", "empty"], "empty"),
    ],
)
def test_a_wrong_path_is_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    outcome = call(*arguments)
    assert outcome.code == 1
    assert outcome.stderr.startswith("error: ")
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_an_error_of_a_real_process_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    outcome = finish(start("run", tmp_path / "nowhere", tmp_path / "out"))
    expected = f"error: {tmp_path / 'nowhere'}: no such folder\n"
    assert outcome == Outcome(1, "", expected)


@pytest.mark.parametrize(
    "arguments",
    [[], ["rnu"], ["run"], ["run", "a", "b", "--fast"], ["run", "a", "b", "--threads", "0"]],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert call(*arguments).code == 2
