"""A finished run, to copy or to compare with."""

from __future__ import annotations

import pytest

from tests.resume.runs import Reference, undisturbed
from tests.scenes import make_images


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Six photographs and what comes out of them; tests must not change it."""
    folder = tmp_path_factory.mktemp("finished")
    return undisturbed(folder, make_images(folder))
