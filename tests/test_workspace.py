"""An output folder never mixes what was made with different settings, and repairs its model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pycolmap
import pytest
from filelock import FileLock

from tests.scenes import NAMES, call, make_images, make_truth, model_content, results

QUIET = ("-q", "--threads", "1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    assert call("run", images, out, *QUIET).code == 0
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize(
    "setting",
    ["camera.model=PINHOLE", "features.max_keypoints=300", "verify.ransac.max_error=8"],
)
def test_a_database_of_other_settings_is_not_mapped(out: Path, setting: str) -> None:
    before = results(out), (out / "recipe.toml").read_text()
    outcome = call("map", out, "-o", setting, *QUIET)
    assert outcome.code == 1
    assert "first" in outcome.stderr
    assert (results(out), (out / "recipe.toml").read_text()) == before


@pytest.mark.parametrize("stage", ["extract", "pairs", "match", "verify", "import", "map"])
def test_no_stage_works_on_a_folder_that_another_run_holds(
    images: Path, out: Path, stage: str
) -> None:
    before = results(out)
    with FileLock(out / ".lock"):
        outcome = call(stage, *([images] if stage == "extract" else []), out, "--seed", "7", "-q")
    assert outcome.code == 1
    assert "another run is writing there" in outcome.stderr
    assert results(out) == before


@pytest.mark.parametrize("part", ["model/points3D.bin", "models/0/images.bin"])
def test_a_damaged_model_is_made_again(images: Path, out: Path, part: str) -> None:
    whole = model_content(out / "model")
    (out / part).write_bytes(b"")
    assert call("run", images, out, *QUIET).code == 0
    assert not results(out)["stages"]["map"]["reused"]
    assert model_content(out / "model") == whole


def test_the_camera_of_an_image_without_pairs_is_renewed_too(tmp_path: Path, images: Path) -> None:
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(f"{NAMES[0]} {NAMES[1]}\n")
    command = ("run", images, tmp_path / "out", "--pairs", pairs, "-o", "camera.mode=per_image")
    focals = []
    for factor in (1.2, 2.0):
        call(*command, "-o", f"camera.focal_factor={factor}", *QUIET)
        with pycolmap.Database.open(tmp_path / "out" / "database.db") as database:
            focals.append(database.read_camera(len(NAMES)).mean_focal_length())
    assert focals[1] / focals[0] == pytest.approx(2.0 / 1.2)


def test_fixed_holds_a_guessed_focal_length_that_all_images_share(
    tmp_path: Path, images: Path
) -> None:
    settings = ("-o", "camera.mode=single", "-o", "camera.fixed=true", *QUIET)
    call("run", images, tmp_path / "out", *settings)
    with pycolmap.Database.open(tmp_path / "out" / "database.db") as database:
        guess = list(database.read_camera(1).params)
    (camera,) = pycolmap.Reconstruction(tmp_path / "out" / "model").cameras.values()
    assert list(camera.params) == guess


def test_two_images_make_a_model(tmp_path: Path) -> None:
    images = make_images(tmp_path, NAMES[:2])
    outcome = call("run", images, tmp_path / "out", "--json", *QUIET)
    assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["stages"]["map"]["models"][0]["images"] == 2


def test_one_image_makes_none_and_the_reason_says_so(tmp_path: Path) -> None:
    images = make_images(tmp_path, NAMES[:1])
    outcome = call("run", images, tmp_path / "out", *QUIET)
    assert outcome.code == 3
    assert "at least two are needed" in outcome.stdout


def test_problems_of_a_list_of_pairs_are_shown(images: Path, out: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.txt"
    lines = [f"{NAMES[i]} {NAMES[j]}" for i in range(4) for j in range(i)]
    pairs.write_text("\n".join([*lines, f"{NAMES[0]} nowhere.jpg"]))
    outcome = call("run", images, out, "--pairs", pairs, *QUIET)
    assert outcome.code == 0
    assert "nowhere.jpg" in outcome.stderr
    pairs.write_text("a.jpg nowhere.jpg\n")
    outcome = call("run", images, out, "--pairs", pairs, *QUIET)
    assert outcome.code == 1
    assert "none is left" in outcome.stderr


def test_a_truth_that_is_not_there_is_known_before_the_work(tmp_path: Path, images: Path) -> None:
    outcome = call("run", images, tmp_path / "out", "--truth", tmp_path / "nowhere", *QUIET)
    assert outcome.code == 1
    assert not (tmp_path / "out" / "features").exists()


def test_a_device_that_is_not_there_is_known_before_the_work(tmp_path: Path, images: Path) -> None:
    outcome = call("run", images, tmp_path / "out", "--device", "tpu", *QUIET)
    assert outcome.code == 1
    assert "device 'tpu' cannot be used" in outcome.stderr


def test_posed_models_of_other_image_sizes_are_refused(images: Path, out: Path) -> None:
    # The photographs of the scene are smaller than those that the truth is of.
    truth = make_truth(out.parent)
    options = ("--mapper", "triangulation", "-o", f"mapper.poses={truth}")
    outcome = call("run", images, out, *options, *QUIET)
    assert outcome.code == 1
    assert "in the run" in outcome.stderr


def test_a_stray_file_survives_clean(out: Path) -> None:
    (out / "features" / ".DS_Store").touch()
    assert call("clean", out).code == 0
    assert (out / "features" / ".DS_Store").exists()
