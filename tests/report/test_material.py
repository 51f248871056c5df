from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sfm_match.report.findings import Finding, Severity
from sfm_match.report.material import gather, read_results
from sfm_match.report.verdict import judge
from sfm_match.report.write import write_report
from sfm_match.spec import ConfigError
from tests.report.made import make_out

SCRIPT = "</script><script>alert(1)</script>.jpg"
NAMES = sorted(["a/1.jpg", "b 2.jpg", "ü.jpg", "4.jpg", SCRIPT.replace("/", "\u2044")])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of five images; nothing may change it."""
    return make_out(tmp_path_factory.mktemp("out"), NAMES)


def page_of(out: Path, to: Path, **given: object) -> str:
    written = write_report(gather(out, **given), to / "report.html", 1)  # type: ignore[arg-type]
    assert written.bytes == written.path.stat().st_size < 10e6
    return written.path.read_text(encoding="utf-8")


def test_names_findings_and_recipes_are_escaped(out: Path, tmp_path: Path) -> None:
    finding = Finding(Severity.WARNING, "x", "<b>what</b>", (), "<i>advice</i>")
    page = page_of(out, tmp_path, findings=[finding])
    assert page.count("<script") == 3  # data, library and program
    assert "<script>alert" not in page
    for text in ("<b>what</b>", "<i>advice</i>", "<b>bold</b>"):
        assert text not in page
        assert text.replace("<", "&lt;").replace(">", "&gt;") in page


def test_the_data_hold_every_image_and_are_json(out: Path, tmp_path: Path) -> None:
    page = page_of(out, tmp_path, truth=out.parent / "truth")
    start = page.index('id="data">') + len('id="data">')
    data = json.loads(page[start : page.index("</script>", start)])
    assert [image["n"] for image in data["images"]] == NAMES
    assert data["model"]["cameras"] == data["model"]["trueCameras"] == list(range(5))
    assert len(data["pictures"]) == 5


def test_the_page_may_load_nothing(out: Path, tmp_path: Path) -> None:
    page = page_of(out, tmp_path)
    assert "default-src 'none'" in page
    head = page[: page.index('id="data">')]
    assert "http://" not in head
    assert "https://" not in head


def test_a_run_without_a_model_says_why(out: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    results = read_results(out)
    results["stages"]["map"] = {"seconds": 1.0, "models": [], "reason": "no pairs; too few images"}
    (bare / "results.json").write_text(json.dumps(results))
    page = page_of(bare, tmp_path)
    assert "No model came out" in page
    assert "<li>no pairs</li><li>too few images</li>" in page
    assert 'id="scene"' not in page
    assert len(page) < 2e6  # without plotly


def test_a_folder_of_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no results\.json"):
        gather(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ConfigError, match="is not what a run writes"):
        gather(tmp_path)


def results_of(num: int, error: float = 0.5) -> dict[str, object]:
    stages = {"map": {"models": [{"reprojection_error": error}]}}
    names = dict.fromkeys(map(str, range(num)), "00")
    return {"images": names, "failures": {}, "stages": stages}


@pytest.mark.parametrize(
    ("registered", "error", "level"),
    [(10, 0.5, "good"), (9, 0.5, "good"), (8, 0.5, "warning"), (4, 0.5, "bad"), (10, 3, "warning")],
)
def test_the_verdict_follows_its_rule(registered: int, error: float, level: str) -> None:
    assert judge(results_of(10, error), registered, []).level == level


def test_a_problem_makes_a_whole_model_doubtful() -> None:
    problem = Finding(Severity.PROBLEM, "x", "rotations contradict", (), "")
    verdict = judge(results_of(10), 10, [problem])
    assert (verdict.level, verdict.reasons) == ("warning", ("rotations contradict",))


def test_pictures_that_are_gone_are_said_to_be(out: Path, tmp_path: Path) -> None:
    page = page_of(out, tmp_path, images=tmp_path / "elsewhere")
    assert "name the folder with --images" in page
    assert np.char.count(page, 'class="card pair"') == 0
