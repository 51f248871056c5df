"""One command for each stage, and what the commands print."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.finished import FIXED, Scene
from tests.scenes import (
    NUM_PAIRS,
    call,
    database_rows,
    finish,
    model_content,
    read_everything,
    results,
    start,
)


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
