"""The second pass as a stage: what it leaves, when it is done again, and after a kill."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest

from sfm_match.stages.recipe import Recipe
from tests.kill_polish import POLISHED
from tests.scenes import (
    Outcome,
    call,
    make_images,
    make_truth,
    model_content,
    results,
    run_module,
    start,
)

PLAIN = POLISHED[:-2]


class Made(NamedTuple):
    images: Path
    truth: Path
    plain: Path
    """The output folder of a run without a second pass."""
    out: Path
    """The same with one."""
    outcome: Outcome
    """How that ended."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Finished runs; tests must not change them."""
    folder = tmp_path_factory.mktemp("polish")
    images, truth, plain = make_images(folder), make_truth(folder), folder / "plain"
    assert call("run", images, plain, *PLAIN).code == 0
    out = Path(shutil.copytree(plain, folder / "out"))
    outcome = call("run", images, out, *POLISHED, "--truth", truth)
    assert outcome.code == 0, outcome
    return Made(images, truth, plain, out, outcome)


@pytest.fixture
def made(base: Made, tmp_path: Path) -> Made:
    """Copies to change."""
    images = Path(shutil.copytree(base.images, tmp_path / "images"))
    return base._replace(images=images, out=Path(shutil.copytree(base.out, tmp_path / "out")))


def run(made: Made, *arguments: str | Path) -> dict[str, Any]:
    """Run with a second pass; return which of the last stages did something."""
    outcome = call("run", made.images, made.out, *POLISHED, *arguments)
    assert outcome.code == 0, outcome
    stages = results(made.out)["stages"]
    return {n: not stages[n]["reused"] for n in ("import", "map", "polish") if n in stages}


NOTHING = {"import": False, "map": False, "polish": False}
POLISH_ONLY = {**NOTHING, "polish": True}


def test_the_models_before_and_after_are_there_and_the_better_one_is_the_result(base: Made) -> None:
    first, last = model_content(base.out / "models" / "0"), model_content(base.out / "model")
    assert first == model_content(base.plain / "model")
    assert last == model_content(base.out / "polished" / "0") != first
    assert last["poses"].keys() == first["poses"].keys()
    done = results(base.out)["stages"]["polish"]
    (change,), (model,) = done["changes"], done["models"]
    assert model["reprojection_error"] == change["error_after"] < 0.8 * change["error_before"]
    assert change["error_before"] == pytest.approx(
        results(base.plain)["stages"]["map"]["models"][0]["reprojection_error"]
    )
    assert change["moved"] + change["rejected"] + change["failed"] == change["observations"]
    evaluation = results(base.out)["evaluation"]
    assert evaluation["auc"]["1"] >= evaluation["before_polish"]["auc"]["1"]
    before, after = change["error_before"], change["error_after"]
    lines = base.outcome.stdout.splitlines()
    assert lines[0].endswith(f"error {after:.3f} px ({before:.3f} px before polishing)")
    assert lines[-1].startswith("before polishing")


def test_an_unchanged_run_reuses_it(made: Made, base: Made) -> None:
    made = made._replace(images=base.images)  # their folder is one of the settings
    files = {p: p.stat().st_mtime_ns for p in made.out.glob("*/**/*.bin")}
    assert run(made) == NOTHING
    assert {p: p.stat().st_mtime_ns for p in made.out.glob("*/**/*.bin")} == files
    assert "evaluation" in results(made.out)
    outcome = call("polish", made.out, "-q")
    change = results(made.out)["stages"]["polish"]["changes"][0]
    assert outcome.stdout.startswith(
        f"{change['moved']} of {change['observations']} keypoints of 6 "
    )
    assert outcome.code == 0


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("polish.radius=5", POLISH_ONLY),
        ("polish.radius=8", NOTHING),  # the default, named
        ("mapper.mapper.filter_max_reproj_error=1.9", {**POLISH_ONLY, "map": True}),
        ("camera.mode=single", dict.fromkeys(NOTHING, True)),
    ],
)
def test_a_setting_renews_what_follows_it(
    made: Made, setting: str, expected: dict[str, bool]
) -> None:
    assert run(made, "-o", setting) == expected
    assert model_content(made.out / "model") == model_content(made.out / "polished" / "0")


def test_it_is_switched_off_and_on_without_work(made: Made, base: Made) -> None:
    assert call("run", made.images, made.out, *PLAIN).code == 0
    assert results(made.out)["stages"]["map"]["reused"]
    assert "polish" not in results(made.out)["stages"]
    assert model_content(made.out / "model") == model_content(base.plain / "model")
    assert run(made) == NOTHING
    assert model_content(made.out / "model") == model_content(base.out / "model")


def test_a_model_that_is_damaged_or_gone_is_made_again(made: Made, base: Made) -> None:
    shutil.rmtree(made.out / "model")
    assert run(made) == NOTHING
    assert model_content(made.out / "model") == model_content(base.out / "model")
    points = made.out / "polished" / "0" / "points3D.bin"
    points.write_bytes(points.read_bytes()[:-9])
    assert run(made) == POLISH_ONLY
    assert model_content(made.out / "polished" / "0") == model_content(base.out / "model")


def test_an_image_that_is_changed_or_missing_is_an_error_that_says_what_to_do(made: Made) -> None:
    path = made.images / "03.jpg"
    pixels = cv2.imread(str(path))
    assert pixels is not None
    cv2.imwrite(str(path), pixels[:, ::-1])
    for is_missing in (False, True):
        if is_missing:
            path.unlink()
        outcome = call("polish", made.out, "-q", "-o", f"images.path={made.images}")
        assert outcome.code == 1
        assert outcome.stderr.startswith("error: ")
        assert len(outcome.stderr.splitlines()) == 1


def test_without_a_model_there_is_nothing_to_polish(base: Made, tmp_path: Path) -> None:
    images, out = make_images(tmp_path, ("00.jpg", "08.jpg")), tmp_path / "out"
    outcome = call("run", images, out, *POLISHED)
    assert outcome.code == 3
    assert outcome.stdout.startswith("no model: ")
    assert "polish" not in results(out)["stages"]
    outcome = call("polish", out, "-q")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert "no model of these settings and images; map first" in outcome.stderr


def test_a_recipe_without_it_says_how_to_have_it(base: Made, tmp_path: Path) -> None:
    out = Path(shutil.copytree(base.plain, tmp_path / "out"))
    outcome = call("polish", out, "-q")
    assert outcome.code == 1
    assert "polish.rounds is 0" in outcome.stderr
    assert call("polish", out, "-q", "--threads", "1", "-o", "polish.rounds=1").code == 0
    assert model_content(out / "model") == model_content(base.out / "model")


@pytest.mark.parametrize("stride", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_whole_models(base: Made, tmp_path: Path, stride: int) -> None:
    folders = (base.plain, base.out, tmp_path)
    assert run_module("kill_polish", *folders, stride, seconds=300) >= 24 // stride


def test_a_kill_9_while_it_works_loses_nothing(base: Made, tmp_path: Path) -> None:
    out = Path(shutil.copytree(base.plain, tmp_path / "out"))
    process = start("polish", out, *POLISHED)
    while " polish begins" not in (out / "log.txt").read_text() and process.poll() is None:
        pass
    process.kill()
    process.communicate()
    assert model_content(out / "models" / "0") == model_content(base.plain / "model")
    assert call("polish", out, *POLISHED).code == 0
    assert model_content(out / "model") == model_content(base.out / "model")


def test_the_recipe_checks_and_fingerprints_it() -> None:
    plain, polished = Recipe.load("sift"), Recipe.load("sift", "polish.rounds=1")
    assert plain.polish is None
    assert polished.fingerprints == {**plain.fingerprints, "polish": polished.polish.fingerprint}  # type: ignore[union-attr]
    other = Recipe.load("sift", "polish.rounds=1", "mapper.min_num_matches=20")
    assert other.fingerprints["polish"] != polished.fingerprints["polish"]
    with pytest.raises(ValueError, match=r"polish\.round: .*did you mean 'rounds'"):
        Recipe.load("sift", "polish.round=1")
