"""`sfm-match benchmark` and `sfm-match compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.protocols import layouts
from tests.scenes import call

OPTIONS = ("--features", "sift", "-o", "features.max_keypoints=500", "--threads", "1", "-q")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colmap")
    layouts.write_colmap(root, "room", "images", "gt")
    return root


def test_a_benchmark_and_the_comparison_of_two_methods(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("benchmark", "colmap", "--data", root, "--set", "tasks=['pairs']")
    settings = ("--estimator", "poselib", "--estimator", "opencv", "--threshold", "0.7")
    first = call(*command, *OPTIONS, *settings, "--json")
    assert first.code == 0
    content = json.loads(first.stdout)
    assert [(r["estimator"], r["threshold"]) for r in content["runs"]] == [
        ("poselib", 0.7),
        ("opencv", 0.7),
    ]
    second = call(*command, *OPTIONS, *settings, "-o", "matcher.ratio=0.8")
    assert second.code == 0
    assert second.stdout.startswith("benchmark  colmap, protocol colmap, resize none\n")
    assert "poselib, 0.7 px" in second.stdout
    files = sorted((tmp_path / "benchmark-colmap").glob("results-sift-nearest-*.json"))
    assert len(files) == 2
    assert all(
        f"results: {file.relative_to(tmp_path)}" in first.stderr + second.stderr for file in files
    )
    assert content in [json.loads(file.read_text()) for file in files]
    # The features are there once, the matches of either matcher.
    assert len(list((tmp_path / "benchmark-colmap" / "features").iterdir())) == 1
    assert len(list((tmp_path / "benchmark-colmap" / "matches").iterdir())) == 2
    compared = call("compare", *files, "--samples", "200")
    assert (compared.code, compared.stderr) == (0, "")
    assert "poselib, 0.7 px, 10 pairs" in compared.stdout
    assert "95 % interval of 200 paired bootstrap samples" in compared.stdout
    as_json = json.loads(call("compare", *files, "--samples", "200", "--json").stdout)
    assert [run["estimator"] for run in as_json["runs"]] == ["poselib", "opencv"]


def test_wrong_use_is_one_line(root: Path, tmp_path: Path) -> None:
    command = ("benchmark", "colmap", "--data", root, "--out", tmp_path, *OPTIONS)
    for arguments, message in (
        (("--set", "tolerance=1"), "colmap.tolerance: no such option; did you mean 'tolerances'"),
        (("--set", "a.b=1"), "--set a: the options of a protocol have no tables"),
        (("--resize", "half"), "resize: no rule 'half'"),
        (("--estimator", "magsac"), "no estimator named 'magsac'"),
        (("--scene", "hall"), "no scene 'hall'"),
        (("--set", "tasks=[]"), "tasks: there is nothing to do"),
    ):
        ended = call(*command, *arguments)
        assert ended.code == 1, arguments
        assert message in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    ended = call("benchmark", "colmap", "--data", root / "nowhere", *OPTIONS)
    assert (ended.code, "no such folder" in ended.stderr) == (1, True)
    ended = call("benchmark", "imagenet", "--data", root, *OPTIONS)
    assert "no benchmark named 'imagenet'" in ended.stderr
