"""What there is: components and recipes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.finished import ROOT
from tests.scenes import (
    call,
)


def test_models_lists_components_with_options_and_licences() -> None:
    found = json.loads(call("models", "--json").stdout)
    assert found["extractors"]["sift"]["options"]["max_keypoints"] == 8192
    assert found["matchers"]["nearest"]["licence"] == "Apache-2.0"
    text = call("models").stdout
    assert "sift" in text
    assert "max_keypoints = 8192" in text


def test_models_shows_a_component_or_weights_with_their_card() -> None:
    both = call("models", "matchnet").stdout
    assert re.findall(r"^(\w+):$", both, re.MULTILINE) == ["extractors", "matchers"]
    assert "weights = matchnet-open" in both
    text = call("models", "matchnet-open").stdout
    found = json.loads(call("models", "matchnet-open", "--json").stdout)["weights"]["matchnet-open"]
    assert "matchnet-open  Apache-2.0, 2.1 MB, comes with the package" in text
    assert f"SHA-256 {found['sha256']}" in text
    assert found["packaged"] is True
    assert found["card"].startswith("# matchnet-open\n")
    assert text.endswith(found["card"])
    published = call("models", "aliked-n16").stdout
    assert "BSD-3-Clause, 2.7 MB\n" in published
    assert "https://github.com/" in published
    assert (
        "card"
        not in json.loads(call("models", "coarse-16", "--json").stdout)["weights"]["coarse-16"]
    )
    unknown = call("models", "matchnet-opne")
    assert unknown.code == 1
    assert "named 'matchnet-opne'; did you mean 'matchnet-open'" in unknown.stderr


def test_recipes_lists_every_packaged_recipe() -> None:
    found = json.loads(call("recipes", "--json").stdout)
    files = sorted(path.stem for path in (ROOT / "pipelines").glob("*.toml"))
    assert sorted(found) == files
    lines = call("recipes").stdout.splitlines()
    assert [line.split()[0] for line in lines] == files
    assert all(found[name]["description"] in line for name, line in zip(files, lines, strict=True))


def test_a_wheel_brings_the_recipes_and_the_weights(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed, so no wheel can be built")
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-q", "-w", tmp_path], check=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    data = Path("sfm_match") / "weights_data"
    brought = {path.name for path in (tmp_path / "site" / data).iterdir()}
    assert brought == {path.name for path in (ROOT / data).iterdir()}
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
