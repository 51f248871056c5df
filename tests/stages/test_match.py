from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.match import match, match_digest
from sfm_match.stages.pairwise import PairsReport
from sfm_match.types import Features, Matches, Pair, View
from tests.described import described

EXTRACTOR = Spec("extractors", "synthetic", 1, {})
NEAREST = Spec.parse("matchers", "nearest", {"ratio": 0.95}, (EXTRACTOR,))
NAMES = [f"{i}.jpg" for i in range(9)]
PAIRS = [Pair(a, b) for a, b in combinations(NAMES, 2)]
DIGESTS = {name: bytes([i]) * 32 for i, name in enumerate(NAMES)}


def features(seed: int, *, as_bytes: bool) -> Features:
    """Return noisy views of the same descriptors; floats, or bytes over 512 as SIFT's are."""
    shared = np.random.default_rng(0).uniform(size=(60, 64))
    rng = np.random.default_rng(seed + 1)
    values = np.abs(shared + rng.normal(size=shared.shape) * 0.2)[rng.permutation(60)[: 40 + seed]]
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    if as_bytes:
        values = np.round(values * 512).clip(0, 255) / 512
    return described(values, np.float16 if as_bytes else np.float32)


@dataclass
class Stores:
    folder: Path
    features: Store[Features]

    def match(
        self,
        pairs: Sequence[Pair] = PAIRS,
        digests: dict[str, bytes] | None = None,
        *,
        out: str = "a",
        workers: int = 1,
        cache_bytes: int = 1 << 30,
        steps: list[int] | None = None,
    ) -> tuple[dict[Pair, Matches], PairsReport]:
        store = Store.create(self.folder / out, Matches, NEAREST)
        digests = digests or DIGESTS
        report = match(
            pairs,
            digests,
            NEAREST,
            self.features,
            store,
            workers=workers,
            cache_bytes=cache_bytes,
            progress=None if steps is None else steps.append,
        )
        return {pair: store.read(pair, match_digest(pair, digests)) for pair in pairs}, report


@pytest.fixture(params=[True, False], ids=["bytes", "floats"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    store = Store.create(tmp_path, Features, EXTRACTOR)
    with store.writer() as writer:
        for i, name in enumerate(NAMES):
            writer.add(name, DIGESTS[name], features(i, as_bytes=request.param))
    return Stores(tmp_path, store)


def assert_same(found: dict[Pair, Matches], expected: dict[Pair, Matches]) -> None:
    assert found.keys() == expected.keys()
    for pair, matches in found.items():
        np.testing.assert_array_equal(matches.indices, expected[pair].indices)
        np.testing.assert_array_equal(matches.scores, expected[pair].scores)


def test_matches_are_what_the_matcher_alone_finds(stores: Stores) -> None:
    found, report = stores.match()
    assert (report.computed, report.reused) == (36, 0)
    matcher = NEAREST.build()
    for pair in PAIRS:
        sides = [stores.features.read(name, DIGESTS[name]) for name in (pair.a, pair.b)]
        (expected,) = matcher.match([tuple(matcher.encode(View(None, side)) for side in sides)])
        assert len(expected) > 20
        assert_same({pair: found[pair]}, {pair: expected})


@pytest.mark.parametrize("workers", [1, 2])
def test_each_image_is_read_and_encoded_once(stores: Stores, workers: int) -> None:
    _, report = stores.match(workers=workers)
    assert stores.features.num_reads == 9
    assert (report.num_encoded, report.num_cache_hits) == (9, 2 * 36 - 9)


def test_cache_and_workers_do_not_change_the_result(stores: Stores) -> None:
    expected, _ = stores.match()
    for out, workers, cache_bytes in (("b", 2, 1 << 30), ("c", 1, 1), ("d", 2, 20_000)):
        found, report = stores.match(out=out, workers=workers, cache_bytes=cache_bytes)
        assert report.computed == 36
        assert (report.num_encoded > 9) == (cache_bytes < 1 << 30)
        assert_same(found, expected)


def test_what_is_there_is_not_computed_again(stores: Stores) -> None:
    first, _ = stores.match(PAIRS[:10])
    reads, steps = stores.features.num_reads, list[int]()
    found, report = stores.match(PAIRS[:10], steps=steps)
    assert (report.computed, report.reused, report.num_encoded) == (0, 10, 0)
    assert stores.features.num_reads == reads
    assert sum(steps) == 10
    assert_same(found, first)
    _, report = stores.match(PAIRS)
    assert (report.computed, report.reused) == (26, 10)


def test_an_edited_image_is_matched_again(stores: Stores) -> None:
    stores.match()
    edited = {**DIGESTS, "3.jpg": b"x" * 32}
    with stores.features.writer() as writer:
        writer.add("3.jpg", edited["3.jpg"], features(3, as_bytes=True).take(np.arange(5)))
    found, report = stores.match(digests=edited)
    assert (report.computed, report.reused) == (8, 28)
    assert all(len(m) <= 5 for pair, m in found.items() if "3.jpg" in (pair.a, pair.b))


def test_images_without_keypoints_have_no_matches(stores: Stores) -> None:
    digests = {**DIGESTS, "0.jpg": b"x" * 32}
    with stores.features.writer() as writer:
        nothing = features(0, as_bytes=True).take(np.arange(0))
        writer.add("0.jpg", digests["0.jpg"], nothing)
    found, _ = stores.match(digests=digests)
    assert {len(m) for pair, m in found.items() if pair.a == "0.jpg"} == {0}
    assert min(len(m) for pair, m in found.items() if pair.a != "0.jpg") > 20


def test_matches_before_an_error_are_kept(stores: Stores) -> None:
    unknown = Pair("0.jpg", "9.jpg")
    digests = {**DIGESTS, "9.jpg": b"9" * 32}
    with pytest.raises(KeyError, match=r"nothing current for 9\.jpg"):
        stores.match([*PAIRS, unknown], digests)
    _, report = stores.match()
    assert report.reused > 0
