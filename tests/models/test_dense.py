"""What the networks say of all pixels is what the plain networks say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from sfm_match import weights
from sfm_match.models import aliked, r2d2
from sfm_match.models.dense import STEP, DenseMaps
from sfm_match.types import Image
from tests.components import parse
from tests.pictures import noise_picture

GREY = noise_picture(96, 128)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)


def dense(name: str, image: Image, **options: Any) -> DenseMaps:
    found: DenseMaps = parse("extractors", name, **options).build().dense(image)
    return found


@pytest.mark.parametrize("resize", [0, 64])
def test_r2d2s_maps_are_those_of_its_network(resize: int) -> None:
    found = dense("r2d2", COLOUR, precision="fp32", resize=resize)
    side = 64 if resize else 128
    assert found.maps["reliability"].shape == (side * 3 // 4, side)
    assert found.descriptors.shape == (side * 3 // 8, side // 2, 128)
    if resize:
        return
    network = r2d2.load_network(weights.find("r2d2-wasf-n16"))
    values = torch.from_numpy(COLOUR).movedim(2, 0)[None].float() / 255
    with torch.inference_mode():
        expected = network(r2d2.normalised(values))
    for name in ("reliability", "repeatability"):
        plain = getattr(expected, name)[0].numpy()
        np.testing.assert_allclose(found.maps[name], plain, atol=2e-4)
    descriptors = expected.descriptors[0, :, ::STEP, ::STEP].movedim(0, 2).numpy()
    np.testing.assert_allclose(found.descriptors, descriptors, atol=1e-4)


def test_alikeds_maps_are_those_of_its_network() -> None:
    found = dense("aliked", COLOUR)
    network = aliked.load_network(weights.find("aliked-n16"))
    values = torch.from_numpy(COLOUR).movedim(2, 0)[None].float() / 255
    with torch.inference_mode():
        features, scores = network.extract_dense_map(values)
    np.testing.assert_allclose(found.maps["score"], scores[0, 0].numpy(), atol=1e-4)
    normalised = functional.normalize(features, dim=1)[0, :, ::STEP, ::STEP].movedim(0, 2)
    np.testing.assert_allclose(found.descriptors, normalised.numpy(), atol=1e-3)


@pytest.mark.parametrize("name", ["r2d2", "aliked"])
def test_grey_and_odd_pictures_have_maps(name: str) -> None:
    found = dense(name, GREY[:51, :67])
    assert found.descriptors.shape[:2] == (26, 34)
    assert all(values.shape == (51, 67) for values in found.maps.values())
    lengths = np.linalg.norm(found.descriptors, axis=2)
    np.testing.assert_allclose(lengths, 1, atol=1e-3)
