"""Weights on the command line: where they are, which are allowed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sfm_match import weights
from tests.scenes import call


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what the commands set in the environment."""
    for name in (weights.ENV_FOLDERS, weights.ENV_PERMISSIVE_ONLY):
        monkeypatch.setenv(name, "")


def test_weights_that_forbid_commercial_use_are_refused_before_the_work(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("run", tmp_path, out, "--features", "r2d2", "--permissive-only")
    assert done.code == 1
    assert "r2d2-wasf-n16 is licensed CC-BY-NC-SA-3.0, which forbids commercial use" in done.stderr
    assert not out.exists()
    # SIFT has no weights.
    assert "licence" not in call("run", tmp_path, out, "--permissive-only").stderr


def test_a_folder_of_weights_is_searched_first(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    checkpoint = weights.CHECKPOINTS["r2d2-wasf-n16"]
    (folder / checkpoint.filename).write_bytes(b"something else")
    os.environ[weights.ENV_FOLDERS] = str(tmp_path / "another")
    call("run", tmp_path, tmp_path / "out", "--features", "r2d2", "--weights-dir", folder)
    assert weights.search_folders()[:2] == [folder, tmp_path / "another"]
    with pytest.raises(weights.WeightsError, match="is not the checkpoint r2d2-wasf-n16"):
        weights.find("r2d2-wasf-n16")
