"""Pairs by appearance, closed loops, unions, and what the results say of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfm_match.io.pairs import write_pairs
from sfm_match.io.store import Store
from sfm_match.spec import ConfigError
from sfm_match.stages.pairs import Config, ImageSet, make_pairs, reader_of
from sfm_match.stages.pairs.images import Described
from sfm_match.types import Features, Pair
from tests.scenes import call, make_images, results

SMALL: dict[str, Any] = {"words": 64, "candidates": 8}


def world(
    rng: np.random.Generator,
    visits: Mapping[str, int],
    dtype: type = np.float32,
    dimensions: int = 32,
) -> dict[str, Described]:
    """Return features of images of places: half of them the place's own, half seen nowhere else."""
    places = {place: rng.normal(size=(80, dimensions)) for place in sorted(set(visits.values()))}
    images = {}
    for name, place in visits.items():
        rows = rng.permutation(80)[:40]
        own = places[place][rows] + rng.normal(0, 0.3, (40, dimensions))
        descriptors = np.concatenate([own, rng.normal(size=(40, dimensions))])
        unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        images[name] = (unit.astype(dtype), rng.random(80, np.float32))
    return images


def image_set(
    images: Mapping[str, Described], *, backwards: bool = False, seed: int = 0
) -> ImageSet:
    def read(names: Collection[str]) -> Iterator[tuple[str, Described]]:
        for name in sorted(names, reverse=backwards):
            yield name, images[name]

    return ImageSet(list(images), features=read, seed=seed)


VISITS = {f"{'åb'[i % 2]} {i}.jpg": i // 4 for i in range(32)}
SAME_PLACE = {Pair.of(a, b) for a in VISITS for b in VISITS if a != b and VISITS[a] == VISITS[b]}


@pytest.mark.parametrize("candidates", [0, 8])
@pytest.mark.parametrize(("dtype", "dimensions"), [(np.float32, 32), (np.float16, 128)])
def test_images_of_one_place_are_paired(candidates: int, dtype: type, dimensions: int) -> None:
    images = image_set(world(np.random.default_rng(0), VISITS, dtype, dimensions))
    config = Config("retrieval", neighbours=3, words=64, candidates=candidates)
    found = make_pairs(images, config)
    assert len(set(found.pairs)) == len(found.pairs) == found.counts["retrieval"]
    assert len(SAME_PLACE & set(found.pairs)) >= 0.95 * len(SAME_PLACE)
    # Each image has at most three of its own choice.
    assert len(found.pairs) <= 3 * len(VISITS)


def test_candidates_are_ranked_by_votes() -> None:
    # So much alike by their words are all images of an unfit vocabulary that votes have to decide.
    images = image_set(world(np.random.default_rng(1), VISITS))
    hits = [
        len(
            SAME_PLACE
            & set(make_pairs(images, Config("retrieval", 3, words=2, candidates=c)).pairs)
        )
        for c in (0, 31)
    ]
    assert hits[1] > 1.2 * hits[0]
    assert hits[1] >= 0.8 * len(SAME_PLACE)


def test_the_order_of_reading_makes_no_difference_and_the_seed_does() -> None:
    images = world(np.random.default_rng(2), VISITS)
    config = Config("retrieval", neighbours=5, words=16, candidates=0)
    first = make_pairs(image_set(images), config)
    assert make_pairs(image_set(images, backwards=True), config) == first
    assert make_pairs(image_set(dict(reversed(images.items()))), config) == first
    assert make_pairs(image_set(images, seed=1), config) != first


def test_images_without_features_are_paired_with_none() -> None:
    images = world(np.random.default_rng(3), VISITS)
    bare = (np.zeros((0, 32), np.float32), np.zeros(0, np.float32))
    found = make_pairs(image_set(images | {"bare": bare}), Config("retrieval", **SMALL))
    assert found.pairs
    assert not [pair for pair in found.pairs if "bare" in (pair.a, pair.b)]
    nothing = image_set({"a": bare, "b": bare})
    assert make_pairs(nothing, Config("retrieval")).pairs == []
    one = image_set({"a": images["å 0.jpg"]})
    assert make_pairs(one, Config("retrieval")).pairs == []


def test_retrieval_without_features_says_so() -> None:
    with pytest.raises(ConfigError, match="retrieval needs features, and the recipe extracts none"):
        make_pairs(ImageSet(["a", "b"]), Config("retrieval"))


def test_features_of_a_store_are_read(tmp_path: Path) -> None:
    images = world(np.random.default_rng(4), VISITS, np.float16)
    store = Store(tmp_path, Features)
    size = np.array([10, 10], np.int32)
    with store.writer(max_items=5) as writer:
        for name, (descriptors, scores) in reversed(images.items()):
            points = np.zeros((len(scores), 2), np.float32)
            features = Features(points, scores, descriptors, size)
            writer.add(name, bytes(32), features)
    of_store = ImageSet(sorted(images), reader_of(store, dict.fromkeys(images, bytes(32))))
    config = Config("retrieval", **SMALL)
    assert make_pairs(of_store, config) == make_pairs(image_set(images), config)


def test_loops_are_closed() -> None:
    # A walk of 60 frames, four at each place, that comes back to the first five places.
    visits = {f"{i}.jpg": (i // 4) % 10 for i in range(60)}
    images = image_set(world(np.random.default_rng(5), visits))
    near = Config("sequential", overlap=2, quadratic=False)
    assert make_pairs(images, near).counts == {"sequential": 59 + 58}
    looking = Config(
        "sequential",
        overlap=2,
        quadratic=False,
        loop_every=2,
        loop_neighbours=2,
        **SMALL,
    )
    found = make_pairs(images, looking)
    loops = set(found.pairs) - set(make_pairs(images, near).pairs)
    frames = {tuple(sorted(int(name[:-4]) for name in (p.a, p.b))) for p in loops}
    assert all(b - a > 2 for a, b in frames)
    closing = {(a, b) for a, b in frames if visits[f"{a}.jpg"] == visits[f"{b}.jpg"]}
    revisited = {a for a, b in closing if b - a >= 37} | {b for a, b in closing if b - a >= 37}
    # Every second frame looks, of 20 there and 20 back again.
    assert revisited >= {*range(0, 20, 2), *range(40, 60, 2)}


def loops_of_the_first(images: dict[str, Described], num: int) -> list[int]:
    """Return the frames with which frame 0 closes loops, at most `num`; two follow it anyway."""
    config = Config(
        "sequential", overlap=2, quadratic=False, loop_every=100, loop_neighbours=num, **SMALL
    )
    found = make_pairs(image_set(images), config).pairs
    frames = sorted(int(p.b[:-4]) for p in found if p.a == "00.jpg")
    assert frames[:2] == [1, 2]
    return frames[2:]


def test_loops_are_of_different_stretches() -> None:
    # The camera stands still for twelve frames, and comes back for four.
    places = [0] * 12 + list(range(1, 18)) + [0] * 4 + [18, 19]
    visits = {f"{i:02}.jpg": place for i, place in enumerate(places)}
    found = loops_of_the_first(world(np.random.default_rng(7), visits), 4)
    assert len(found) == 4
    assert min(b - a for a, b in pairwise(found)) > 2
    assert set(found) & {29, 30, 31, 32}


def test_copies_of_a_frame_leave_room_for_a_loop() -> None:
    visits = {f"{i:02}.jpg": i % 30 for i in range(40)}
    images = world(np.random.default_rng(8), visits)
    images |= dict.fromkeys(("01.jpg", "02.jpg"), images["00.jpg"])
    assert loops_of_the_first(images, 1) == [30]


def test_unions_have_each_pair_once(tmp_path: Path) -> None:
    images = image_set(world(np.random.default_rng(6), VISITS))
    write_pairs(tmp_path / "list.txt", [Pair("b 1.jpg", "å 30.jpg"), Pair("b 1.jpg", "nowhere")])
    config = Config(
        "sequential + retrieval+file",
        overlap=1,
        quadratic=False,
        path=tmp_path / "list.txt",
        **SMALL,
    )
    found = make_pairs(images, config)
    alone = {
        "sequential": make_pairs(images, Config("sequential", overlap=1, quadratic=False)),
        "retrieval": make_pairs(images, Config("retrieval", **SMALL)),
        "file": make_pairs(images, Config("file", path=tmp_path / "list.txt")),
    }
    assert config.method == "sequential+retrieval+file"
    assert found.counts == {name: len(part.pairs) for name, part in alone.items()}
    assert set(found.pairs) == {pair for part in alone.values() for pair in part.pairs}
    assert len(set(found.pairs)) == len(found.pairs)
    assert found.problems == alone["file"].problems
    assert "no image named 'nowhere'" in found.problems[0]


def test_a_union_on_the_command_line(tmp_path: Path) -> None:
    images, out = make_images(tmp_path), tmp_path / "out"
    options = ("-q", "--threads", "1")
    assert call("extract", images, out, *options, "-o", "features.max_keypoints=400").code == 0
    chosen = ("--pairs", "sequential+retrieval", "-o", "pairs.overlap=1")
    told = ("-o", "pairs.quadratic=false", "-o", "pairs.neighbours=2")
    outcome = call("pairs", out, *options, *chosen, *told)
    assert (outcome.code, outcome.stderr) == (0, "")
    stage = results(out)["stages"]["pairs"]
    assert stage["methods"]["sequential"] == 5
    assert stage["pairs"] == len((out / "pairs.txt").read_text().splitlines())
    before = (out / "pairs.txt").read_bytes()
    (out / "pairs.txt").unlink()
    assert call("pairs", out, *options).code == 0
    assert (out / "pairs.txt").read_bytes() == before
    wrong = call("pairs", out, *options, "--pairs", "sequential+retreival")
    assert wrong.code == 1
    assert "pairs.method: no method named 'retreival'; did you mean 'retrieval' or" in wrong.stderr
