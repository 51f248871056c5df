"""Two results compared."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfm_match.benchmarks.compare import (
    NO_DIFFERENCE,
    compare,
    format_comparison,
    read_result,
)
from sfm_match.geometry import poses
from sfm_match.spec import ConfigError


def result(seed: int, scale: float = 4.0, num: int = 60, **changes: Any) -> dict[str, Any]:
    """What a benchmark gives, with random errors."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "group": "scene",
            "name0": f"{i}a.jpg",
            "name1": f"{i}b.jpg",
            "error": error,
            "precision": None if i == 3 else float(rng.uniform(50, 90)),
            "num_matches": int(rng.integers(100, 200)),
        }
        for i, error in enumerate(rng.exponential(scale, num).tolist())
    ]
    run = {
        "task": "pairs",
        "estimator": "poselib",
        "threshold": 1.0,
        "auc": {"5": 0.0, "10": 0.0},
        "pairs": rows,
    }
    spec = {"name": f"method{seed}"}
    content = {"benchmark": "strecha", "protocol": "strecha", "settings": {"auc": [5, 10]}}
    return {**content, "features": spec, "matcher": spec, "runs": [run], **changes}


def measures(found: dict[str, Any], run: int = 0) -> dict[str, dict[str, Any]]:
    return {row["measure"]: row for row in found["runs"][run]["differences"]}


def test_a_result_does_not_differ_from_itself() -> None:
    found = compare(result(1), result(1), num_samples=300)
    assert set(measures(found)) == {"auc@5", "auc@10", "precision", "num_matches"}
    for row in measures(found).values():
        assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
        assert row["verdict"] == NO_DIFFERENCE == "no significant difference"
    assert "no significant difference" in format_comparison(found)


def test_the_differences_are_those_of_the_measures() -> None:
    a, b = result(1), result(2)
    errors = [[row["error"] for row in one["runs"][0]["pairs"]] for one in (a, b)]
    found = measures(compare(a, b, num_samples=300))
    expected = poses.auc(errors[1], [5, 10]) - poses.auc(errors[0], [5, 10])
    assert [found["auc@5"]["difference"], found["auc@10"]["difference"]] == pytest.approx(
        expected.tolist(), abs=1e-9
    )
    rows = [
        [r["precision"] for r in one["runs"][0]["pairs"] if r["precision"] is not None]
        for one in (a, b)
    ]
    # The pair that has no precision in either counts in neither.
    assert found["precision"]["a"] == pytest.approx(np.mean(rows[0]), abs=1e-9)
    assert found["precision"]["b"] == pytest.approx(np.mean(rows[1]), abs=1e-9)


def test_equal_methods_on_random_errors_do_not_differ_and_a_better_one_does() -> None:
    assert measures(compare(result(1), result(2)))["auc@10"]["verdict"] == NO_DIFFERENCE
    better, worse = result(1, scale=1.5), result(2, scale=6)
    assert measures(compare(worse, better))["auc@10"]["verdict"] == "b is better"
    assert measures(compare(better, worse))["auc@10"]["verdict"] == "a is better"
    row = measures(compare(worse, better))["auc@10"]
    assert 0 < row["low"] < row["difference"] < row["high"]
    assert row["a"] + row["difference"] == pytest.approx(row["b"])


def test_less_is_better_where_it_is_an_error_and_neither_where_it_is_a_count() -> None:
    def with_columns(location: float, num: int) -> dict[str, Any]:
        content = result(1)
        for row in content["runs"][0]["pairs"]:
            row |= {"localization_error": location, "num_matches": num}
        return content

    found = measures(compare(with_columns(1.0, 100), with_columns(2.0, 50), num_samples=200))
    assert found["localization_error"]["verdict"] == "a is better"
    assert found["num_matches"]["verdict"] == "a has more"
    assert (found["num_matches"]["low"], found["num_matches"]["high"]) == (-50, -50)


def test_failures_of_homographies_and_groups_apart() -> None:
    def homographies(seed: int) -> dict[str, Any]:
        content = result(seed)
        run = content["runs"][0] | {"task": "homographies", "threshold": None}
        for i, row in enumerate(run["pairs"]):
            row["group"] = "illumination" if i < 20 else "viewpoint"
            row["accuracy"] = {"1": 50.0 + i, "3": 100.0}
            row["error"] = None if i == 0 else row["error"]
        return {**content, "runs": [run]}

    a, b = homographies(1), homographies(2)
    b["runs"][0]["pairs"][0]["error"] = 0.1  # this one a could not do
    differences = compare(a, b, num_samples=200)["runs"][0]["differences"]
    keys = [(row["group"], row["measure"]) for row in differences]
    assert keys.count(("all", "accuracy@1")) == 1
    assert [group for group, measure in keys if measure == "auc@5"] == [
        "all",
        "illumination",
        "viewpoint",
    ]
    text = format_comparison(compare(a, b, num_samples=200))
    assert "auc@5 illumination" in text
    json.dumps(differences, allow_nan=False)


def test_results_of_eval_pairs(tmp_path: Path) -> None:
    """One estimator is a flat object; several are a list of such."""
    content = result(1)
    spec = content["matcher"]
    flat = content["runs"][0] | {"features": None, "matcher": spec, "truth": "gt"}
    for row in flat["pairs"]:
        del row["group"]
    (tmp_path / "a.json").write_text(json.dumps(flat))
    (tmp_path / "b.json").write_text(json.dumps({"runs": [flat]}))
    found = compare(read_result(tmp_path / "a.json"), read_result(tmp_path / "b.json"))
    assert (found["a"], found["b"]) == ("method1", "method1")
    assert measures(found)["auc@5"]["verdict"] == NO_DIFFERENCE


def test_other_pairs_are_refused() -> None:
    other = copy.deepcopy(result(2))
    other["runs"][0]["pairs"][7]["name1"] = "elsewhere.jpg"
    with pytest.raises(
        ConfigError,
        match=r"not of the same pairs.*60 and 60 pairs, 1 only in the first and 1 only in the sec",
    ):
        compare(result(1), other)
    swapped = result(2)
    swapped["runs"][0]["pairs"][:2] = swapped["runs"][0]["pairs"][1::-1]
    with pytest.raises(ConfigError, match="their order differs"):
        compare(result(1), swapped)
    with pytest.raises(ConfigError, match="60 and 40 pairs, 20 only in the first"):
        compare(result(1), result(2, num=40))


def test_other_thresholds_and_settings_are_refused() -> None:
    other = result(2)
    other["runs"][0]["threshold"] = 2.0
    with pytest.raises(ConfigError, match="poselib, 1 px against poselib, 2 px; run one of them"):
        compare(result(1), other)
    with pytest.raises(ConfigError, match="their benchmark differ: strecha against hpatches"):
        compare(result(1), result(2, benchmark="hpatches"))
    with pytest.raises(ConfigError, match="their settings differ"):
        compare(result(1), result(2, settings={"auc": [5]}))


def test_files_that_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ConfigError, match=r"a\.json: cannot be read: No such file"):
        read_result(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"a\.json: is no JSON"):
        read_result(path)
    for content in ("[]", "{}", '{"runs": []}', '{"runs": [{"pairs": []}]}', "3"):
        path.write_text(content)
        with pytest.raises(ConfigError, match="is no result of `sfm-match benchmark --json`"):
            read_result(path)
