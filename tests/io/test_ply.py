from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.io.ply import read_ply_points, write_ply_points
from sfm_match.spec import ConfigError

POINTS = np.array([[1.5, -2.25, 3.0], [0.125, 4.0, -1e3]])
FIELDS = [("x", "f4"), ("red", "u1"), ("y", "f8"), ("z", "f4"), ("normal", "i2")]
NAMES = {"f4": "float", "f8": "double", "u1": "uchar", "i2": "short"}


def header(order: str, num: int = 2) -> str:
    properties = "".join(f"property {NAMES[kind]} {name}\n" for name, kind in FIELDS)
    return (
        f"ply\nformat {order} 1.0\ncomment made by hand\nelement vertex {num}\n{properties}"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )


@pytest.mark.parametrize(
    ("order", "sign"), [("binary_little_endian", "<"), ("binary_big_endian", ">")]
)
def test_binary_files_of_both_orders_with_other_fields_and_elements(
    tmp_path: Path, order: str, sign: str
) -> None:
    rows = np.zeros(2, [(name, sign + kind) for name, kind in FIELDS])
    rows["x"], rows["y"], rows["z"] = POINTS.T
    rows["red"] = 10  # a line feed in the data
    path = tmp_path / "a.ply"
    path.write_bytes(header(order).encode() + rows.tobytes() + b"\3" + bytes(12))
    np.testing.assert_array_equal(read_ply_points(path), POINTS)


def test_text_files(tmp_path: Path) -> None:
    lines = "".join(f"{x} 7 {y} {z} -3\n" for x, y, z in POINTS)
    path = tmp_path / "a.ply"
    path.write_text(header("ascii") + lines + "3 0 1 1\n")
    np.testing.assert_array_equal(read_ply_points(path), POINTS)


@given(st.lists(st.tuples(*[st.floats(allow_nan=False)] * 3), max_size=5))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[float, float, float]]
) -> None:
    path = tmp_path_factory.mktemp("ply") / "a.ply"
    array = np.array(points, np.float64).reshape(-1, 3)
    write_ply_points(path, array)
    np.testing.assert_array_equal(read_ply_points(path), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"OFF\n1 2 3", "is not a PLY file"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\n", "the header has no end"),
        (b"ply\nformat ascii 1.0\nend_header\n", "has no vertices"),
        (header("binary_middle_endian").encode(), "its format is 'binary_middle_endian', not one"),
        (header("binary_little_endian", 3).encode() + bytes(40), "cut off: 2 of 3 vertices"),
        (header("ascii").encode() + b"1 2 3 4 5\n", "is cut off or has a line that is no vertex"),
        (b"ply\nformat ascii 1.0\nelement face 1\nend_header\n", "first element is 'face'"),
        (
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list uchar int x\nend_header\n",
            "a vertex has the property 'list uchar int x'",
        ),
        (
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n",
            "no vertices with x, y and z",
        ),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"a\.ply: .*{message}"):
        read_ply_points(path)
