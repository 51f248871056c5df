"""`sfm-match doctor --images` with folders that cannot be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.finished import Scene
from tests.scenes import call


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_the_images_is_an_error(
    scene: Scene, tmp_path: Path, exists: bool
) -> None:
    folder = tmp_path if exists else tmp_path / "nothing"
    ended = call("doctor", scene.out, "--images", folder)
    assert ended.code == 1
    assert "has none of the database's images, such as" in ended.stderr
