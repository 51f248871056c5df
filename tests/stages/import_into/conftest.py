"""The stores of a run, and a database of its images."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.colmap_scene import Scene
from tests.import_scene import Made, make_database, store_scene


@pytest.fixture(scope="session")
def stored(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The stores of the scene; a test may only add to them."""
    return store_scene(scene, tmp_path_factory.mktemp("stores"))


@pytest.fixture
def path(scene: Scene, tmp_path: Path) -> Path:
    """A database of the scene's images, without features."""
    make_database(tmp_path / "user.db", scene.names)
    return tmp_path / "user.db"
