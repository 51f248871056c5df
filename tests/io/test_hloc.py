"""hloc's files: the layout that its readers expect, round trips, and files as hloc writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfm_match.io.hloc import (
    check_hloc_names,
    list_hloc_images,
    read_hloc_features,
    read_hloc_matches,
    write_hloc_features,
    write_hloc_matches,
)
from sfm_match.spec import ConfigError
from sfm_match.types import Features, Matches, Pair

EXAMPLES = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def floats(shape: Any, low: float, high: float) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.float32, shape, elements=st.floats(low, high, width=32))


@st.composite
def features(draw: st.DrawFn) -> Features:
    num, width = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    return Features(
        keypoints=draw(floats((num, 2), 0, 1e5)),
        scores=draw(floats(num, -10, 10)),
        descriptors=draw(floats((num, width), -1, 1)).astype(dtype),
        image_size=np.array(draw(st.tuples(st.integers(1, 99999), st.integers(1, 9))), np.int32),
        scales=draw(st.none() | floats(num, 0, 100)),
        orientations=draw(st.none() | floats(num, -4, 4)),
    )


folder_names = st.text("aé -_#", min_size=1, max_size=3)
image_names = st.lists(folder_names, min_size=1, max_size=3).map(lambda p: "/".join(p) + ".jpg")


@EXAMPLES
@given(st.dictionaries(image_names, features(), max_size=4))
def test_features_survive(tmp_path: Path, content: dict[str, Features]) -> None:
    path = tmp_path / "features.h5"
    counts = write_hloc_features(path, content.items())
    assert counts == {name: len(item) for name, item in content.items()}
    assert list_hloc_images(path) == sorted(content)
    for name, item in content.items():
        found = read_hloc_features(path, name)
        # To take away half a pixel is exact in float32 from a quarter of a pixel on.
        far = item.keypoints >= 0.25
        np.testing.assert_array_equal(found.keypoints[far], item.keypoints[far])
        np.testing.assert_allclose(found.keypoints, item.keypoints, rtol=0, atol=2**-25)
        for field in ("scores", "descriptors", "image_size", "scales"):
            want, have = getattr(item, field), getattr(found, field)
            assert (want is None) == (have is None)
            if want is not None:
                assert have.dtype == want.dtype
                np.testing.assert_array_equal(have, want)
        if item.orientations is None:
            assert found.orientations is None
        else:
            assert found.orientations is not None
            np.testing.assert_allclose(found.orientations, item.orientations, rtol=3e-7)


@EXAMPLES
@given(st.data())
def test_matches_survive_whichever_way_round(tmp_path: Path, data: st.DataObject) -> None:
    num0, num1 = data.draw(st.integers(0, 8)), data.draw(st.integers(1, 50000))
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, num0 - 1)))) if num0 else [], int)
    columns = data.draw(hnp.arrays(np.int32, len(rows), elements=st.integers(0, num1 - 1)))
    item = Matches(
        np.column_stack([rows, columns]).astype(np.int32), data.draw(floats(len(rows), -5, 5))
    )
    pair = Pair.of(data.draw(image_names), "zz/last.jpg")
    path = tmp_path / "matches.h5"
    assert write_hloc_matches(path, [(pair, item)], {pair.a: num0, pair.b: num1}) == 0
    found = read_hloc_matches(path, pair)
    np.testing.assert_array_equal(found.indices, item.indices)
    np.testing.assert_array_equal(found.scores, item.scores)


def some_features(num: int = 3) -> Features:
    points = np.array([[0.5, 1.5], [1500.5, 1025.5], [4095.75, 0.5]], np.float32)[:num]
    return Features(
        keypoints=points,
        scores=np.array([0.5, 0.25, 1], np.float32)[:num],
        descriptors=np.arange(num * 4, dtype=np.float32).reshape(num, 4),
        image_size=np.array([6000, 4000], np.int32),
        scales=np.array([1, 2, 3], np.float32)[:num],
        orientations=np.array([0, np.pi / 2, -np.pi], np.float32)[:num],
    )


def test_the_layout_is_that_of_hloc(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    write_hloc_features(path, [("sub/a b.jpg", some_features())])
    with h5py.File(path, "r", libver="latest") as file:
        group = file["sub/a b.jpg"]
        assert sorted(group) == [
            "descriptors", "image_size", "keypoints", "oris", "scales", "scores",
        ]  # fmt: skip
        keypoints = group["keypoints"].__array__()
        assert keypoints.dtype == np.float32
        # The centre of the first pixel is (0, 0).
        np.testing.assert_array_equal(keypoints, [[0, 1], [1500, 1025], [4095.25, 0]])
        assert group["keypoints"].attrs["uncertainty"] == 1.0
        np.testing.assert_array_equal(group["descriptors"][:, 1], [4, 5, 6, 7])
        assert group["descriptors"].shape == (4, 3)
        np.testing.assert_array_equal(group["image_size"], [6000, 4000])
        np.testing.assert_allclose(group["oris"], [0, 90, -180], atol=1e-4)


def test_the_layout_of_matches_is_that_of_hloc(tmp_path: Path) -> None:
    path = tmp_path / "matches.h5"
    item = Matches(np.array([[2, 40000], [0, 1]], np.int32), np.array([0.5, 0.25], np.float32))
    write_hloc_matches(path, [(Pair("x/a.jpg", "x/b.jpg"), item)], {"x/a.jpg": 4, "x/b.jpg": 50000})
    with h5py.File(path, "r", libver="latest") as file:
        group = file["x-a.jpg/x-b.jpg"]
        # 40000 does not fit into the int16 of hloc's own files.
        np.testing.assert_array_equal(group["matches0"], [1, -1, 40000, -1])
        np.testing.assert_array_equal(group["matching_scores0"], [0.25, 0, 0.5, 0])


def test_the_best_match_of_a_keypoint_is_written(tmp_path: Path) -> None:
    path = tmp_path / "matches.h5"
    indices = np.array([[1, 5], [0, 9], [1, 6], [1, 7], [0, 8]], np.int32)
    item = Matches(indices, np.array([0.1, 0.5, 0.9, 0.2, 0.5], np.float32))
    pair = Pair("a", "b")
    assert write_hloc_matches(path, [(pair, item)], {"a": 3, "b": 10}) == 3
    found = read_hloc_matches(path, pair)
    # Of two equally good ones the first.
    np.testing.assert_array_equal(found.indices, [[0, 9], [1, 6]])
    np.testing.assert_array_equal(found.scores, np.array([0.5, 0.9], np.float32))


def write_by_hand(path: Path, datasets: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file.create_dataset(name, data=value)
    return path


@pytest.mark.parametrize("score_name", ["scores", "keypoint_scores", "score"])
def test_half_precision_files_of_hloc(tmp_path: Path, score_name: str) -> None:
    path = write_by_hand(
        tmp_path / "features.h5",
        {
            "a/b.jpg/keypoints": np.array([[1500, 1025], [3, 4]], np.float16),
            "a/b.jpg/descriptors": np.array([[1, 2], [3, 4], [5, 6]], np.float16),
            f"a/b.jpg/{score_name}": np.array([0.5, 0.25], np.float16),
            "a/b.jpg/image_size": np.array([2000, 1500], np.int64),
        },
    )
    found = read_hloc_features(path, "a/b.jpg")
    # float16 has neither 1500.5 nor 1025.5.
    np.testing.assert_array_equal(found.keypoints, [[1500.5, 1025.5], [3.5, 4.5]])
    np.testing.assert_array_equal(found.descriptors, [[1, 3, 5], [2, 4, 6]])
    assert found.descriptors.dtype == np.float16
    np.testing.assert_array_equal(found.scores, [0.5, 0.25])
    np.testing.assert_array_equal(found.image_size, [2000, 1500])
    assert found.scales is None
    assert found.orientations is None


def test_keypoints_without_anything_else(tmp_path: Path) -> None:
    path = write_by_hand(tmp_path / "f.h5", {"a.jpg/keypoints": np.zeros((2, 2), np.float32)})
    with pytest.raises(ConfigError, match=r"does not say how large 'a\.jpg' is: pass image_size"):
        read_hloc_features(path, "a.jpg")
    found = read_hloc_features(path, "a.jpg", image_size=np.array([4, 3], np.int32))
    np.testing.assert_array_equal(found.scores, [1, 1])
    assert found.descriptors.shape == (2, 0)
    np.testing.assert_array_equal(found.image_size, [4, 3])


@pytest.mark.parametrize("separator", ["/", "_"])
@pytest.mark.parametrize("scored", [True, False])
def test_matches_of_hloc_in_both_orders_and_separators(
    tmp_path: Path, separator: str, scored: bool
) -> None:
    # Of pair (a, b) the file has b's rows first, and -1 where there is none.
    path = tmp_path / "matches.h5"
    for key, flip in ((f"x-a{separator}x-b", False), (f"x-b{separator}x-a", True)):
        group = {f"{key}/matches0": np.array([-1, 7, 3], np.int16)}
        if scored:
            group[f"{key}/matching_scores0"] = np.array([0, 0.5, 1], np.float16)
        found = read_hloc_matches(write_by_hand(path, group), Pair("x/a", "x/b"))
        expected = [[7, 1], [3, 2]] if flip else [[1, 7], [2, 3]]
        np.testing.assert_array_equal(found.indices, expected)
        np.testing.assert_array_equal(found.scores, [0.5, 1] if scored else [1, 1])


def test_a_group_of_an_image_is_not_taken_for_a_pair(tmp_path: Path) -> None:
    # "a_b" is the old key of (a, b), but here an image.
    path = tmp_path / "matches.h5"
    write_hloc_matches(path, [(Pair("a_b", "c"), matches_of_one())], {"a_b": 2})
    with pytest.raises(ConfigError, match="holds no matches of 'a' and 'b'"):
        read_hloc_matches(path, Pair("a", "b"))


def matches_of_one() -> Matches:
    return Matches(np.array([[1, 1]], np.int32), np.ones(1, np.float32))


def test_images_that_hloc_cannot_tell_apart_are_refused() -> None:
    check_hloc_names(["a/b.jpg", "a_b.jpg", "ab.jpg"])
    with pytest.raises(ConfigError, match=r"cannot tell 'a/b\.jpg' from 'a-b\.jpg'"):
        check_hloc_names(["a/b.jpg", "c.jpg", "a-b.jpg"])
    with pytest.raises(ConfigError, match="not UTF-8"):
        check_hloc_names(["caf\udce9.jpg"])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.h5 cannot be read"):
        read_hloc_features(tmp_path / "none.h5", "a.jpg")
    garbage = tmp_path / "garbage.h5"
    garbage.write_text("garbage")
    with pytest.raises(ConfigError, match=r"garbage\.h5 cannot be read"):
        read_hloc_matches(garbage, Pair("a", "b"))
    path = tmp_path / "features.h5"
    write_hloc_features(path, [("sub/a.jpg", some_features())])
    with pytest.raises(ConfigError, match=r"holds no features of 'a\.jpg'"):
        read_hloc_features(path, "a.jpg")


def test_damaged_features_are_named(tmp_path: Path) -> None:
    path = write_by_hand(
        tmp_path / "f.h5",
        {
            "a.jpg/keypoints": np.zeros((2, 2), np.float32),
            "a.jpg/scores": np.zeros(3, np.float32),
            "a.jpg/image_size": [4, 3],
        },
    )
    with pytest.raises(ConfigError, match=r"features of 'a\.jpg' are damaged: Features\.scores"):
        read_hloc_features(path, "a.jpg")
