"""Files of annotated keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from sfm_match.io.annotations import read_points
from sfm_match.spec import ConfigError


def test_willow_s_points_are_in_matlab_s_pixels(tmp_path: Path) -> None:
    path = tmp_path / "duck.MAT"
    scipy.io.savemat(path, {"pts_coord": np.array([[1.0, 20.5], [3.0, 4.0]])})
    found = read_points(path)
    assert found.dtype == np.float32
    # MATLAB's first pixel has its centre at (1, 1), here at (0.5, 0.5).
    assert found.tolist() == [[0.5, 2.5], [20.0, 3.5]]


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "points.txt"
    path.write_text("# x y\n1.5 2\n\n  3,4\n5, 6.25\n", encoding="utf-8-sig")
    assert read_points(path).tolist() == [[1.5, 2], [3, 4], [5, 6.25]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n3\n", r"line 2: must be x and y in pixels, got '3'"),
        ("1 2 3\n", r"line 1: must be x and y"),
        ("a b\n", r"line 1: must be x and y"),
        ("# nothing\n", "holds no points"),
        ("1 nan\n", "not all coordinates are finite"),
    ],
)
def test_wrong_text(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "points.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_points(path)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.txt: cannot be read: No such file"):
        read_points(tmp_path / "none.txt")
    with pytest.raises(ConfigError, match=r"none\.mat: cannot be read: No such file"):
        read_points(tmp_path / "none.mat")
    image = tmp_path / "image.png"
    image.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match=r"a \.mat file or text in UTF-8"):
        read_points(image)
    text = tmp_path / "text.mat"
    text.write_text("1 2\n" * 100)
    with pytest.raises(ConfigError, match="not a MATLAB file"):
        read_points(text)
    for content, got in (
        ({"points": np.zeros((2, 3))}, "no such array"),
        ({"pts_coord": np.zeros((3, 2))}, r"float64 \(3, 2\)"),
        ({"pts_coord": "text"}, "<U4"),
    ):
        scipy.io.savemat(tmp_path / "wrong.mat", content)
        with pytest.raises(ConfigError, match=rf"must be numbers \(2, N\), x then y; got {got}"):
            read_points(tmp_path / "wrong.mat")
