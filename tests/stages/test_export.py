"""Exports of a run's stores: complete, or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest

from sfm_match.extractors import colmap_sift
from sfm_match.io.hloc import list_hloc_images, read_hloc_features, read_hloc_matches
from sfm_match.io.images import read_image
from sfm_match.io.store import Store
from sfm_match.spec import ConfigError
from sfm_match.stages.export import export
from sfm_match.stages.match import match_digest
from sfm_match.types import Features, Matches, Pair
from tests.io.test_colmap_text import parse_features, parse_matches

DATA = os.environ.get("SFM_MATCH_TEST_DATA")
FORMATS = {"hloc": ["features.h5", "matches.h5"], "colmap-text": ["features", "matches.txt"]}


@dataclass(frozen=True)
class Run:
    """Two stores and what is in them."""

    digests: dict[str, bytes]
    pairs: list[Pair]
    features: Store[Features]
    matches: Store[Matches]

    def export(self, fmt: str, target: Path) -> list[Path]:
        return export(fmt, target, self.digests, self.pairs, self.features, self.matches)


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def some_features(seed: int, width: int = 128) -> Features:
    rng = np.random.default_rng(seed)
    num = 5 + seed
    return Features(
        keypoints=rng.uniform(1, 999, (num, 2)).astype(np.float32),
        scores=rng.random(num, np.float32),
        descriptors=(rng.integers(0, 256, (num, width)) / 512).astype(np.float16),
        image_size=np.array([1000, 999], np.int32),
        scales=rng.uniform(1, 9, num).astype(np.float32),
        orientations=rng.uniform(-3, 3, num).astype(np.float32),
    )


def some_matches(seed: int) -> Matches:
    rng = np.random.default_rng(seed)
    indices = np.column_stack([np.arange(5), rng.permutation(5)]).astype(np.int32)
    return Matches(indices, rng.random(5, np.float32))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Run]:
    def make(*names: str, width: int = 128, folder: str = "stores") -> Run:
        digests = {name: digest(name) for name in names}
        pairs = [Pair.of(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        features = Store(tmp_path / folder / "features", Features)
        matches = Store(tmp_path / folder / "matches", Matches)
        with features.writer() as feature_writer, matches.writer() as match_writer:
            # A stale version of everything must not be exported.
            for seed, name in enumerate(names):
                feature_writer.add(name, digest("old"), some_features(99, width))
                feature_writer.add(name, digests[name], some_features(seed, width))
            for seed, pair in enumerate(pairs):
                match_writer.add(pair, digest("old"), some_matches(99))
                match_writer.add(pair, match_digest(pair, digests), some_matches(seed))
        return Run(digests, pairs, features, matches)

    return make


def test_hloc(make: Callable[..., Run], tmp_path: Path) -> None:
    run = make("sub/a.jpg", "b c.jpg", "d.jpg")
    target = tmp_path / "new" / "hloc"
    assert run.export("hloc", target) == [target / "features.h5", target / "matches.h5"]
    assert list_hloc_images(target / "features.h5") == ["b c.jpg", "d.jpg", "sub/a.jpg"]
    for seed, name in enumerate(run.digests):
        found, item = read_hloc_features(target / "features.h5", name), some_features(seed)
        np.testing.assert_array_equal(found.keypoints, item.keypoints)
        np.testing.assert_array_equal(found.descriptors, item.descriptors)
    for seed, pair in enumerate(run.pairs):
        matches = read_hloc_matches(target / "matches.h5", pair)
        np.testing.assert_array_equal(matches.indices, some_matches(seed).indices)
        np.testing.assert_array_equal(matches.scores, some_matches(seed).scores)


def test_colmap_text(make: Callable[..., Run], tmp_path: Path) -> None:
    run = make("sub/a.jpg", "c.jpg", "d.jpg")
    target = tmp_path / "text"
    assert run.export("colmap-text", target) == [target / "features", target / "matches.txt"]
    assert len(list((target / "features").rglob("*.txt"))) == 3
    for seed, name in enumerate(run.digests):
        frames, descriptors = parse_features(target / "features" / f"{name}.txt")
        item = some_features(seed)
        assert item.scales is not None
        np.testing.assert_array_equal(frames[:, :2], item.keypoints)
        np.testing.assert_array_equal(frames[:, 2], item.scales)
        np.testing.assert_array_equal(descriptors, item.descriptors * 512)
    found = parse_matches(target / "matches.txt")
    assert set(found) == {(pair.a, pair.b) for pair in run.pairs}
    for seed, pair in enumerate(run.pairs):
        np.testing.assert_array_equal(found[pair.a, pair.b], some_matches(seed).indices)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_second_export_replaces_the_first(
    make: Callable[..., Run], tmp_path: Path, fmt: str
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "notes.md").write_text("mine")
    make("a.jpg", "b.jpg", folder="first").export(fmt, target)
    make("c.jpg", "d.jpg", folder="second").export(fmt, target)
    assert files(target) == sorted([*FORMATS[fmt], "notes.md"])
    if fmt == "hloc":
        assert list_hloc_images(target / "features.h5") == ["c.jpg", "d.jpg"]
    else:
        assert files(target / "features") == ["c.jpg.txt", "d.jpg.txt"]
        assert list(parse_matches(target / "matches.txt")) == [("c.jpg", "d.jpg")]


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_export_that_fails_leaves_the_older_one(
    make: Callable[..., Run], tmp_path: Path, fmt: str
) -> None:
    target = tmp_path / "out"
    make("a.jpg", "b.jpg", folder="first").export(fmt, target)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    run = make("a.jpg", "b.jpg", "c.jpg", folder="second")
    (shard,) = run.matches.folder.glob("*.h5")
    damaged = some_matches(1).indices.tobytes()
    assert damaged in shard.read_bytes()
    shard.write_bytes(shard.read_bytes().replace(damaged, bytes(len(damaged))))
    with pytest.raises(OSError, match="damaged"):
        run.export(fmt, target)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    assert files(target) == sorted(FORMATS[fmt])


def test_no_such_format(make: Callable[..., Run], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no export format 'colmap'; did you mean 'colmap-text'"):
        make("a.jpg", "b.jpg").export("colmap", tmp_path / "out")


@pytest.mark.parametrize(
    ("fmt", "names", "message"),
    [
        ("hloc", ("a/b.jpg", "a-b.jpg"), r"'a/b\.jpg' from 'a-b\.jpg'"),
        ("colmap-text", ("a b.jpg", "c.jpg"), r"'a b\.jpg'"),
    ],
)
def test_names_that_do_not_fit_are_refused_before_anything_is_written(
    make: Callable[..., Run], tmp_path: Path, fmt: str, names: tuple[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(*names).export(fmt, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fmt", FORMATS)
def test_incomplete_stores_are_refused(make: Callable[..., Run], tmp_path: Path, fmt: str) -> None:
    run = make("a.jpg", "b.jpg")
    more = Run({**run.digests, "c.jpg": digest("c")}, run.pairs, run.features, run.matches)
    with pytest.raises(ConfigError, match=r"no current features for 1 of 3, such as 'c\.jpg'"):
        more.export(fmt, tmp_path / "out")
    run.digests["b.jpg"] = digest("old")
    with pytest.raises(ConfigError, match=r"no current matches for 1 of 1, .*'a\.jpg'.*'b\.jpg'"):
        run.export(fmt, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_replaced(
    make: Callable[..., Run], tmp_path: Path
) -> None:
    run = make("a.jpg", "b.jpg")
    stores = run.features.folder.parent
    with pytest.raises(ConfigError, match="choose another folder to export to"):
        run.export("colmap-text", stores)
    assert run.features.read("a.jpg", digest("a.jpg")).scores.shape == (5,)


def test_descriptors_that_colmap_does_not_know_are_mentioned(
    make: Callable[..., Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        make("a.jpg", "b.jpg", width=64).export("colmap-text", tmp_path / "out")
    (message,) = caplog.messages
    assert "those of 2 images" in message
    assert "written as zeros" in message


def test_matches_that_hloc_has_no_room_for_are_mentioned(
    make: Callable[..., Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make("a.jpg", "b.jpg")
    (pair,) = run.pairs
    twice = Matches(np.array([[1, 1], [1, 2], [2, 2]], np.int32), np.ones(3, np.float32))
    with run.matches.writer() as writer:
        writer.add(pair, match_digest(pair, run.digests), twice)
    with caplog.at_level(logging.WARNING):
        run.export("hloc", tmp_path / "out")
    assert "1 others are left out" in caplog.text


@pytest.mark.skipif(DATA is None, reason="SFM_MATCH_TEST_DATA is not set")
def test_sift_features_of_a_photograph(tmp_path: Path) -> None:
    """The text holds COLMAP's own bytes; hloc's import gives back COLMAP's own keypoints."""
    assert DATA is not None
    image = read_image(Path(DATA) / "fountain-P11" / "images" / "0003.jpg", grey=True).pixels
    image = np.ascontiguousarray(image[100:500, 200:700])
    found = colmap_sift.build(colmap_sift.Config(), "cpu", ())(image)
    assert len(found) > 500
    run = Run(
        {"0003.jpg": digest("3")},
        [],
        Store(tmp_path / "f", Features),
        Store(tmp_path / "m", Matches),
    )
    with run.features.writer() as writer:
        writer.add("0003.jpg", digest("3"), found)

    run.export("colmap-text", tmp_path / "text")
    frames, descriptors = parse_features(tmp_path / "text" / "features" / "0003.jpg.txt")
    options = pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=1)
    keypoints, expected = pycolmap.FeatureExtractor.create(options).extract_from_uint8_array(image)
    matrix = pycolmap.keypoints_to_matrix(keypoints)
    np.testing.assert_array_equal(descriptors, expected.data)
    np.testing.assert_array_equal(frames, matrix)

    run.export("hloc", tmp_path / "hloc")
    with h5py.File(tmp_path / "hloc" / "features.h5", "r", libver="latest") as file:
        imported = file["0003.jpg"]["keypoints"].__array__()
    imported += 0.5
    assert imported.dtype == np.float32
    np.testing.assert_array_equal(imported, matrix[:, :2])
