"""What tests of several parts need."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sfm_match import weights
from sfm_match.logs import quiet_colmap
from tests.colmap_scene import Scene, synthesize

# What a shell starts in the background ignores Ctrl-C, and so would the commands that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says nothing on a machine that does other work too. They are others in
# every run.
settings.register_profile("any machine", deadline=None, max_examples=50)
settings.load_profile("any machine")


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    quiet_colmap()


@pytest.fixture(autouse=True, scope="session")
def _checkpoints() -> Iterator[None]:
    """Look for checkpoints among the test data first."""
    folder = os.environ.get("SFM_MATCH_TEST_DATA")
    with pytest.MonkeyPatch.context() as patch:
        if folder is not None:
            patch.setenv(weights.ENV_FOLDERS, str(Path(folder) / "weights"))
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data (see its README), which the environment names."""
    folder = os.environ.get("SFM_MATCH_TEST_DATA")
    if folder is None:
        pytest.skip("SFM_MATCH_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def scene() -> Scene:
    """Six images with exact keypoints; nothing may change it."""
    return synthesize(6)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
