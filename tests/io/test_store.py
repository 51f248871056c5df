"""Round trips and resumption of the shard store."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sfm_match.io.columns import LAYOUTS
from sfm_match.io.shard import Key
from sfm_match.io.store import Store
from sfm_match.types import Correspondences, Features, Matches, Pair, TwoView, TwoViewConfig

DIGEST = hashlib.sha256(b"source").digest()
OTHER = hashlib.sha256(b"another source").digest()

# Surrogates too: they stand for the bytes of a name that is no UTF-8.
names = st.text(st.characters(), min_size=1, max_size=12)
pairs = st.tuples(names, names).filter(lambda ab: ab[0] != ab[1]).map(lambda ab: Pair.of(*ab))


def floats(*shape: int) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.float32, shape, elements=st.floats(-1e6, 1e6, width=32))


@st.composite
def features(draw: st.DrawFn, width: int, dtype: type) -> Features:
    num = draw(st.integers(0, 5))
    values = st.floats(-1e4, 1e4, width=16 if dtype is np.float16 else 32)
    return Features(
        keypoints=draw(floats(num, 2)),
        scores=draw(floats(num)),
        descriptors=draw(hnp.arrays(dtype, (num, width), elements=values)),
        image_size=np.array(draw(st.tuples(st.integers(1, 99), st.integers(1, 99))), np.int32),
        scales=draw(st.none() | floats(num)),
        orientations=draw(st.none() | floats(num)),
    )


@st.composite
def matches(draw: st.DrawFn) -> Matches:
    num = draw(st.integers(0, 5))
    indices = draw(hnp.arrays(np.int32, (num, 2), elements=st.integers(0, 2**31 - 1)))
    return Matches(indices=indices, scores=draw(floats(num)))


@st.composite
def correspondences(draw: st.DrawFn) -> Correspondences:
    num = draw(st.integers(0, 5))
    return Correspondences(draw(floats(num, 2)), draw(floats(num, 2)), draw(floats(num)))


@st.composite
def two_views(draw: st.DrawFn) -> TwoView:
    def matrix(rows: int, cols: int) -> Any:
        return draw(st.none() | floats(rows, cols).map(lambda m: m.astype(np.float64)))

    return TwoView(
        config=draw(st.sampled_from(TwoViewConfig)),
        inliers=draw(hnp.arrays(np.bool_, st.integers(0, 5))),
        cam1_from_cam0=matrix(3, 4),
        E=matrix(3, 3),
        F=matrix(3, 3),
        H=matrix(3, 3),
    )


def assert_same(a: Any, b: Any) -> None:
    for column in LAYOUTS[type(a)].columns:
        x, y = getattr(a, column.name), getattr(b, column.name)
        assert (x is None) == (y is None), column.name
        if x is not None:
            assert np.asarray(x).dtype == np.asarray(y).dtype
            np.testing.assert_array_equal(x, y)


def contents(
    keys: st.SearchStrategy[Key], values: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[Key, Any]]:
    return st.dictionaries(keys, values, max_size=6)


# The features of a store have descriptors of one width and type.
any_features = st.tuples(st.integers(0, 9), st.sampled_from([np.float16, np.float32])).flatmap(
    lambda kind: contents(names, features(*kind))
)


@pytest.mark.parametrize(
    ("item_type", "items"),
    [
        (Features, any_features),
        (Matches, contents(pairs, matches())),
        (Correspondences, contents(pairs, correspondences())),
        (TwoView, contents(pairs, two_views())),
    ],
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_written_is_read(
    item_type: type[Any],
    items: st.SearchStrategy[dict[Key, Any]],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = data.draw(items)
    folder = tmp_path_factory.mktemp("store")
    with Store(folder, item_type).writer(max_items=4) as writer:
        for key, item in content.items():
            writer.add(key, DIGEST, item)
    store = Store(folder, item_type)
    assert {key for key, _ in store.entries()} == set(content)
    assert len(store) == len(content)
    for key, item in content.items():
        assert_same(store.read(key, DIGEST), item)
    for key, read in store.items(store.entries()):
        assert_same(read, content[key])


def some_features(num: int, value: float = 1.0) -> Features:
    return Features(
        keypoints=np.full((num, 2), value, np.float32),
        scores=np.ones(num, np.float32),
        descriptors=np.ones((num, 8), np.float16),
        image_size=np.array([64, 48], np.int32),
    )


def test_an_item_is_found_only_by_the_digest_it_was_made_from(tmp_path: Path) -> None:
    store = Store(tmp_path, Features)
    with store.writer() as writer:
        writer.add("a.jpg", DIGEST, some_features(3))
    assert store.missing([("a.jpg", DIGEST), ("a.jpg", OTHER), ("b.jpg", DIGEST)]) == [
        ("a.jpg", OTHER),
        ("b.jpg", DIGEST),
    ]
    with pytest.raises(KeyError, match="nothing current"):
        store.read("a.jpg", OTHER)


def test_the_newest_of_two_writers_wins_and_older_versions_stay_readable(tmp_path: Path) -> None:
    for value, digest in ((1.0, DIGEST), (2.0, DIGEST), (3.0, OTHER)):
        with Store(tmp_path, Features).writer() as writer:
            writer.add("a.jpg", digest, some_features(1, value))
    store = Store(tmp_path, Features)
    assert store.entries() == [("a.jpg", OTHER)]
    assert store.read("a.jpg", DIGEST).keypoints[0, 0] == 2.0
    assert store.read("a.jpg", OTHER).keypoints[0, 0] == 3.0


def test_a_reader_takes_up_what_another_process_published(tmp_path: Path) -> None:
    reader = Store(tmp_path, Features)
    with Store(tmp_path, Features).writer() as writer:
        writer.add("a.jpg", DIGEST, some_features(2))
    assert ("a.jpg", DIGEST) not in reader
    reader.refresh()
    assert len(reader.read("a.jpg", DIGEST)) == 2


def test_items_before_an_exception_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, Features)

    def fail_after_one() -> None:
        with store.writer() as writer:
            writer.add("a.jpg", DIGEST, some_features(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_after_one()
    assert ("a.jpg", DIGEST) in store


def test_one_column_is_read_without_the_others(tmp_path: Path) -> None:
    store = Store(tmp_path, Features)
    with store.writer() as writer:
        for i in range(5):
            writer.add(f"{i}.jpg", DIGEST, some_features(i, value=i))
    read = dict(store.arrays(store.entries(), columns=("keypoints", "scales")))
    assert {key: set(arrays) for key, arrays in read.items()} == {
        f"{i}.jpg": {"keypoints", "scales"} for i in range(5)
    }
    for i in range(5):
        np.testing.assert_array_equal(read[f"{i}.jpg"]["keypoints"], np.full((i, 2), i))


def test_descriptors_of_two_widths_are_refused_by_name(tmp_path: Path) -> None:
    writer = Store(tmp_path, Features).writer()
    narrow = some_features(2)
    wide = Features(narrow.keypoints, narrow.scores, np.ones((2, 9), np.float16), narrow.image_size)
    writer.add("a", DIGEST, narrow)
    writer.add("b", DIGEST, wide)
    with pytest.raises(ValueError, match="descriptors is"):
        writer.flush()


def _write_until_killed(folder: Path) -> None:
    with Store(folder, Features).writer(max_items=2) as writer:
        for i in range(100_000):
            writer.add(f"{i}", DIGEST, some_features(50, value=i))


def test_kill_at_any_moment_leaves_whole_shards(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    rng = np.random.default_rng(1)
    total = 0
    for _ in range(4):
        process = context.Process(target=_write_until_killed, args=(tmp_path,))
        process.start()
        while not list(tmp_path.glob("*.h5"))[total // 2 :]:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.05)))
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        store = Store(tmp_path, Features)
        total = 2 * len(list(tmp_path.glob("*.h5")))
        for key, item in store.items(store.entries()):
            assert isinstance(key, str)
            np.testing.assert_array_equal(item.keypoints, np.full((50, 2), float(key)))


def _write_some(folder: Path, first: int) -> None:
    with Store(folder, Features).writer(max_items=3) as writer:
        for i in range(first, first + 10):
            writer.add(f"{i}", DIGEST, some_features(i, value=i))


def test_processes_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_some, args=(tmp_path, i * 5)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    store = Store(tmp_path, Features)
    assert len(store) == 20
    for key, item in store.items(store.entries()):
        assert len(item) == int(str(key))
