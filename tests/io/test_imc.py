from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from sfm_match.io.imc import list_subsets, read_calibration, read_pair_keys
from sfm_match.spec import ConfigError


def test_calibration(tmp_path: Path) -> None:
    path = tmp_path / "calibration_a.h5"
    with h5py.File(path, "w") as file:
        file["K"], file["R"], file["T"] = np.diag([3.0, 4, 1]), np.eye(3), np.array([[1], [2], [3]])
    found = read_calibration(path)
    np.testing.assert_array_equal(found.cam_from_world, [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3]])
    assert found.K[1, 1] == 4
    with h5py.File(path, "w") as file:
        file["K"] = np.eye(3)
    with pytest.raises(ConfigError, match=r"calibration_a\.h5: is no calibration with K, R and T"):
        read_calibration(path)
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="is no calibration"):
        read_calibration(path)
    with pytest.raises(ConfigError, match="no such file"):
        read_calibration(tmp_path / "b.h5")


def test_subsets_are_the_files_named_like_one(tmp_path: Path) -> None:
    for name in ("10bag_002.txt", "5bag_000.txt", "notes.txt", "xbag_1.txt"):
        (tmp_path / name).write_text("images/a.jpg\nimages/b.jpg\n")
    assert list_subsets(tmp_path) == {
        "10bag_002": ["images/a.jpg", "images/b.jpg"],
        "5bag_000": ["images/a.jpg", "images/b.jpg"],
    }


def test_pair_keys_of_names_with_hyphens(tmp_path: Path) -> None:
    path = tmp_path / "keys-th-0.1.npy"
    np.save(path, np.array(["a-b", "a-b-c", "b-c-a"]))
    assert read_pair_keys(path, {"a", "b", "b-c"}) == [("a", "b"), ("a", "b-c"), ("b-c", "a")]
    with pytest.raises(ConfigError, match="'a-b-c' is not NAME1-NAME2 of two images"):
        read_pair_keys(path, {"a", "b", "c"})
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="is no list of pairs"):
        read_pair_keys(path, set())
