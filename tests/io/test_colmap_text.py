"""COLMAP's text import: what is written, read as COLMAP reads it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfm_match.io.colmap_text import (
    check_colmap_names,
    sift_bytes,
    write_colmap_features,
    write_colmap_matches,
)
from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF32, ArrayI32, Features, Matches, Pair

EXAMPLES = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Bytes = npt.NDArray[np.uint8]


def parse_features(path: Path) -> tuple[ArrayF32, Bytes]:
    """Return x, y, scale, orientation (N, 4) and descriptors of a file, read strictly."""
    header, *lines = path.read_text(encoding="ascii").split("\n")
    assert lines.pop() == ""
    assert header == f"{len(lines)} 128"
    words = [line.split(" ") for line in lines]
    assert {len(row) for row in words} <= {132}
    frames = np.array([[float(word) for word in row[:4]] for row in words], np.float32)
    descriptors = np.array([[int(word) for word in row[4:]] for row in words])
    assert len(lines) == 0 or (descriptors.min() >= 0 and descriptors.max() <= 255)
    return frames.reshape(-1, 4), descriptors.astype(np.uint8).reshape(-1, 128)


def parse_matches(path: Path) -> dict[tuple[str, str], ArrayI32]:
    """Return the blocks of a list of matches."""
    found = {}
    *blocks, rest = path.read_text(encoding="utf-8").split("\n\n")
    assert rest == ""
    for block in blocks:
        header, *lines = block.split("\n")
        name0, name1 = header.split(" ")
        rows = [[int(word) for word in line.split(" ")] for line in lines]
        assert (name0, name1) not in found
        found[name0, name1] = np.array(rows, np.int32).reshape(-1, 2)
    return found


def floats(shape: Any, low: float, high: float) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.float32, shape, elements=st.floats(low, high, width=32))


@st.composite
def sift_features(draw: st.DrawFn) -> tuple[Features, Bytes]:
    num = draw(st.integers(0, 5))
    quantised = draw(hnp.arrays(np.uint8, (num, 128)))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    item = Features(
        keypoints=draw(floats((num, 2), -1, 1e5)),
        scores=np.ones(num, np.float32),
        descriptors=(quantised / 512).astype(dtype),
        image_size=np.array([99, 99], np.int32),
        scales=draw(st.none() | floats(num, 0, 1e3)),
        orientations=draw(st.none() | floats(num, -4, 4)),
    )
    return item, quantised


@EXAMPLES
@given(sift_features())
def test_sift_features_survive_bit_by_bit(tmp_path: Path, content: tuple[Features, Bytes]) -> None:
    item, quantised = content
    assert write_colmap_features(tmp_path, [("sub folder/a.jpg", item)]) == []
    frames, descriptors = parse_features(tmp_path / "sub folder" / "a.jpg.txt")
    np.testing.assert_array_equal(frames[:, :2], item.keypoints)
    np.testing.assert_array_equal(frames[:, 2], 1 if item.scales is None else item.scales)
    angles = 0 if item.orientations is None else item.orientations
    np.testing.assert_array_equal(frames[:, 3], angles)
    np.testing.assert_array_equal(descriptors, quantised)


def test_the_text_is_that_of_the_format(tmp_path: Path) -> None:
    quantised = np.arange(256, dtype=np.uint8).reshape(2, 128)
    item = Features(
        keypoints=np.array([[0.5, 1234.75], [0.1, 2]], np.float32),
        scores=np.ones(2, np.float32),
        descriptors=(quantised / 512).astype(np.float16),
        image_size=np.array([2000, 2000], np.int32),
    )
    write_colmap_features(tmp_path, [("a.jpg", item)])
    assert (tmp_path / "a.jpg.txt").read_text() == (
        "2 128\n"
        f"0.5 1234.75 1 0 {' '.join(map(str, range(128)))}\n"
        f"0.100000001 2 1 0 {' '.join(map(str, range(128, 256)))}\n"
    )


@pytest.mark.parametrize(
    "descriptors",
    [
        np.full((2, 64), 1 / 512, np.float32),
        np.full((2, 256), 1 / 512, np.float32),
        np.full((2, 128), 0.3, np.float32),
        np.full((2, 128), -1 / 512, np.float16),
        np.full((2, 128), 256 / 512, np.float16),
        np.full((2, 128), np.nan, np.float32),
        np.zeros((2, 0), np.float32),
    ],
)
def test_what_is_not_sift_is_written_as_zeros_and_said(
    tmp_path: Path, descriptors: npt.NDArray[Any]
) -> None:
    assert sift_bytes(descriptors) is None
    item = Features(
        keypoints=np.ones((2, 2), np.float32),
        scores=np.ones(2, np.float32),
        descriptors=descriptors,
        image_size=np.array([9, 9], np.int32),
    )
    assert write_colmap_features(tmp_path, [("x.png", item)]) == ["x.png"]
    frames, written = parse_features(tmp_path / "x.png.txt")
    np.testing.assert_array_equal(frames, [[1, 1, 1, 0]] * 2)
    assert not written.any()


names = st.text("aé/-_#.", min_size=1, max_size=5)
pairs = st.tuples(names, names).filter(lambda ab: ab[0] != ab[1]).map(lambda ab: Pair.of(*ab))
rows = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), max_size=5)


@EXAMPLES
@given(st.dictionaries(pairs, rows, max_size=5))
def test_matches_survive(tmp_path: Path, content: dict[Pair, list[tuple[int, int]]]) -> None:
    path = tmp_path / "matches.txt"
    write_colmap_matches(
        path,
        (
            (pair, Matches(np.array(m, np.int32).reshape(-1, 2), np.ones(len(m), np.float32)))
            for pair, m in content.items()
        ),
    )
    found = parse_matches(path)
    assert list(found) == [(pair.a, pair.b) for pair in content]
    for pair, expected in content.items():
        assert found[pair.a, pair.b].tolist() == [list(row) for row in expected]


def test_the_list_of_matches_is_that_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "matches.txt"
    item = Matches(np.array([[0, 10], [2, 1]], np.int32), np.ones(2, np.float32))
    none = Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    write_colmap_matches(path, [(Pair("a", "b"), item), (Pair("a", "c"), none)])
    assert path.read_bytes() == b"a b\n0 10\n2 1\n\na c\n\n"


@pytest.mark.parametrize("name", ["my photo.jpg", "a\tb.jpg", "sub folder/a.jpg", "a\n"])
def test_names_that_colmap_would_cut_are_refused(name: str) -> None:
    check_colmap_names(["a.jpg", "a\u00a0b.jpg", "sub/é.jpg"])
    with pytest.raises(ConfigError, match="ends names at white space; rename the image") as error:
        check_colmap_names(["a.jpg", name])
    assert repr(name) in str(error.value)


def test_eight_thousand_keypoints_take_a_fraction_of_a_second(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    item = Features(
        keypoints=rng.uniform(0, 6000, (8000, 2)).astype(np.float32),
        scores=np.ones(8000, np.float32),
        descriptors=(rng.integers(0, 256, (8000, 128)) / 512).astype(np.float16),
        image_size=np.array([6000, 4000], np.int32),
        scales=rng.uniform(1, 30, 8000).astype(np.float32),
        orientations=rng.uniform(-4, 4, 8000).astype(np.float32),
    )
    start = time.process_time()
    write_colmap_features(tmp_path, [("a.jpg", item)])
    assert time.process_time() - start < 1.0
