"""The command `report` on a finished run."""

from __future__ import annotations

import json
from pathlib import Path

from sfm_match.report.material import gather
from sfm_match.report.write import title_of, write_report
from tests.cli.finished import Scene
from tests.scenes import call


def test_a_report_of_a_run_knows_its_truth(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    outcome = call("report", scene.out, "--to", path, "--json", "--threads", "1")
    assert outcome.code == 0
    made = json.loads(outcome.stdout)
    assert made["path"] == str(path)
    assert made["bytes"] == path.stat().st_size
    assert made["images"] == 6
    page = path.read_text(encoding="utf-8")
    assert "All 6 images are in one model" in page
    assert 'data-show="truth"' in page
    assert "Cameras against the truth: 6 of 6" in page


def test_what_it_was_before_the_second_pass(scene: Scene, tmp_path: Path) -> None:
    results = json.loads((scene.out / "results.json").read_text())
    results["evaluation"]["before_polish"] = {
        "auc": dict.fromkeys(results["evaluation"]["auc"], 12.3)
    }
    before = write_report(gather(scene.out), tmp_path / "before.html", 1).path
    after = gather(scene.out, evaluation=results["evaluation"])
    page = write_report(after, tmp_path / "after.html", 1).path.read_text(encoding="utf-8")
    assert "before the second pass" in page
    assert page.count("<td>12.3%</td>") == len(results["evaluation"]["auc"])
    assert "before the second pass" not in before.read_text(encoding="utf-8")


def test_another_truth_is_compared_with(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    outcome = call("report", scene.out, "--truth", scene.out / "model", "--to", path)
    assert outcome.code == 0
    assert "rotation (degrees)" in path.read_text(encoding="utf-8")


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    outcome = call("report", tmp_path)
    assert outcome.code == 1
    assert "is not the output folder of a run" in outcome.stderr


def test_a_folder_of_pictures_gives_the_title(scene: Scene) -> None:
    found = gather(scene.out)
    assert title_of(found.images) == found.images.parent.name  # `images`
    assert title_of(Path("a/church")) == "church"
