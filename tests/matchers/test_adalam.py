from __future__ import annotations

import dataclasses
import logging
from functools import cache

import numpy as np
import pytest
import torch
from kornia.feature import laf_from_center_scale_ori, match_adalam

from sfm_match.matchers import adalam
from sfm_match.spec import Spec
from sfm_match.types import Features, Matches, View
from tests.pictures import noise_picture


@cache
def sides() -> tuple[Features, Features]:
    extractor = Spec.parse("extractors", "sift").build()
    image = noise_picture(200, 320)
    return extractor(image[:, :240]), extractor(image[:, 80:])


def match(a: Features, b: Features, config: adalam.Config | None = None) -> Matches:
    matcher = adalam.build(config or adalam.Config(), "cpu", ())
    (found,) = matcher.match([(matcher.encode(View(None, a)), matcher.encode(View(None, b)))])
    return found


def lafs(features: Features) -> torch.Tensor:
    assert features.scales is not None
    assert features.orientations is not None
    # kornia's LAFs count degrees the other way round; only their differences matter.
    return laf_from_center_scale_ori(
        torch.from_numpy(features.keypoints)[None],
        torch.from_numpy(features.scales)[None, :, None, None],
        torch.from_numpy(-np.degrees(features.orientations))[None, :, None],
    )


def test_it_finds_what_kornias_function_finds() -> None:
    a, b = sides()
    descriptors = [
        torch.nn.functional.normalize(torch.from_numpy(f.descriptors).float(), dim=1)
        for f in (a, b)
    ]
    sizes = [f.image_size.tolist() for f in (a, b)]
    _, expected = match_adalam(
        descriptors[0], descriptors[1], lafs(a), lafs(b), hw1=sizes[0], hw2=sizes[1]
    )
    found = match(a, b)
    pairs = {(i, j) for i, j in expected.tolist()}
    # Matches of several keypoints to one are left out; rounding of angles decides a few.
    assert len(pairs) > 150
    assert len({tuple(row) for row in found.indices.tolist()} ^ pairs) <= 0.03 * len(pairs)


def test_scores_are_shares_of_inliers_above_chance() -> None:
    found = match(*sides())
    assert found.scores.min() >= 1 - 1 / 200
    assert found.scores.max() <= 1


def test_without_seeds_a_ratio_test_is_left() -> None:
    found = match(*sides(), adalam.Config(min_inliers=100_000))
    assert len(found) > 150
    # One less the ratio of the squared distances, which is at most 0.95.
    assert 0.05 <= found.scores.min() < 0.5
    assert len(set(found.indices[:, 1].tolist())) == len(found)


@pytest.mark.parametrize("with_scales", [False, True])
def test_features_without_orientations(with_scales: bool) -> None:
    a, b = (
        dataclasses.replace(side, orientations=None, scales=side.scales if with_scales else None)
        for side in sides()
    )
    found = match(a, b)
    away = a.keypoints[found.indices[:, 0]] - b.keypoints[found.indices[:, 1]] - [80, 0]
    assert np.count_nonzero(np.linalg.norm(away, axis=1) < 2) > 150


def test_descriptors_that_are_not_finite_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    a, b = sides()
    broken = a.descriptors.copy()
    broken[[0, 10]] = np.nan
    with caplog.at_level(logging.WARNING, "sfm_match"):
        found = match(dataclasses.replace(a, descriptors=broken), b)
    assert f"2 of {len(a)} descriptors are not finite" in caplog.text
    rest = np.delete(np.arange(len(a)), [0, 10])
    expected = match(a.take(rest), b)
    np.testing.assert_array_equal(found.indices[:, 0], rest[expected.indices[:, 0]])
    np.testing.assert_array_equal(found.indices[:, 1], expected.indices[:, 1])
