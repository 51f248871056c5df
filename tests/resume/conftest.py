"""An undisturbed run."""

from __future__ import annotations

import pytest

from tests.resume.runs import (
    Reference,
    undisturbed,
)
from tests.scenes import (
    make_images,
)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("resume")
    return undisturbed(folder, make_images(folder))
