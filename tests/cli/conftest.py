"""A finished run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.finished import Scene
from tests.scenes import (
    call,
    make_images,
    make_truth,
)


@pytest.fixture(scope="session")
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
