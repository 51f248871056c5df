from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match import Recipe
from sfm_match.geometry.raster import shrink
from sfm_match.io.images import read_image
from sfm_match.matchers import graph, nearest
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import ArrayF64, Features, Matches, View

SIZE = np.array([1000, 800], np.int32)


def features(
    points: ArrayF64, descriptors: ArrayF64, angle: float | None = None, scale: float = 1.0
) -> Features:
    num = len(points)
    rng = np.random.default_rng(len(points))
    return Features(
        keypoints=points.astype(np.float32),
        scores=np.ones(num, np.float32),
        descriptors=descriptors.astype(np.float32),
        image_size=SIZE,
        scales=None if angle is None else (scale * rng.uniform(1, 8, num)).astype(np.float32),
        orientations=None
        if angle is None
        else (rng.uniform(-3, 3, num) + angle).astype(np.float32),
    )


def warp(points: ArrayF64) -> ArrayF64:
    """A smooth map that no single affine one describes."""
    x, y = points.T / 400
    return np.column_stack([points[:, 0] + 40 * np.sin(2 * y), points[:, 1] * (1 + 0.1 * x)])


def scene(num: int = 500, repeats: int = 4, seed: int = 0) -> tuple[Features, Features]:
    """Return two images of `num` points and as many outliers; each descriptor appears on several
    points, so that descriptors alone find one in `repeats`. Row i corresponds to row i."""
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(num // repeats, 32))
    shared = kinds[rng.integers(len(kinds), size=num)]
    points = rng.uniform((0, 0), SIZE, (2 * num, 2))
    points1 = warp(points) + rng.normal(size=points.shape)
    points1[num:] = rng.uniform((0, 0), SIZE, (num, 2))
    sides = []
    for at in (points, points1):
        d = np.concatenate([shared, rng.normal(size=(num, 32))])
        d = d + 0.25 * rng.normal(size=d.shape)
        sides.append(features(at, d / np.linalg.norm(d, axis=1, keepdims=True)))
    return sides[0], sides[1]


def match(a: Features, b: Features, **options: Any) -> Matches:
    matcher = Spec.parse("matchers", "graph", options).build()
    (found,) = matcher.match([(matcher.encode(View(None, a)), matcher.encode(View(None, b)))])
    assert isinstance(found, Matches)
    for rows in found.indices.T.tolist():
        assert len(set(rows)) == len(rows)
    return found


def as_set(matches: Matches) -> set[tuple[int, int]]:
    return {(i, j) for i, j in matches.indices.tolist()}


def right(matches: Matches, num: int = 500) -> int:
    rows0, rows1 = matches.indices.T
    return int(np.count_nonzero((rows0 == rows1) & (rows0 < num)))


# --- what it is for -------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["spectral", "cascade"])
def test_neighbours_decide_where_descriptors_cannot(solver: str) -> None:
    a, b = scene(repeats=3)
    matcher = nearest.build(nearest.Config(), "cpu", ())
    (mutual,) = matcher.match([(matcher.encode(View(None, a)), matcher.encode(View(None, b)))])
    found = match(a, b, solver=solver, num_candidates=4)
    assert right(mutual) < 250
    assert right(mutual) / len(mutual) < 0.45
    assert right(found) > 400
    assert right(found) / len(found) > (0.8 if solver == "spectral" else 0.95)


def test_the_cascade_is_more_precise_than_the_spectral_stage() -> None:
    a, b = scene()
    precision = {
        name: right(found) / len(found)
        for name, found in (
            ("spectral", match(a, b, solver="spectral")),
            ("cascade", match(a, b)),
        )
    }
    assert precision["cascade"] > precision["spectral"] + 0.02


@given(st.integers(0, 1000), st.floats(-180, 180), st.floats(0.3, 3))
@settings(max_examples=6, deadline=None)
def test_turning_and_scaling_an_image_changes_nothing(
    seed: int, degrees: float, scale: float
) -> None:
    a, b = scene(200, seed=seed)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    moved = (b.keypoints - 400) @ np.array([[c, s], [-s, c]]) * scale + 400
    other = dataclasses.replace(b, keypoints=moved.astype(np.float32))
    before, after = as_set(match(a, b)), as_set(match(a, other))
    # Votes fall into other bins of the prior's histogram.
    assert len(before & after) >= 0.93 * len(before | after)


def test_scales_and_orientations_are_compared_with_the_prior() -> None:
    a, b = scene(300, repeats=6)
    plain = match(a, b)
    a = features(a.keypoints.astype(float), a.descriptors.astype(float), angle=0.0)
    points = b.keypoints.astype(float)
    quarter = np.column_stack([-points[:, 1], points[:, 0]]) * 2
    b = features(quarter, b.descriptors.astype(float), angle=np.pi / 2, scale=2)
    oriented = match(a, b)
    assert right(oriented, 300) > right(plain, 300)
    assert right(oriented, 300) / len(oriented) > 0.97


# --- properties -----------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.sampled_from(["spectral", "cascade"]))
@settings(max_examples=6, deadline=None)
def test_swapping_the_images_swaps_the_matches(seed: int, solver: str) -> None:
    a, b = scene(200, seed=seed)
    there, back = as_set(match(a, b, solver=solver)), match(b, a, solver=solver)
    assert len(there & as_set(back.flipped())) >= 0.95 * max(len(there), len(back))


@given(st.integers(0, 1000))
@settings(max_examples=6, deadline=None)
def test_permuting_keypoints_permutes_the_matches(seed: int) -> None:
    a, b = scene(200, seed=seed)
    rng = np.random.default_rng(seed)
    order0, order1 = rng.permutation(len(a)), rng.permutation(len(b))
    permuted = match(a.take(order0), b.take(order1))
    back = {(int(order0[i]), int(order1[j])) for i, j in as_set(permuted)}
    expected = as_set(match(a, b))
    assert len(back & expected) >= 0.98 * len(back | expected)


def test_scores_are_probabilities_in_descending_order() -> None:
    found = match(*scene())
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() > 0.3
    assert found.scores.max() <= 1
    spectral = match(*scene(), solver="spectral")
    assert spectral.scores[0] == 1
    assert spectral.scores.min() > 0


# --- wrong and small input ------------------------------------------------------------------------


def matches_itself(points: ArrayF64) -> set[tuple[int, int]]:
    rng = np.random.default_rng(0)
    descriptors = rng.normal(size=(len(points), 16))
    one = features(points, descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True))
    return as_set(match(one, one))


@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_few_keypoints(num: int) -> None:
    found = matches_itself(np.random.default_rng(1).uniform(0, 100, (num, 2)))
    assert found == {(i, i) for i in range(num)}


def test_collinear_and_coinciding_keypoints() -> None:
    along = np.arange(80.0)
    assert len(matches_itself(np.column_stack([along, 3 * along]))) > 75
    assert len(matches_itself(np.column_stack([along, 0 * along]))) > 75
    assert len(matches_itself(np.full((60, 2), 7.0))) > 55
    # Two keypoints at each place, as SIFT has with two orientations.
    points = np.random.default_rng(2).uniform(0, 500, (60, 2))
    assert len(matches_itself(np.repeat(points, 2, axis=0))) > 114


def test_descriptors_that_are_not_finite_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    a, b = scene(200)
    broken = a.descriptors.copy()
    broken[[3, 50]] = np.nan
    broken[70, 0] = np.inf
    rest = np.delete(np.arange(len(a)), [3, 50, 70])
    with caplog.at_level(logging.WARNING, "sfm_match"):
        found = match(dataclasses.replace(a, descriptors=broken), b)
    assert "3 of 400 descriptors are not finite" in caplog.text
    expected = {(int(rest[i]), j) for i, j in as_set(match(a.take(rest), b))}
    assert as_set(found) == expected
    assert len(match(dataclasses.replace(a, descriptors=broken * np.nan), b)) == 0


def test_descriptors_of_unrelated_images_give_few_matches() -> None:
    rng = np.random.default_rng(5)
    sides = [
        features(rng.uniform((0, 0), SIZE, (800, 2)), rng.normal(size=(800, 64))) for _ in range(2)
    ]
    matcher = nearest.build(nearest.Config(), "cpu", ())
    (mutual,) = matcher.match(
        [(matcher.encode(View(None, sides[0])), matcher.encode(View(None, sides[1])))]
    )
    assert len(mutual) > 150
    assert len(match(sides[0], sides[1])) < 0.1 * len(mutual)


def test_the_fallback_appends_neighbours_that_contradict_nothing() -> None:
    rng = np.random.default_rng(5)
    a, b = (
        features(rng.uniform((0, 0), SIZE, (300, 2)), rng.normal(size=(300, 64))) for _ in range(2)
    )
    plain, more = match(a, b), match(a, b, fallback_below=60)
    assert len(plain) < 20
    assert len(more) > 60
    assert as_set(plain) < as_set(more)
    np.testing.assert_array_equal(more.scores[len(plain) :], 0)
    assert as_set(match(*scene(), fallback_below=60)) == as_set(match(*scene()))


# --- candidates of another matcher ----------------------------------------------------------------


def test_the_matches_of_another_matcher_are_refined() -> None:
    a, b = scene(repeats=2)
    matcher = nearest.build(nearest.Config(), "cpu", ())
    (mutual,) = matcher.match([(matcher.encode(View(None, a)), matcher.encode(View(None, b)))])
    found = match(a, b, candidates="nearest")
    assert as_set(found) < as_set(mutual)
    assert right(found) > 0.9 * right(mutual)
    wrong = {name: len(m) - right(m) for name, m in (("before", mutual), ("after", found))}
    assert wrong["after"] < 0.25 * wrong["before"]
    empty = a.take(np.arange(0))
    assert len(match(empty, b, candidates="nearest")) == 0


def test_the_matcher_of_candidates_is_part_of_the_fingerprint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = Spec.parse("matchers", "graph", {"candidates": "nearest"})
    again = Spec.parse("matchers", "graph", {"candidates": spec.config["candidates"]})
    assert again.fingerprint == spec.fingerprint != Spec.parse("matchers", "graph").fingerprint
    monkeypatch.setattr(nearest, "VERSION", 99)
    assert Spec.parse("matchers", "graph", {"candidates": "nearest"}).fingerprint != (
        spec.fingerprint
    )


@pytest.mark.parametrize("name", ["loftr", "graph"])
def test_candidates_come_from_matchers_of_features(name: str) -> None:
    with pytest.raises(ConfigError, match=f"a matcher that matches features .* got '{name}'"):
        Recipe.load("sift+graph", f"matcher.candidates={name}")
    with pytest.raises(ConfigError, match="no matcher named 'nearst'; did you mean 'nearest'"):
        Recipe.load("sift+graph", "matcher.candidates=nearst")


# --- photographs ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_turned_and_scaled_photographs_match_as_well(test_data: Path) -> None:
    pictures = test_data / "rotations"
    extractor = Spec.parse("extractors", "sift", {"max_keypoints": 1000}).build()
    left, upright, quarter, half = (
        read_image(pictures / f"sacre_coeur_{name}.jpg").pixels
        for name in ("A", "B", "B90", "B180")
    )
    a, b = extractor(left), extractor(upright)
    num = len(match(a, b))
    assert num > 150
    for other in (quarter, half):
        assert 0.9 * num <= len(match(a, extractor(other))) <= 1.1 * num
    # Of a smaller picture SIFT finds fewer and other keypoints: it is their share that stays.
    small = [extractor(shrink(p, round(0.6 * max(p.shape)))) for p in (upright, quarter, half)]
    share = sum(len(match(a, found)) for found in small) / sum(map(len, small))
    assert 0.9 * num / len(b) <= share <= 1.1 * num / len(b)


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_same() -> None:
    a, b = scene()
    matcher = graph.build(graph.Config(), "cuda", ())
    (found,) = matcher.match([(matcher.encode(View(None, a)), matcher.encode(View(None, b)))])
    expected = as_set(match(a, b))
    assert len(as_set(found) & expected) >= 0.98 * len(as_set(found) | expected)
