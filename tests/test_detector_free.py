"""Whole runs with a matcher that finds points itself, and makes tracks of them."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from sfm_match.stages.recipe import Recipe
from tests import plugin_matcher
from tests.scenes import (
    NAMES,
    NUM_PAIRS,
    Outcome,
    call,
    database_rows,
    finish,
    make_images,
    model_content,
    read_everything,
    results,
    start,
    stores,
    truncate,
)

RECIPE = """
description = "points of any image"

[matcher]
name = "points"

[tracks]
radius = 1.5

[verify.ransac]
max_error = 2.0
"""
FIXED = ("--seed", "0", "--threads", "1", "-q")
STAGES = ("pairs", "match", "tracks", "verify", "import", "map")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_matcher.register(monkeypatch)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a recipe and a finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("points")
    (folder / "points.toml").write_text(RECIPE)
    make_images(folder)
    with pytest.MonkeyPatch.context() as patch:
        plugin_matcher.register(patch)
        assert run(folder).code == 0
    return folder


@pytest.fixture
def made(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "made"))


def run(folder: Path, *options: str) -> Outcome:
    recipe = ("--recipe", str(folder / "points.toml"), *FIXED, *options)
    return call("run", folder / "images", folder / "out", *recipe)


def done(folder: Path) -> dict[str, Any]:
    """Return what each stage of the last run did: how many it computed, or whether it worked."""
    stages = results(folder / "out")["stages"]
    counts = {name: stages[name]["computed"] for name in ("match", "verify")}
    return counts | {name: not stages[name]["reused"] for name in ("tracks", "import", "map")}


def state(out: Path) -> tuple[Any, ...]:
    return read_everything(out), database_rows(out / "database.db"), model_content(out / "model")


NOTHING = {"match": 0, "tracks": False, "verify": 0, "import": False, "map": False}
FROM_TRACKS = {"match": 0, "tracks": True, "verify": NUM_PAIRS, "import": True, "map": True}


def test_all_images_are_registered_without_any_extractor(base: Path) -> None:
    content = results(base / "out")
    assert content["stages"]["map"]["models"][0]["images"] == len(NAMES)
    assert content["stages"]["tracks"]["mean_length"] > 2.2
    assert list(content["stages"]) == list(STAGES)
    assert content["fingerprints"].keys() == {"matches", "tracks", "two_views", "mapper"}


def test_stage_by_stage_is_the_same_as_a_run(base: Path) -> None:
    out = base / "stages"
    recipe = ("--recipe", base / "points.toml", *FIXED)
    outcome = call("extract", base / "images", out, *recipe)
    assert outcome.code == 0
    assert "no features to extract" in outcome.stdout
    for stage in STAGES:
        assert call(stage, out, *FIXED).code == 0, stage
    assert state(out) == state(base / "out")


def test_without_a_change_nothing_is_done(made: Path, base: Path) -> None:
    assert run(made).code == 0
    assert done(made) == NOTHING
    assert state(made / "out") == state(base / "out")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("matcher.noise=0.1", {**FROM_TRACKS, "match": NUM_PAIRS}),
        ("tracks.radius=1.0", FROM_TRACKS),
        ("tracks.min_length=3", FROM_TRACKS),
        ("verify.min_num_inliers=20", {**FROM_TRACKS, "tracks": False}),
    ],
)
def test_a_setting_renews_what_follows_it(
    made: Path, base: Path, setting: str, expected: dict[str, Any]
) -> None:
    assert run(made, "-o", setting).code == 0
    assert done(made) == expected
    assert run(made).code == 0
    assert done(made) == {**NOTHING, "import": True, "map": True}
    everything, *rest = state(made / "out")
    assert everything.items() >= read_everything(base / "out").items()
    assert rest == list(state(base / "out")[1:])


def test_no_stage_takes_what_the_one_before_has_not_renewed(made: Path) -> None:
    for stage, option, first in (
        ("tracks", "matcher.noise=0.1", "match first"),
        ("verify", "tracks.radius=1.0", "tracks first"),
        ("import", "verify.min_num_inliers=20", "verify first"),
    ):
        outcome = call(stage, made / "out", "-o", option, *FIXED)
        assert outcome.code == 1
        assert first in outcome.stderr


def test_a_replaced_image_is_matched_again_and_only_it(made: Path, base: Path) -> None:
    other = make_images(made / "other", ("06.jpg",)) / "06.jpg"
    shutil.copy(other, made / "images" / "02.jpg")
    assert run(made).code == 0
    assert done(made)["match"] == len(NAMES) - 1
    shutil.copy(base / "images" / "02.jpg", made / "images")
    assert run(made).code == 0
    assert done(made) == {**NOTHING, "import": True, "map": True}
    assert state(made / "out")[1:] == state(base / "out")[1:]


def test_an_image_that_cannot_be_decoded_is_left_out(made: Path, base: Path) -> None:
    truncate(made / "images" / "03.jpg")
    outcome = run(made)
    assert outcome.code == 4
    assert "left out: 03.jpg" in outcome.stderr
    assert list(results(made / "out")["failures"]) == ["03.jpg"]
    assert "03.jpg" not in model_content(made / "out" / "model")["poses"]
    rows = database_rows(made / "out" / "database.db")["images"]
    assert len(rows) == len(NAMES) - 1
    shutil.copy(base / "images" / "03.jpg", made / "images")
    assert run(made).code == 0
    assert results(made / "out")["failures"] == {}
    assert state(made / "out")[1:] == state(base / "out")[1:]


def test_where_no_pair_can_be_matched_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "points.toml").write_text(RECIPE)
    truncate(make_images(tmp_path, NAMES[:2]) / NAMES[1])
    outcome = run(tmp_path)
    assert outcome.code == 1
    assert "no pair could be matched; 01.jpg: " in outcome.stderr


def test_one_image_makes_no_model_and_the_reason_says_so(tmp_path: Path) -> None:
    (tmp_path / "points.toml").write_text(RECIPE)
    make_images(tmp_path, NAMES[:1])
    outcome = run(tmp_path)
    assert outcome.code == 3
    assert "0 of 1 images have keypoints" in outcome.stdout


def test_correspondences_join_the_features_of_an_extractor(made: Path) -> None:
    anchored = (
        *("-o", "tracks.anchor=true", "-o", "tracks.anchor_radius=1"),
        *("--features", "sift", "-o", "features.max_keypoints=1000"),
    )
    before = read_everything(made / "out")
    assert run(made, *anchored).code == 0
    content = results(made / "out")
    # The images are the same: what was matched without features is taken as it is.
    assert done(made) == FROM_TRACKS
    assert content["stages"]["extract"]["computed"] == len(NAMES)
    assert content["stages"]["map"]["models"][0]["images"] == len(NAMES)
    assert read_everything(made / "out").items() >= before.items()
    # SIFT is what the matcher is made of: nearly all keypoints are where SIFT found them.
    recipe = Recipe.load(made / "out" / "recipe.toml")
    assert recipe.features is not None
    assert recipe.tracks is not None
    folders = [f"features/{spec.folder_name}" for spec in (recipe.features, recipe.tracks)]
    places = [keypoints_in(made / "out", folder) for folder in folders]
    assert len(places[1] & places[0]) > 0.9 * len(places[1])


def keypoints_in(out: Path, folder: str) -> set[tuple[str, float, float]]:
    store = stores(out)[folder]
    return {
        (str(name), *point)
        for name, digest in store.entries()
        for point in store.read(name, digest).keypoints.tolist()
    }


def test_export_and_clean(made: Path) -> None:
    out = made / "out"
    for layout in ("hloc", "colmap-text"):
        assert call("export", out, "--format", layout).code == 0
        assert list((out / layout).iterdir())
    assert run(made, "-o", "matcher.noise=0.1").code == 0
    current = read_everything(out)
    deleted = call("clean", out).stdout.splitlines()
    assert len(deleted) == 4  # features, correspondences, matches, two_views of the first run
    left = read_everything(out)
    assert left.keys() < current.keys()
    assert run(made, "-o", "matcher.noise=0.1").code == 0
    assert done(made) == NOTHING


def test_there_are_no_tracks_of_a_matcher_of_features(tmp_path: Path) -> None:
    images = make_images(tmp_path, NAMES[:2])
    assert call("extract", images, tmp_path / "out", *FIXED).code == 0
    outcome = call("tracks", tmp_path / "out", *FIXED)
    assert outcome.code == 1
    assert "the matcher 'nearest' matches features: there are no tracks to make" in outcome.stderr


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_that_was_finished(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", plugin_matcher.install(tmp_path / "site"))
    out, chance = tmp_path / "out", random.Random(0)
    command = ("run", base / "images", out, "--recipe", base / "points.toml", *FIXED)
    began = time.perf_counter()
    outcome = finish(start(*command))
    seconds = time.perf_counter() - began
    assert outcome.code == 0, outcome.stderr
    expected, killed = state(out), 0
    items: dict[Any, bytes] = {}
    assert expected == state(base / "out")
    for kind in ("correspondences", "features", "matches", "two_views"):
        shutil.rmtree(out / kind)
    for _ in range(10):
        process = start(*command)
        time.sleep(chance.uniform(0.3, 1) * seconds)
        process.kill()
        killed += finish(process).code != 0
        found = read_everything(out)
        assert items.items() <= found.items() <= expected[0].items()
        items = found
    assert killed >= 2
    assert finish(start(*command)).code == 0
    assert state(out) == expected
