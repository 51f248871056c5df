"""The command line from end to end, on six small photographs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pycolmap
import pytest

from sfm_match.io.results import versions
from tests.scenes import (
    NAMES,
    NUM_PAIRS,
    SIZE,
    Outcome,
    call,
    database_rows,
    finish,
    make_images,
    make_truth,
    model_content,
    read_everything,
    results,
    start,
    truncate,
)

ROOT = Path(__file__).parents[1]
FIXED = ("--seed", "0", "--threads", "1", "-q")


class Scene(NamedTuple):
    images: Path
    truth: Path
    out: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("cli")
    images, truth, out = make_images(folder), make_truth(folder), folder / "out"
    outcome = call("run", images, out, "--truth", truth, "--seed", "0", "--threads", "1")
    return Scene(images, truth, out, outcome)


@pytest.fixture
def copy(scene: Scene, tmp_path: Path) -> Path:
    """A copy of the output folder of the finished run."""
    return Path(shutil.copytree(scene.out, tmp_path / "out"))


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


def test_stage_by_stage_gives_the_same_model(scene: Scene, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcomes = [call("extract", scene.images, out, *FIXED)]
    outcomes += [
        call(stage, out, "--threads", "1") for stage in ("pairs", "match", "verify", "import")
    ]
    outcomes.append(call("map", out, "--threads", "1"))
    assert [outcome.code for outcome in outcomes] == [0] * 6
    said = [outcome.stdout for outcome in outcomes]
    assert said[0] == "6 images extracted, 0 were there\n"
    assert said[1] == f"{NUM_PAIRS} pairs; 0 problems\n"
    assert said[2] == f"{NUM_PAIRS} pairs matched, 0 were there\n"
    assert said[3] == f"{NUM_PAIRS} pairs verified, 0 were there\n"
    assert said[4].startswith("6 images, ")
    assert "6 of 6 images" in said[5]
    assert read_everything(out) == read_everything(scene.out)
    assert database_rows(out / "database.db") == database_rows(scene.out / "database.db")
    assert model_content(out / "model") == model_content(scene.out / "model")


@pytest.mark.parametrize(
    ("stage", "earlier"),
    [
        ("match", "pairs.txt"),
        ("verify", "match first"),
        ("import", "verify first"),
        ("map", "verify first"),
    ],
)
def test_a_stage_before_its_time_says_which_one_comes_first(
    scene: Scene, tmp_path: Path, stage: str, earlier: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(scene.out / "features", out / "features")
    shutil.copy(scene.out / "recipe.toml", out)
    if stage != "match":
        shutil.copy(scene.out / "pairs.txt", out)
    if stage == "import":
        shutil.copytree(scene.out / "matches", out / "matches")
    outcome = call(stage, out)
    assert outcome.code == 1
    assert earlier in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_json_is_all_that_standard_output_gets(scene: Scene, copy: Path) -> None:
    # In a process of its own: pycolmap's own messages do not pass through sys.stdout. The model is
    # made anew, and progress is not switched off.
    shutil.rmtree(copy / "model")
    command = ("run", scene.images, copy, "--seed", "0", "--json", "--truth", scene.truth)
    outcome = finish(start(*command))
    assert outcome.code == 0
    content = json.loads(outcome.stdout)
    assert content == results(copy)
    assert content["evaluation"]["num_registered"] == 6
    assert "map" in outcome.stderr  # the progress


@pytest.mark.parametrize("stage", ["pairs", "match", "verify", "import", "map"])
def test_every_stage_prints_json(copy: Path, stage: str) -> None:
    outcome = call(stage, copy, "--json", "-q")
    assert outcome.code == 0
    assert json.loads(outcome.stdout) == results(copy)
    assert outcome.stderr == ""


def test_progress_goes_to_standard_error_and_quiet_shows_none(scene: Scene, copy: Path) -> None:
    loud = call("run", scene.images, copy, "--seed", "0")
    quiet = call("run", scene.images, copy, "--seed", "0", "--quiet")
    for stage in ("extract", "match", "verify", "import", "map"):
        assert stage in loud.stderr
        assert stage not in loud.stdout
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout


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


def test_eval_model_compares_a_model_with_the_truth(scene: Scene) -> None:
    text = call("eval", "model", scene.out / "model", scene.truth)
    assert text.code == 0
    assert "6 of 6 registered" in text.stdout
    as_json = call("eval", "model", scene.out / "model", scene.truth, "--json")
    assert json.loads(as_json.stdout) == results(scene.out)["evaluation"]


def test_models_lists_components_with_options_and_licences() -> None:
    found = json.loads(call("models", "--json").stdout)
    assert found["extractors"]["sift"]["options"]["max_keypoints"] == 8192
    assert found["matchers"]["nearest"]["licence"] == "Apache-2.0"
    text = call("models").stdout
    assert "sift" in text
    assert "max_keypoints = 8192" in text


def test_recipes_lists_every_packaged_recipe() -> None:
    found = json.loads(call("recipes", "--json").stdout)
    files = sorted(path.stem for path in (ROOT / "pipelines").glob("*.toml"))
    assert sorted(found) == files
    lines = call("recipes").stdout.splitlines()
    assert [line.split()[0] for line in lines] == files
    assert all(found[name]["description"] in line for name, line in zip(files, lines, strict=True))


def test_export_writes_hloc_files_and_leaves_the_results_alone(copy: Path) -> None:
    before = results(copy)
    outcome = call("export", copy, "--format", "hloc")
    assert outcome.code == 0
    paths = [Path(line) for line in outcome.stdout.splitlines()]
    assert paths == [copy / "hloc" / "features.h5", copy / "hloc" / "matches.h5"]
    with h5py.File(paths[0]) as file:
        assert sorted(file) == list(NAMES)
        assert sum(len(file[name]["keypoints"]) for name in NAMES) == num_keypoints(copy)
    assert results(copy) == before


def test_export_writes_colmap_text_where_it_is_told(copy: Path, tmp_path: Path) -> None:
    target = tmp_path / "text"
    assert call("export", copy, "--format", "colmap-text", "--to", target).code == 0
    assert sorted(path.name for path in (target / "features").iterdir()) == [
        f"{name}.txt" for name in NAMES
    ]
    heads = [(target / "features" / f"{name}.txt").read_text().split()[0] for name in NAMES]
    assert sum(map(int, heads)) == num_keypoints(copy)


def test_export_offers_the_formats_there_are(copy: Path) -> None:
    outcome = call("export", copy, "--format", "hlok")
    assert outcome.code == 1
    assert "did you mean 'hloc'" in outcome.stderr


def num_keypoints(out: Path) -> int:
    return int(results(out)["stages"]["import"]["counts"]["keypoints"])


def test_clean_removes_exactly_the_stores_that_the_last_settings_do_not_use(
    scene: Scene, copy: Path
) -> None:
    old = {path for kind in ("matches", "two_views") for path in (copy / kind).iterdir()}
    assert call("clean", copy).stdout == ""
    assert call("run", scene.images, copy, *FIXED, "-o", "matcher.ratio=0.7").code == 0
    kept = read_everything(copy)
    outcome = call("clean", copy)
    assert outcome.code == 0
    assert set(outcome.stdout.splitlines()) == {f"deleted {path}" for path in old}
    assert not any(path.exists() for path in old)
    of_old = {str(path.relative_to(copy)) for path in old}
    assert read_everything(copy) == {
        key: item for key, item in kept.items() if key[0] not in of_old
    }
    assert call("clean", copy).stdout == ""


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


HOLD = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(out: Path, seconds: float) -> subprocess.Popen[str]:
    """Hold the lock of an output folder in another process."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out / ".lock"), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("command", ["run", "import", "map", "clean"])
def test_a_folder_in_use_is_refused_and_left_as_it_is(
    scene: Scene, copy: Path, command: str
) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != "log.txt"}
    images = [scene.images] if command == "run" else []
    options = [] if command == "clean" else ["-o", "matcher.ratio=0.6"]
    with hold(copy, 60) as holder:
        outcome = call(command, *images, copy, *options)
        holder.kill()
    assert outcome.code == 1
    assert outcome.stderr.splitlines() == [
        f"error: {copy}: another run is writing there; wait for its end, or pass --wait"
    ]
    after = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file() and p.name != "log.txt"}
    assert after == before


def test_with_wait_a_run_begins_when_the_folder_is_free(scene: Scene, copy: Path) -> None:
    with hold(copy, 1.0) as holder:
        begun = time.monotonic()
        outcome = call("run", scene.images, copy, "--seed", "0", "-q", "--wait")
        assert holder.wait(timeout=5) == 0
    assert outcome.code == 0
    assert time.monotonic() - begun >= 0.8


def test_a_wheel_brings_the_recipes(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed, so no wheel can be built")
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-q", "-w", tmp_path], check=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    code = "from sfm_match.stages.recipe import recipe_names; print(*recipe_names())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "site",
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stdout.split() == sorted(path.stem for path in (ROOT / "pipelines").glob("*.toml"))
