"""What every matcher of features promises, held against every one that there is."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest

from sfm_match.spec import ConfigError
from sfm_match.types import Extractor, Features, Image, Matches, View
from tests.components import EXTRACTORS, SPARSE_MATCHERS, parse
from tests.pictures import noise_picture


@dataclasses.dataclass(frozen=True)
class Fed:
    """A matcher, and an extractor whose features it takes."""

    matcher: Any
    extractor: Extractor

    def encode(self, features: Features, image: Image) -> Any:
        return self.matcher.encode(View(image, features))

    def match(self, *pairs: tuple[Any, Any]) -> list[Matches]:
        found: list[Matches] = self.matcher.match(list(pairs))
        assert all(isinstance(matches, Matches) for matches in found)
        return found


@cache
def fed(name: str) -> Fed:
    for source in EXTRACTORS:
        extractor = parse("extractors", source)
        try:
            return Fed(parse("matchers", name, (extractor,)).build(), extractor.build())
        except ConfigError:
            continue
    raise AssertionError(f"{name} takes the features of none of {EXTRACTORS}")


@cache
def features_of(name: str, shift: int) -> tuple[Features, Image]:
    """Return the features of a part of a picture, no two with the same descriptor."""
    image = noise_picture(150, 260)[:, shift : shift + 180]
    found = fed(name).extractor(image)
    _, rows = np.unique(found.descriptors, axis=0, return_index=True)
    return found.take(np.sort(rows)), image


@cache
def encoded(name: str, shift: int) -> Any:
    """Return a part of the picture as the matcher encodes it."""
    return fed(name).encode(*features_of(name, shift))


@cache
def matches_of(name: str, shift0: int, shift1: int) -> Matches:
    """Return the matches of two parts of the picture."""
    return fed(name).match((encoded(name, shift0), encoded(name, shift1)))[0]


def as_set(matches: Matches) -> set[tuple[int, int]]:
    rows = matches.indices.tolist()
    assert len({tuple(row) for row in rows}) == len(rows)
    return {(a, b) for a, b in rows}


@pytest.mark.parametrize("name", SPARSE_MATCHERS)
def test_matches_are_right_and_one_to_one(name: str) -> None:
    left, right = (features_of(name, shift)[0] for shift in (0, 60))
    matches = matches_of(name, 0, 60)
    rows0, rows1 = matches.indices.T
    assert rows0.max() < len(left)
    assert rows1.max() < len(right)
    assert len(set(rows0)) == len(set(rows1)) == len(matches)
    away = left.keypoints[rows0] - right.keypoints[rows1] - [60, 0]
    is_right = np.linalg.norm(away, axis=1) < 2
    assert np.count_nonzero(is_right) > 100
    if not is_right.all():
        assert matches.scores[is_right].mean() > matches.scores[~is_right].mean()


@pytest.mark.parametrize("name", SPARSE_MATCHERS)
def test_an_empty_side_has_no_matches(name: str) -> None:
    (features, image), full = features_of(name, 0), encoded(name, 0)
    empty = fed(name).encode(features.take(np.arange(0)), image)
    found = fed(name).match((full, empty), (empty, full), (empty, empty))
    assert [len(matches) for matches in found] == [0, 0, 0]
    assert fed(name).match() == []
    one = fed(name).encode(features.take(np.arange(1)), image)
    assert all(len(matches) <= 1 for matches in fed(name).match((one, full), (full, one)))


@pytest.mark.parametrize("name", SPARSE_MATCHERS)
def test_an_image_matches_itself_one_to_one(name: str) -> None:
    matches = matches_of(name, 0, 0)
    np.testing.assert_array_equal(matches.indices[:, 0], matches.indices[:, 1])
    assert len(matches) > 0.95 * len(features_of(name, 0)[0])


@pytest.mark.parametrize("name", SPARSE_MATCHERS)
def test_the_order_of_keypoints_does_not_matter(name: str) -> None:
    left, image = features_of(name, 0)
    order = np.random.default_rng(0).permutation(len(left))
    shuffled = fed(name).encode(left.take(order), image)
    (permuted,) = fed(name).match((shuffled, encoded(name, 60)))
    back = {(int(order[a]), b) for a, b in as_set(permuted)}
    assert_nearly_equal(back, as_set(matches_of(name, 0, 60)))


@pytest.mark.parametrize("name", SPARSE_MATCHERS)
def test_swapping_the_images_swaps_the_matches(name: str) -> None:
    back = matches_of(name, 60, 0)
    assert_nearly_equal(as_set(back.flipped()), as_set(matches_of(name, 0, 60)))


def assert_nearly_equal(found: set[tuple[int, int]], expected: set[tuple[int, int]]) -> None:
    """Allow for near ties, which rounding decides otherwise in another order."""
    assert len(expected) > 100
    assert len(found ^ expected) <= 0.01 * len(expected)


@pytest.mark.parametrize("name", SPARSE_MATCHERS)
def test_a_pair_is_matched_alike_alone_again_and_among_others(name: str) -> None:
    pairs = [(0, 60), (60, 80), (60, 0)]
    together = fed(name).match(*((encoded(name, a), encoded(name, b)) for a, b in pairs))
    for pair, matches in zip(pairs, together, strict=True):
        alone = matches_of(name, *pair)
        np.testing.assert_array_equal(alone.indices, matches.indices)
        np.testing.assert_allclose(alone.scores, matches.scores, atol=1e-5)


@pytest.mark.parametrize("name", SPARSE_MATCHERS)
def test_a_descriptor_that_is_no_number_keeps_no_other_from_its_match(name: str) -> None:
    left, image = features_of(name, 0)
    descriptors = left.descriptors.astype(np.float32)
    descriptors[5] = np.nan
    broken = dataclasses.replace(left, descriptors=descriptors)
    (found,) = fed(name).match((fed(name).encode(broken, image), encoded(name, 60)))
    expected = {match for match in as_set(matches_of(name, 0, 60)) if match[0] != 5}
    kept = {match for match in as_set(found) if match[0] != 5}
    assert len(expected & kept) >= 0.9 * len(expected)
