"""A finished run, and copies of it to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.scenes import (
    call,
    make_images,
)
from tests.staleness.changes import (
    FIXED,
    Made,
)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("staleness")
    images, out = make_images(folder), folder / "out"
    assert call("run", images, out, *FIXED).code == 0
    return Made(images, out)


@pytest.fixture
def made(base: Made, tmp_path: Path) -> Made:
    """A copy of the images and of the finished run."""
    images = shutil.copytree(base.images, tmp_path / "images")
    return Made(Path(images), Path(shutil.copytree(base.out, tmp_path / "out")))
