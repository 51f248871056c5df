"""An import that is broken off leaves the database as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sfm_match.io.database_access import DatabaseError
from sfm_match.stages import import_into as stage
from sfm_match.stages.verify import VerifyReport, verify
from tests.databases import edit
from tests.import_scene import Made
from tests.scenes import database_rows, run_module


def test_a_database_that_changes_meanwhile(
    stored: Made, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify_while_others_write(*arguments: Any, **options: Any) -> VerifyReport:
        edit(path, "UPDATE cameras SET params = zeroblob(32)")
        return verify(*arguments, **options)

    monkeypatch.setattr(stage, "verify", verify_while_others_write)
    with pytest.raises(DatabaseError, match="changed by another program meanwhile; import again"):
        stored.import_into(path)
    assert database_rows(path)["keypoints"] == []


def test_ctrl_c_leaves_the_database_as_it_was(
    stored: Made, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "add_two_view", stop)
    with pytest.raises(KeyboardInterrupt):
        stored.import_into(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["user.db"]


@pytest.mark.parametrize(
    ("journal", "stride"),
    [
        ("wal", 60),
        ("delete", 60),
        pytest.param("wal", 1, marks=pytest.mark.slow),
        pytest.param("delete", 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_statement_leaves_the_database_as_it_was(
    stored: Made, path: Path, journal: str, stride: int
) -> None:
    edit(path, f"PRAGMA journal_mode = {journal}")
    stores = stored.features.folder.parent
    killed = run_module("kill_import", stores, path, stride, seconds=240)
    assert killed * stride > 2 * (6 + 15 + 15)  # as many as there are statements
