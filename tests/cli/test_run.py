"""`run` from end to end, on six small photographs."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.io.results import versions
from tests.cli.finished import FIXED, Scene
from tests.scenes import (
    NAMES,
    NUM_PAIRS,
    SIZE,
    call,
    database_rows,
    make_images,
    model_content,
    read_everything,
    results,
    truncate,
)


def test_run_makes_a_model_of_all_images_and_prints_how_good_it_is(scene: Scene) -> None:
    assert scene.outcome.code == 0
    assert pycolmap.Reconstruction(scene.out / "model").num_reg_images() == len(NAMES)
    first, *table = scene.outcome.stdout.splitlines()
    assert first.startswith(f"{scene.out / 'model'}: 6 of 6 images, ")
    assert "6 of 6 registered" in table[0]
    assert any(line.startswith("AUC (%)") for line in table)


def test_the_poses_are_right(scene: Scene) -> None:
    evaluation = results(scene.out)["evaluation"]
    assert evaluation["num_registered"] == len(NAMES)
    assert evaluation["rotation"]["max"] < 1.0  # degrees; 320 x 240 pixels
    assert evaluation["position"]["max"] < 0.05  # metres, in a room of 8 by 6.5


def test_results_hold_what_a_run_was_made_from_and_what_it_did(scene: Scene) -> None:
    content = results(scene.out)
    assert content["recipe"]["images"] == {"path": str(scene.images)}
    assert content["recipe"]["seed"] == 0
    assert content["versions"] == versions()
    assert content["versions"]["pycolmap"] == pycolmap.__version__
    assert sorted(content["images"]) == list(NAMES)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in content["images"].values())
    assert content["failures"] == {}
    stages = content["stages"]
    assert list(stages) == ["extract", "pairs", "match", "verify", "import", "map"]
    assert all(stage["seconds"] >= 0 for stage in stages.values())
    assert (stages["extract"]["computed"], stages["extract"]["reused"]) == (6, 0)
    assert stages["pairs"]["pairs"] == NUM_PAIRS
    assert (stages["match"]["computed"], stages["match"]["num_encoded"]) == (NUM_PAIRS, 6)
    assert stages["verify"]["computed"] == NUM_PAIRS
    assert stages["import"]["counts"]["images"] == 6
    assert stages["map"]["models"][0]["images"] == 6
    for kind, fingerprint in content["fingerprints"].items():
        if kind != "mapper":
            assert [path.name.endswith(fingerprint) for path in (scene.out / kind).iterdir()] == [
                True
            ]


def test_the_recipe_kept_in_the_folder_repeats_the_run(scene: Scene, tmp_path: Path) -> None:
    kept = scene.out / "recipe.toml"
    assert tomllib.loads(kept.read_text()) == results(scene.out)["recipe"]
    assert call("run", scene.images, tmp_path / "out", "--recipe", kept, *FIXED).code == 0
    assert read_everything(tmp_path / "out") == read_everything(scene.out)


def test_a_seed_and_one_thread_give_the_same_bits_elsewhere(scene: Scene, tmp_path: Path) -> None:
    images = shutil.copytree(scene.images, tmp_path / "moved images")
    assert call("run", images, tmp_path / "out", *FIXED).code == 0
    assert model_content(tmp_path / "out" / "model") == model_content(scene.out / "model")
    rows = database_rows(tmp_path / "out" / "database.db")
    assert rows == database_rows(scene.out / "database.db")


def test_an_image_that_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    images, out = make_images(tmp_path), tmp_path / "out"
    truncate(images / "02.jpg")
    (images / "empty.png").touch()
    outcome = call("run", images, out, *FIXED)
    assert outcome.code == 4
    assert "5 of 7 images" in outcome.stdout
    left_out = [line for line in outcome.stderr.splitlines() if line.startswith("left out: ")]
    assert [line.split(": ")[1] for line in sorted(left_out)] == ["02.jpg", "empty.png"]
    assert sorted(results(out)["failures"]) == ["02.jpg", "empty.png"]
    # Whoever goes on stage by stage is told, too.
    later = call("map", out, *FIXED)
    assert later.code == 4
    assert sorted(results(out)["failures"]) == ["02.jpg", "empty.png"]
    # And once the image is whole, nothing is left of it.
    shutil.copy(make_images(tmp_path / "whole") / "02.jpg", images)
    (images / "empty.png").unlink()
    assert call("pairs", out, *FIXED).code == 0
    assert results(out)["failures"] == {}
    assert call("run", images, out, *FIXED).code == 0
    assert results(out)["failures"] == {}


def test_no_model_is_an_exit_code_and_a_reason_with_numbers(tmp_path: Path) -> None:
    images = make_images(tmp_path, ("00.jpg", "08.jpg"))  # from opposite sides of the room
    outcome = call("run", images, tmp_path / "out", *FIXED)
    assert outcome.code == 3
    assert outcome.stdout.startswith("no model: 2 of 2 images have keypoints; ")
    assert "pairs have matches" in outcome.stdout
    assert not (tmp_path / "out" / "model").exists()
    as_json = call("run", images, tmp_path / "out", *FIXED, "--json")
    assert as_json.code == 3
    reason = json.loads(as_json.stdout)["stages"]["map"]["reason"]
    assert outcome.stdout == f"no model: {reason}\n"


def test_a_failed_run_takes_the_older_model_and_its_evaluation_away(
    scene: Scene, copy: Path
) -> None:
    setting = "mapper.mapper.init_min_num_inliers=100000"
    assert call("run", scene.images, copy, *FIXED, "-o", setting).code == 3
    assert not (copy / "model").exists()
    assert not (copy / "models").exists()
    assert "evaluation" not in results(copy)


def test_fixed_intrinsics_are_held_exactly(scene: Scene, tmp_path: Path) -> None:
    scale = SIZE[0] / 960
    params = [770 * scale, 770 * scale, SIZE[0] / 2, SIZE[1] / 2]
    settings = (
        "camera.mode=single",
        "camera.model=PINHOLE",
        f"camera.params={','.join(map(repr, params))}",
        "camera.fixed=true",
    )
    options = [part for setting in settings for part in ("-o", setting)]
    outcome = call("run", scene.images, tmp_path / "out", *FIXED, "--truth", scene.truth, *options)
    assert outcome.code == 0
    model = pycolmap.Reconstruction(tmp_path / "out" / "model")
    assert [camera.model.name for camera in model.cameras.values()] == ["PINHOLE"]
    assert list(model.cameras[1].params) == params
    assert results(tmp_path / "out")["evaluation"]["rotation"]["max"] < 2.0


def test_intrinsics_are_refined_unless_they_are_fixed(scene: Scene) -> None:
    model = pycolmap.Reconstruction(scene.out / "model")
    guess = 1.2 * SIZE[0]
    focals = np.array([camera.params[0] for camera in model.cameras.values()])
    assert len(focals) == len(NAMES)  # these files have no EXIF data
    assert (focals != guess).all()
    assert np.median(focals) == pytest.approx(770 * SIZE[0] / 960, rel=0.03)


def test_eval_model_compares_a_model_with_the_truth(scene: Scene) -> None:
    text = call("eval", "model", scene.out / "model", scene.truth)
    assert text.code == 0
    assert "6 of 6 registered" in text.stdout
    as_json = call("eval", "model", scene.out / "model", scene.truth, "--json")
    assert json.loads(as_json.stdout) == results(scene.out)["evaluation"]
