from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfm_match.geometry.tracks import TrackOptions, tracks_of_pairs
from sfm_match.io.exif import CameraTags, ImageHeader
from sfm_match.io.store import Store
from sfm_match.spec import ConfigError, Spec
from sfm_match.stages.match import match_digest
from sfm_match.stages.scan import Source
from sfm_match.stages.tracks import (
    TracksReport,
    make_tracks,
    read_track_digests,
    tracks_digest,
    tracks_spec,
)
from sfm_match.types import ArrayF32, Correspondences, Features, Matches, Pair
from tests.track_scene import SIZE, make_scene

MATCHER = Spec("matchers", "points", 1, {})
EXTRACTOR = Spec("extractors", "corners", 1, {})
NUM = 6


@dataclass
class Stores:
    """An output folder with the correspondences of a scene, each image with its two neighbours."""

    folder: Path
    digests: dict[str, bytes]
    found: dict[Pair, Correspondences]
    spec: Spec = field(default_factory=lambda: tracks_spec({}, MATCHER, None))
    anchors: Store[Features] | None = None

    @property
    def correspondences(self) -> Store[Correspondences]:
        return Store.create(self.folder, Correspondences, MATCHER)

    @property
    def features(self) -> Store[Features]:
        return Store.create(self.folder / "features", Features, self.spec)

    @property
    def matches(self) -> Store[Matches]:
        return Store.create(self.folder / "matches", Matches, self.spec)

    def put(self, *pairs: Pair) -> None:
        with self.correspondences.writer() as writer:
            for pair in pairs:
                writer.add(pair, match_digest(pair, self.digests), self.found[pair])

    def make(self, steps: list[int] | None = None) -> TracksReport:
        return make_tracks(
            list(self.found),
            self.digests,
            {name: source(name) for name in self.digests},
            self.spec,
            self.correspondences,
            self.anchors,
            self.features,
            self.matches,
            progress=None if steps is None else steps.append,
        )

    def current(self) -> dict[str, bytes]:
        found = read_track_digests(self.features, tracks_digest(self.digests, list(self.found)))
        assert found is not None
        return found

    def read(self) -> tuple[dict[str, ArrayF32], dict[Pair, Matches]]:
        digests = self.current()
        keypoints = {n: self.features.read(n, d).keypoints for n, d in digests.items()}
        return keypoints, {p: self.matches.read(p, match_digest(p, digests)) for p in self.found}


def source(name: str) -> Source:
    header = ImageHeader(width=SIZE[0], height=SIZE[1], orientation=6)
    tags = CameraTags(focal=None, body=None)
    return Source(name, Path(name), None, b"", header, tags)


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    scene = make_scene(num_images=NUM, num_points=300, num_found=120)
    near = {p: c for p, c in scene.found.items() if int(p.b) - int(p.a) <= 2}
    digests = {f"{i:03}": bytes([i]) * 32 for i in range(NUM)}
    made = Stores(tmp_path, digests, near)
    made.put(*near)
    return made


def assert_equal(made: Any, expected: Any) -> None:
    assert made[0].keys() == expected[0].keys()
    for name, keypoints in made[0].items():
        np.testing.assert_array_equal(keypoints, expected[0][name])
    for pair, matches in made[1].items():
        np.testing.assert_array_equal(matches.indices, expected[1][pair].indices)
        np.testing.assert_array_equal(matches.scores, expected[1][pair].scores)


def test_what_is_stored_is_what_the_geometry_gives(stores: Stores) -> None:
    steps: list[int] = []
    report = stores.make(steps)
    expected = tracks_of_pairs(stores.found, TrackOptions(radius=stores.spec.config["radius"]))
    assert_equal(stores.read(), expected)
    assert sum(steps) == NUM
    assert not report.reused
    assert report.correspondences == sum(map(len, stores.found.values()))
    assert report.keypoints == sum(map(len, expected[0].values()))
    assert report.matches == sum(map(len, expected[1].values()))
    assert report.mean_length == report.keypoints / report.tracks
    features = stores.features.read("000", stores.current()["000"])
    assert features.descriptors.shape == (len(features), 0)
    assert features.image_size.tolist() == list(SIZE)


def test_what_is_there_is_not_made_again(stores: Stores) -> None:
    report = stores.make()
    shards = {path: path.stat().st_mtime_ns for path in stores.folder.rglob("*.h5")}
    again = stores.make()
    assert again.reused
    assert (again.keypoints, again.tracks) == (report.keypoints, report.tracks)
    assert {path: path.stat().st_mtime_ns for path in stores.folder.rglob("*.h5")} == shards


def test_an_edited_image_renews_only_what_comes_out_otherwise(stores: Stores) -> None:
    stores.make()
    before, first = stores.current(), stores.digests["000"]
    stores.digests["000"] = b"x" * 32
    touched = [pair for pair in stores.found if pair.a == "000"]
    for pair in touched:
        old = stores.found[pair]
        stores.found[pair] = Correspondences(old.points0 + 1, old.points1, old.scores)
    stores.put(*touched)
    assert not stores.make().reused
    after = stores.current()
    changed = {name for name in after if after[name] != before[name]}
    # The image and its two neighbours, whose matches with it are others; not those farther away.
    assert "000" in changed
    assert changed <= {"000", "001", "002"}
    stores.digests["000"] = first
    for pair in touched:
        new = stores.found[pair]
        stores.found[pair] = Correspondences(new.points0 - 1, new.points1, new.scores)
    assert stores.make().reused
    assert stores.current() == before


def test_a_run_that_was_killed_before_its_end_adds_only_what_is_missing(stores: Stores) -> None:
    stores.make()
    expected = stores.read()
    (index,) = stores.features.folder.glob("tracks-*.json")
    index.unlink()
    (shard,) = stores.matches.folder.glob("*.h5")
    shard.unlink()
    kept = set(stores.features.folder.glob("*.h5"))
    assert not stores.make().reused
    assert set(stores.features.folder.glob("*.h5")) == kept
    assert_equal(stores.read(), expected)


def test_a_shard_that_was_deleted_is_made_again(stores: Stores) -> None:
    stores.make()
    expected = stores.read()
    (shard,) = stores.features.folder.glob("*.h5")
    shard.unlink()
    assert not stores.make().reused
    assert_equal(stores.read(), expected)


def test_images_without_matches_have_features_without_keypoints(stores: Stores) -> None:
    stores.digests["alone"] = b"a" * 32
    stores.make()
    assert len(stores.features.read("alone", stores.current()["alone"])) == 0
    single = Stores(stores.folder / "single", {"one": b"1" * 32}, {})
    report = single.make()
    assert (report.keypoints, report.tracks, report.mean_length) == (0, 0, 0.0)
    assert len(single.features.read("one", single.current()["one"])) == 0


def test_anchors_stay_where_they_are(stores: Stores) -> None:
    anchors = Store.create(stores.folder / "corners", Features, EXTRACTOR)
    rng = np.random.default_rng(0)
    places = {name: rng.uniform(0, SIZE, (1000, 2)).astype(np.float32) for name in stores.digests}
    with anchors.writer() as writer:
        for name, digest in stores.digests.items():
            size = np.array(SIZE, np.int32)
            ones = np.ones(1000, np.float32)
            writer.add(name, digest, Features(places[name], ones, ones[:, None], size))
    stores.anchors = anchors
    stores.spec = tracks_spec({"anchor": True, "anchor_radius": 4.0}, MATCHER, EXTRACTOR)
    stores.make()
    options = TrackOptions(radius=stores.spec.config["radius"], anchor_radius=4.0)
    assert_equal(stores.read(), tracks_of_pairs(stores.found, options, places))
    keypoints, _ = stores.read()
    on_anchors = [
        len({*map(tuple, points.tolist())} & {*map(tuple, places[name].tolist())})
        for name, points in keypoints.items()
    ]
    assert min(on_anchors) > 5


def test_the_spec_follows_what_decides_the_result() -> None:
    plain = tracks_spec({}, MATCHER, None)
    assert (
        plain.fingerprint
        == tracks_spec({"radius": plain.config["radius"]}, MATCHER, None).fingerprint
    )
    # Features count only where they are anchors.
    assert plain.fingerprint == tracks_spec({}, MATCHER, EXTRACTOR).fingerprint
    others = [
        tracks_spec({"radius": 7.5}, MATCHER, None),
        tracks_spec({}, Spec("matchers", "points", 2, {}), None),
        tracks_spec({"anchor": True}, MATCHER, EXTRACTOR),
        tracks_spec({"anchor": True}, MATCHER, Spec("extractors", "corners", 2, {})),
    ]
    assert len({plain.fingerprint, *(spec.fingerprint for spec in others)}) == 5
    with pytest.raises(ConfigError, match=r"tracks\.radios: no such option; did you mean 'radius'"):
        tracks_spec({"radios": 1}, MATCHER, None)
    with pytest.raises(ConfigError, match=r"tracks\.radius: .*greater than 0"):
        tracks_spec({"radius": 0}, MATCHER, None)


def test_pairs_and_images_are_part_of_what_tracks_are_made_from() -> None:
    digests = {name: name.encode() * 32 for name in "abc"}
    pairs = [Pair(*pair) for pair in combinations("abc", 2)]
    one = tracks_digest(digests, pairs)
    assert one == tracks_digest(dict(reversed(digests.items())), pairs[::-1])
    assert one != tracks_digest(digests, pairs[1:])
    assert one != tracks_digest({**digests, "d": b"d" * 32}, pairs)
    assert one != tracks_digest({**digests, "a": b"d" * 32}, pairs)
