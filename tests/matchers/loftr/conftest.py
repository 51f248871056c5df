"""Checkpoints of LoFTR."""

from __future__ import annotations

import pytest

from tests.loftr_weights import save_checkpoints


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Random weights of both architectures, in all layouts."""
    return save_checkpoints(tmp_path_factory.mktemp("loftr"))
