from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sfm_match.geometry import tracks_graph
from sfm_match.geometry.tracks import Observed, TrackOptions, find_tracks, tracks_of_pairs
from sfm_match.types import ArrayF32, Correspondences, Matches, Pair
from tests.track_scene import make_scene, score_matches

Found = dict[Pair, Correspondences]
Made = tuple[dict[str, ArrayF32], dict[Pair, Matches]]

NAMES = "abcd"


@st.composite
def some_correspondences(draw: st.DrawFn) -> Found:
    """A few pairs with points so close to each other that all kinds of conflicts arise."""
    seed = draw(st.integers(0, 2**32 - 1))
    side = draw(st.sampled_from([2, 6, 40]))
    steps = draw(st.sampled_from([1, 4, 0]))
    levels = draw(st.sampled_from([1, 3, 1000]))
    rng = np.random.default_rng(seed)
    found = {}
    for i, a in enumerate(NAMES):
        for b in NAMES[i + 1 :]:
            num = int(rng.integers(0, 12))
            points = rng.uniform(0, side, (2, num, 2))
            if steps:
                points = np.round(points * steps) / steps
            scores = (rng.integers(0, levels, num) + 1) / levels
            found[Pair(a, b)] = Correspondences(
                *(values.astype(np.float32) for values in (*points, scores))
            )
    return found


options = st.builds(
    TrackOptions,
    radius=st.sampled_from([0.5, 1.0, 2.5]),
    min_length=st.integers(2, 3),
    min_matches=st.integers(1, 2),
    min_confidence=st.sampled_from([0.0, 0.5]),
    max_keypoints=st.sampled_from([0, 2, 5]),
)


def assert_equal(made: Made, expected: Made) -> None:
    assert made[0].keys() == expected[0].keys()
    for name, keypoints in made[0].items():
        np.testing.assert_array_equal(keypoints, expected[0][name])
    assert made[1].keys() == expected[1].keys()
    for pair, matches in made[1].items():
        np.testing.assert_array_equal(matches.indices, expected[1][pair].indices)
        np.testing.assert_array_equal(matches.scores, expected[1][pair].scores)


def tracks_in(made: Made) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and the track of each keypoint, as COLMAP would link them."""
    keypoints, matches = made
    names = sorted(keypoints)
    first = dict(zip(names, np.cumsum([0, *(len(keypoints[n]) for n in names)]), strict=False))
    image = np.repeat(np.arange(len(names)), [len(keypoints[n]) for n in names])
    ends = [
        found.indices + np.array([first[pair.a], first[pair.b]]) for pair, found in matches.items()
    ]
    rows = np.concatenate([np.zeros((0, 2), np.int64), *ends])
    graph = coo_array((np.ones(len(rows)), rows.T), shape=(len(image), len(image)))
    return image, connected_components(graph, directed=False)[1]


def num_matches(made: Made) -> list[int]:
    """Return how many matches each keypoint has."""
    counts = {name: np.zeros(len(points), int) for name, points in made[0].items()}
    for pair, found in made[1].items():
        for name, rows in zip((pair.a, pair.b), found.indices.T, strict=True):
            counts[name][rows] += 1
    return [int(count) for found in counts.values() for count in found]


@given(some_correspondences(), options)
def test_tracks_are_consistent(found: Found, chosen: TrackOptions) -> None:
    made = tracks_of_pairs(found, chosen)
    for matches in made[1].values():
        for rows in matches.indices.T:
            assert len(set(rows.tolist())) == len(rows), "one match for each keypoint and pair"
    image, track = tracks_in(made)
    codes = track * len(NAMES) + image
    assert len(set(codes.tolist())) == len(codes), "no track has two keypoints of an image"
    if len(track):
        assert np.bincount(track).min() >= chosen.min_length
        assert min(num_matches(made)) >= chosen.min_matches
    if chosen.max_keypoints:
        assert max((len(points) for points in made[0].values()), default=0) <= chosen.max_keypoints


@given(some_correspondences(), options, st.integers(0, 2**32 - 1))
def test_order_does_not_matter_not_even_for_the_last_bit(
    found: Found, chosen: TrackOptions, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shuffled = {}
    for i in rng.permutation(len(found)):
        pair = list(found)[i]
        rows = rng.permutation(len(found[pair]))
        old = found[pair]
        shuffled[pair] = Correspondences(old.points0[rows], old.points1[rows], old.scores[rows])
    assert_equal(tracks_of_pairs(shuffled, chosen), tracks_of_pairs(found, chosen))


@given(some_correspondences(), options, st.integers(0, 63))
def test_flipped_pairs_give_flipped_matches(found: Found, chosen: TrackOptions, flip: int) -> None:
    """Only the sides change: images keep their numbers, keypoints and tracks are the same."""
    pairs = sorted(found)
    flips = [bool(flip >> i & 1) for i in range(len(pairs))]
    number = {name: i for i, name in enumerate(NAMES)}

    def observe(sides: list[bool]) -> Observed:
        ends = np.array([(number[p.a], number[p.b]) for p in pairs], np.int32)
        items = [found[p].flipped() if f else found[p] for p, f in zip(pairs, sides, strict=True)]
        ends[sides] = ends[sides, ::-1]

        def points(image: int) -> ArrayF32:
            parts = [
                (items[pair].points0, items[pair].points1)[side]
                for pair, side in zip(*np.nonzero(ends == image), strict=True)
            ]
            return np.concatenate(parts)

        offsets = np.cumsum([0, *map(len, items)], dtype=np.int64)
        scores = np.concatenate([item.scores for item in items])
        return Observed(ends, offsets, scores, points)

    straight = find_tracks(observe([False] * len(pairs)), len(NAMES), chosen)
    turned = find_tracks(observe(flips), len(NAMES), chosen)
    for left, right in zip(straight.keypoints, turned.keypoints, strict=True):
        np.testing.assert_array_equal(left, right)
    for i, flipped in enumerate(flips):
        matches = turned.matches(i).flipped() if flipped else turned.matches(i)
        expected = straight.matches(i)
        order = np.argsort(matches.indices[:, 0])
        np.testing.assert_array_equal(matches.indices[order], expected.indices)
        np.testing.assert_array_equal(matches.scores[order], expected.scores)


def test_exact_correspondences_are_all_kept() -> None:
    scene = make_scene(noise=0, outliers=0, num_points=200, num_found=150)
    keypoints, matches = tracks_of_pairs(scene.found, TrackOptions(radius=0.01))
    for pair, found in scene.found.items():
        assert len(matches[pair]) == len(found)
        rows = matches[pair].indices
        ends = np.hstack([keypoints[pair.a][rows[:, 0]], keypoints[pair.b][rows[:, 1]]])
        expected = np.hstack([found.points0, found.points1])
        order, expected_order = np.lexsort(ends.T), np.lexsort(expected.T)
        np.testing.assert_allclose(ends[order], expected[expected_order], atol=1e-3)
        np.testing.assert_array_equal(matches[pair].scores[order], found.scores[expected_order])


@pytest.mark.parametrize(
    ("noise", "radius", "precision", "recall"), [(0.3, 1.5, 0.88, 0.91), (0.7, 3.0, 0.87, 0.84)]
)
def test_most_wrong_correspondences_go_and_most_right_ones_stay(
    noise: float, radius: float, precision: float, recall: float
) -> None:
    scene = make_scene(noise=noise)
    wrong = np.mean(np.concatenate([*scene.truth.values()]) < 0)
    assert wrong > 0.18
    made = tracks_of_pairs(scene.found, TrackOptions(radius=radius))
    score = score_matches(scene, *made, tolerance=radius)
    assert score.precision > precision
    assert score.recall > recall
    # Longer tracks are surer, and those that loops confirm are surest.
    sure = tracks_of_pairs(scene.found, TrackOptions(radius=radius, min_length=4))
    assert score_matches(scene, *sure, tolerance=radius).precision > score.precision
    surest = tracks_of_pairs(scene.found, TrackOptions(radius=radius, min_matches=2))
    assert score_matches(scene, *surest, tolerance=radius).precision > 0.995


def test_keypoints_are_nearer_to_the_truth_than_what_they_are_made_of() -> None:
    scene = make_scene(num_images=10, noise=0.5, outliers=0, num_points=300, num_found=250)
    made = tracks_of_pairs(scene.found, TrackOptions(radius=2.0))
    score = score_matches(scene, *made, tolerance=2.0)
    assert score.precision == 1
    assert score.offset < 0.6 * 0.5


def one_pair(*rows: tuple[float, float, float, float, float]) -> Correspondences:
    values = np.array(rows, np.float32).reshape(-1, 5)
    return Correspondences(values[:, :2].copy(), values[:, 2:4].copy(), values[:, 4].copy())


def test_a_conflict_is_decided_by_loops_then_by_score() -> None:
    # The point of a is matched with one of b; c leads to another point of b.
    found = {
        Pair("a", "b"): one_pair((10, 10, 10, 10, 0.9)),
        Pair("a", "c"): one_pair((10, 10, 10, 10, 0.8)),
        Pair("b", "c"): one_pair((50, 50, 10, 10, 0.7)),
    }
    keypoints, matches = tracks_of_pairs(found, TrackOptions())
    assert {pair: len(m) for pair, m in matches.items()} == {
        Pair("a", "b"): 1,
        Pair("a", "c"): 1,
        Pair("b", "c"): 0,
    }
    assert keypoints["b"].tolist() == [[10, 10]]
    # A fourth image that confirms the weaker link decides otherwise.
    found |= {
        Pair("b", "d"): one_pair((50, 50, 10, 10, 0.1)),
        Pair("c", "d"): one_pair((10, 10, 10, 10, 0.1)),
        Pair("a", "d"): one_pair((10, 10, 10, 10, 0.1)),
    }
    keypoints, matches = tracks_of_pairs(found, TrackOptions())
    assert keypoints["b"].tolist() == [[50, 50]]
    assert [len(matches[Pair("a", "b")]), len(matches[Pair("b", "c")])] == [0, 1]


def test_short_and_doubtful_tracks_are_dropped() -> None:
    found = {
        Pair("a", "b"): one_pair(
            (10, 10, 10, 10, 0.9), (30, 30, 30, 30, 0.9), (60, 60, 60, 60, 0.1)
        ),
        Pair("b", "c"): one_pair((10, 10, 10, 10, 0.3)),
    }
    assert len(tracks_of_pairs(found, TrackOptions())[0]["b"]) == 3
    assert tracks_of_pairs(found, TrackOptions(min_length=3))[0]["b"].tolist() == [[10, 10]]
    sure = tracks_of_pairs(found, TrackOptions(min_confidence=0.5))[0]["b"]
    assert sure.tolist() == [[10, 10], [30, 30]]
    surer = tracks_of_pairs(found, TrackOptions(min_confidence=0.7))[0]["b"]
    assert surer.tolist() == [[30, 30]]


def test_the_cap_keeps_long_tracks_and_covers_the_image() -> None:
    scene = make_scene(num_points=2000, num_found=900, noise=0.3, outliers=0.1)
    full = tracks_of_pairs(scene.found, TrackOptions())
    capped = tracks_of_pairs(scene.found, TrackOptions(max_keypoints=300))
    for name, points in capped[0].items():
        assert 200 < len(points) <= 300
        everything = {tuple(point) for point in full[0][name].tolist()}
        assert {tuple(point) for point in points.tolist()} <= everything
        assert num_cells(points) > 0.8 * num_cells(full[0][name])
    lengths = [np.bincount(tracks_in(made)[1]).mean() for made in (full, capped)]
    assert lengths[1] > lengths[0]


def num_cells(points: ArrayF32) -> int:
    return len(np.unique(np.floor(points / 60), axis=0))


def test_anchors_take_what_is_near_and_the_rest_is_free() -> None:
    found = {Pair("a", "b"): one_pair((10.5, 10, 20, 20, 1), (40, 40, 70, 70, 1))}
    anchors = {"a": np.array([[90, 90], [10, 10]], np.float32)}
    chosen = TrackOptions(anchor_radius=1.0)
    keypoints, matches = tracks_of_pairs(found, chosen, anchors)
    assert keypoints["a"].tolist() == [[10, 10], [40, 40]]
    assert keypoints["b"].tolist() == [[20, 20], [70, 70]]
    assert matches[Pair("a", "b")].indices.tolist() == [[0, 0], [1, 1]]
    keypoints, _ = tracks_of_pairs(found, replace(chosen, anchor_radius=0.1), anchors)
    assert keypoints["a"].tolist() == [[10.5, 10], [40, 40]]


def test_nothing_gives_nothing() -> None:
    assert tracks_of_pairs({}, TrackOptions()) == ({}, {})
    keypoints, matches = tracks_of_pairs(
        {Pair("a", "b"): one_pair()}, TrackOptions(max_keypoints=1)
    )
    assert [len(points) for points in keypoints.values()] == [0, 0]
    assert len(matches[Pair("a", "b")]) == 0


@settings(max_examples=20, deadline=None)
@given(some_correspondences(), options)
def test_the_size_of_steps_does_not_matter(found: Found, chosen: TrackOptions) -> None:
    expected = tracks_of_pairs(found, chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracks_graph, "_MATCHES_AT_ONCE", 3)
        patch.setattr(tracks_graph, "_NODES_AT_ONCE", 2)
        assert_equal(tracks_of_pairs(found, chosen), expected)
