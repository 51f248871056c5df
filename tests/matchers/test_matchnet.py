from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfm_match.matchers import matchnet
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import Features, Matches, View
from tests.matchnet_weights import (
    BOTTLENECK,
    distance_network,
    distance_weights,
    random_network,
    write,
)

torch.set_num_threads(1)

WEIGHTS = str(distance_weights())


def features(num: int, seed: int = 0, size: int = BOTTLENECK) -> Features:
    rng = np.random.default_rng(seed)
    return Features(
        keypoints=rng.uniform(0, 100, (num, 2)).astype(np.float32),
        scores=np.ones(num, np.float32),
        descriptors=rng.normal(0, 0.003, (num, size)).astype(np.float16),
        image_size=np.array([100, 100], np.int32),
    )


def pair(num: int = 60) -> tuple[Features, Features]:
    """Return features of which row i of the first is row num - 1 - i of the second, and others."""
    left = features(num + 20)
    noise = np.random.default_rng(1).normal(0, 0.0005, left.descriptors.shape)
    right = dataclasses.replace(left, descriptors=(left.descriptors + noise).astype(np.float16))
    rows = np.arange(num)[::-1]
    return left, right.take(rows)


def match(a: Features, b: Features, **options: Any) -> Matches:
    matcher = Spec.parse("matchers", "matchnet", {"weights": WEIGHTS} | options).build()
    (found,) = matcher.match([(matcher.encode(View(None, a)), matcher.encode(View(None, b)))])
    assert isinstance(found, Matches)
    return found


# --- what it finds --------------------------------------------------------------------------------


def test_partners_are_found_and_others_left_out() -> None:
    found = match(*pair())
    assert found.indices.tolist() == [[i, 59 - i] for i in range(60)]
    assert (found.scores > 0.9).all()


@torch.inference_mode()
def test_all_pairs_are_the_plain_networks_mutual_best(tmp_path: Path) -> None:
    network = random_network(24, 48)
    path = str(write(network, tmp_path / "weights"))
    a, b = (features(num, num, size=24) for num in (50, 40))
    left, right = (torch.from_numpy(side.descriptors).float() for side in (a, b))
    rows, columns = torch.cartesian_prod(torch.arange(50), torch.arange(40)).unbind(1)
    there = torch.cat([left[rows], right[columns]], dim=1)
    back = torch.cat([right[columns], left[rows]], dim=1)
    both = [torch.softmax(network.metric(pairs), dim=1)[:, 1] for pairs in (there, back)]
    expected = ((both[0] + both[1]) / 2).view(50, 40)
    best = [(i, int(expected[i].argmax())) for i in range(50)]
    mutual = [(i, j) for i, j in best if int(expected[:, j].argmax()) == i]
    found = match(a, b, weights=path, exhaustive=True, min_probability=0)
    assert len(mutual) > 5
    assert [tuple(row) for row in found.indices] == mutual
    wanted = [float(expected[i, j]) for i, j in mutual]
    np.testing.assert_allclose(found.scores, wanted, rtol=0, atol=1e-5)
    # With as many candidates as there are, it is the same.
    same = match(a, b, weights=path, num_candidates=50, min_probability=0)
    np.testing.assert_array_equal(same.indices, found.indices)
    one_sided = match(a, b, weights=path, exhaustive=True, min_probability=0, mutual=False)
    assert [tuple(row) for row in one_sided.indices] == best
    middle = float(np.median(found.scores))
    few = match(a, b, weights=path, exhaustive=True, min_probability=middle)
    np.testing.assert_array_equal(few.indices, found.indices[found.scores >= middle])


def test_the_blocks_of_all_pairs_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair()
    expected = match(a, b, exhaustive=True)
    monkeypatch.setattr(matchnet, "_PAIRS_AT_ONCE", 170)  # two rows and something
    found = match(a, b, exhaustive=True)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_a_shorter_descriptor_may_find_the_candidates() -> None:
    a, b = pair()
    found = match(a, b, candidate_size=32)
    assert found.indices.tolist() == match(a, b, candidate_size=0).indices.tolist()


def test_equal_descriptors_are_matched_once() -> None:
    a, b = pair(30)
    twice = np.repeat(np.arange(30), 2)
    found = match(a.take(twice), b.take(twice))
    assert len(found) == 30
    assert len(np.unique(found.indices[:, 0])) == len(np.unique(found.indices[:, 1])) == 30


def test_descriptors_that_are_not_finite_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    a, b = pair()
    broken = a.descriptors.copy()
    broken[0, 5], broken[7] = np.nan, np.inf
    with caplog.at_level(logging.WARNING, "sfm_match"):
        found = match(dataclasses.replace(a, descriptors=broken), b)
    assert found.indices.tolist() == [[i, 59 - i] for i in range(60) if i not in (0, 7)]
    assert "matchnet: 2 of 80 descriptors are not finite: ignored" in caplog.text
    assert len(match(dataclasses.replace(a, descriptors=np.full_like(broken, np.nan)), b)) == 0


# --- what it is asked for -------------------------------------------------------------------------


def test_its_weights_are_the_extractors_unless_named(tmp_path: Path) -> None:
    extractor = Spec.parse("extractors", "matchnet", {"weights": WEIGHTS})
    spec = Spec.parse("matchers", "matchnet", {}, (extractor,))
    assert spec.weights == extractor.weights
    found = spec.build()
    assert len(found.encode(View(None, features(3))).rows) == 3
    other = distance_network()
    other.get_parameter("metric.4.bias").data += 0.1
    named = {"weights": str(write(other, tmp_path / "other"))}
    assert Spec.parse("matchers", "matchnet", named, (extractor,)).fingerprint != spec.fingerprint


def test_features_of_another_extractor_are_refused() -> None:
    sift = Spec.parse("extractors", "sift")
    message = "not those of 'sift': .* features.name=matchnet with features.detector.name=sift"
    with pytest.raises(ConfigError, match=message):
        Spec.parse("matchers", "matchnet", {"weights": WEIGHTS}, (sift,))


def test_descriptors_of_another_size_are_refused() -> None:
    message = f"are for descriptors of {BOTTLENECK} numbers, these have 64"
    with pytest.raises(ConfigError, match=message):
        match(features(5, size=64), features(5, size=64))


def test_without_weights_it_says_where_to_name_them() -> None:
    with pytest.raises(ConfigError, match="which extractor feeds it, or a file of weights"):
        Spec.parse("matchers", "matchnet").build()
