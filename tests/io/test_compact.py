"""Descriptors that are bytes divided by 512 take a byte each in a store, and come back exactly."""

from __future__ import annotations

from pathlib import Path

import h5py
import hypothesis.extra.numpy as hnp
import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.io.compact import STEP, from_bytes, to_bytes
from sfm_match.io.store import Store
from sfm_match.types import Features

DIGEST = bytes(32)

byte_arrays = hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 9)))


@given(byte_arrays)
def test_divided_bytes_come_back(stored: npt.NDArray[np.uint8]) -> None:
    values = from_bytes(stored)
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values.astype(np.float64), stored.astype(np.float64) * STEP)
    again = to_bytes(values)
    assert again is not None
    np.testing.assert_array_equal(again, stored)


@given(byte_arrays, st.data())
def test_one_other_value_leaves_the_array_alone(
    stored: npt.NDArray[np.uint8], data: st.DataObject
) -> None:
    values = from_bytes(stored)
    others = st.sampled_from([-0.0, -STEP, STEP / 2, 256 * STEP, 1e-7, np.nan, np.inf])
    values.flat[data.draw(st.integers(0, values.size - 1))] = data.draw(others)
    assert to_bytes(values) is None


def test_other_types_and_nothing_are_left_alone() -> None:
    assert to_bytes(np.zeros((3, 4), np.float32)) is None
    assert to_bytes(np.zeros((0, 128), np.float16)) is None


def some_features(descriptors: npt.NDArray[np.float16]) -> Features:
    num = len(descriptors)
    return Features(
        keypoints=np.zeros((num, 2), np.float32),
        scores=np.ones(num, np.float32),
        descriptors=descriptors,
        image_size=np.array([64, 48], np.int32),
    )


def stored_size(folder: Path, features: Features) -> int:
    with Store(folder, Features).writer() as writer:
        writer.add("a.jpg", DIGEST, features)
    read = Store(folder, Features).read("a.jpg", DIGEST)
    assert read.descriptors.dtype == np.float16
    np.testing.assert_array_equal(read.descriptors, features.descriptors)
    (shard,) = folder.glob("*.h5")
    return shard.stat().st_size


def test_a_store_of_them_takes_half_the_room(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    divided = from_bytes(rng.integers(0, 256, (20_000, 128), dtype=np.uint8))
    others = rng.normal(size=(20_000, 128)).astype(np.float16)
    saved = stored_size(tmp_path / "others", some_features(others)) - stored_size(
        tmp_path / "divided", some_features(divided)
    )
    assert abs(saved - divided.size) < 1 << 18  # the last piece of a column is filled up


def test_shards_of_the_first_version_are_read(tmp_path: Path) -> None:
    """They hold all descriptors as they are."""
    features = some_features(np.full((5, 8), 3 * STEP, np.float16))
    stored_size(tmp_path, features)
    (shard,) = tmp_path.glob("*.h5")
    with h5py.File(shard, "r+") as file:
        file.attrs["version"] = 1
        del file["columns/descriptors"]
        file["columns/descriptors"] = features.descriptors
    read = Store(tmp_path, Features).read("a.jpg", DIGEST)
    np.testing.assert_array_equal(read.descriptors, features.descriptors)
