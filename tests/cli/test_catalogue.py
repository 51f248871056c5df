"""What there is: components and recipes."""

from __future__ import annotations

import json
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


def test_recipes_lists_every_packaged_recipe() -> None:
    found = json.loads(call("recipes", "--json").stdout)
    files = sorted(path.stem for path in (ROOT / "pipelines").glob("*.toml"))
    assert sorted(found) == files
    lines = call("recipes").stdout.splitlines()
    assert [line.split()[0] for line in lines] == files
    assert all(found[name]["description"] in line for name, line in zip(files, lines, strict=True))


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
