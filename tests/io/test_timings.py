from pathlib import Path

import pytest

from sfm_match.io.timings import add_time, mean_milliseconds


def test_times_add_up_and_are_kept_for_each_store(tmp_path: Path) -> None:
    store, other = tmp_path / "features" / "a-1", tmp_path / "features" / "a-2"
    assert mean_milliseconds(tmp_path, store) is None
    add_time(tmp_path, store, 0, 5.0)
    assert mean_milliseconds(tmp_path, store) is None
    add_time(tmp_path, store, 10, 2.0)
    add_time(tmp_path, store, 30, 2.0)
    add_time(tmp_path, other, 1, 0.5)
    assert mean_milliseconds(tmp_path, store) == pytest.approx(100)
    assert mean_milliseconds(tmp_path, other) == pytest.approx(500)
    assert [path.name for path in tmp_path.iterdir()] == ["timings.json"]
