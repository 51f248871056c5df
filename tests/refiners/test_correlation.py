from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfm_match.io.images import read_image
from sfm_match.models.correlation import at, descriptor_map, find
from sfm_match.spec import Spec
from sfm_match.types import Correspondences, View
from sfm_match.weights import WeightsError
from tests.loftr_matching import build, run
from tests.loftr_weights import random_network
from tests.photographs import fountain, sampson_pixels

pytestmark = pytest.mark.usefixtures("one_thread")


def smooth_map(shift: float) -> torch.Tensor:
    """Return vectors (C, h, w) that turn slowly from place to place, moved by `shift`."""
    y, x = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    x, y = x - shift, y + shift / 2
    waves = torch.randn(48, 2, generator=torch.Generator().manual_seed(0)) * 0.5
    phase = waves[:, :1, None] * x + waves[:, 1:, None] * y
    return torch.cat([phase.sin(), phase.cos()])


@pytest.mark.parametrize("shift", [0.0, 0.3, -0.75, 2.5])
def test_a_descriptor_is_found_where_it_is(shift: float) -> None:
    first, second = descriptor_map(smooth_map(0.0)), descriptor_map(smooth_map(shift))
    places = torch.tensor([[15.0, 12.0], [20.5, 17.25], [23.0, 9.0]])
    found = find(at(first, places), second, places, 4, 1, 0.1)
    moves = torch.tensor([shift, -shift / 2])
    torch.testing.assert_close(found.positions, places + moves, atol=0.1, rtol=0)
    assert (found.similarity > 0.95).all()
    assert (found.spread < 1.2).all()
    # Nothing alike: the heat map is spread out.
    other = torch.randn(96, 30, 40, generator=torch.Generator().manual_seed(1))
    assert (find(at(first, places), descriptor_map(other), places, 4, 1, 0.5).spread > 2).all()


def test_nothing_is_found_beyond_the_map() -> None:
    descriptors = descriptor_map(smooth_map(0.0))
    places = torch.tensor([[0.0, 0.0], [39.0, 29.0]])
    found = find(at(descriptors, places), descriptors, places, 3, 2, 0.02).positions
    assert (found >= 0).all()
    assert (found <= torch.tensor([39.0, 29.0])).all()


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save({"model_state_dict": random_network(coarse_16=True).state_dict()}, path)
    return str(path)


def refiner_of(weights: str, **options: Any) -> Any:
    return Spec.parse("refiners", "correlation", {"weights": weights, **options}).build()


def test_a_shifted_picture(test_data: Path) -> None:
    picture = read_image(test_data / "fountain-P11" / "images" / "0003.jpg").pixels[
        200:464, 300:628
    ]
    images = picture[:256, :320], picture[8:, 8:]  # by two steps of the map
    refiner = refiner_of("coarse-16")
    a, b = (refiner.encode(View(image, None)) for image in images)
    rng = np.random.default_rng(0)
    points0 = rng.uniform(60, 190, (80, 2)).astype(np.float32)
    points1 = points0 - 8 + rng.uniform(-5, 5, points0.shape)
    coarse = Correspondences(points0, points1.astype(np.float32), np.ones(80, np.float32))
    (found,) = refiner.refine([(a, b, coarse)])
    assert len(found) > 40
    errors = np.linalg.norm(found.points1 - found.points0 + 8, axis=1)
    assert np.median(errors) < 0.25 * np.median(np.linalg.norm(points1 - points0 + 8, axis=1))
    assert (found.scores > 0).all()
    assert (found.scores <= 1).all()
    # In the other order, the same.
    (back,) = refiner.refine([(b, a, coarse.flipped())])
    np.testing.assert_allclose(back.points1, found.points0, atol=1e-3)
    # Both points take part.
    assert np.abs(found.points0[:, None] - points0).max(axis=2).min(axis=1).max() > 0.5
    (every,) = refiner_of("coarse-16", keep_failed=True).refine([(a, b, coarse)])
    failed = every.scores == 0
    assert np.count_nonzero(~failed) == len(found)
    np.testing.assert_array_equal(every.points1[failed], coarse.points1[failed])
    nothing = Correspondences(points0[:0], points0[:0], coarse.scores[:0])
    assert len(refiner.refine([(a, b, nothing)])[0]) == 0


def test_weights_of_another_network(weights_file: str) -> None:
    with pytest.raises(WeightsError, match="not a checkpoint of R2D2"):
        refiner_of(weights_file, network="r2d2")
    with pytest.raises(ValueError, match="this view has none"):
        refiner_of(weights_file).encode(View(None, None))


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"weights": "coarse-16"}, 1.2),
        ({"network": "aliked", "weights": "aliked-n16"}, 0.4),
        pytest.param({"network": "r2d2", "weights": "r2d2-wasf-n16"}, 0.25, marks=pytest.mark.slow),
    ],
)
def test_photographs(test_data: Path, options: dict[str, Any], limit: float) -> None:
    folder = test_data / "fountain-P11"
    images = fountain(folder, 0, 1)
    coarse = run(build("coarse-16", threshold=0.1), *images)
    refiner = Spec.parse("refiners", "correlation", options).build()
    a, b = (refiner.encode(View(image, None)) for image in images)
    (found,) = refiner.refine([(a, b, coarse)])
    assert len(found) > 0.6 * len(coarse)
    assert np.median(sampson_pixels(folder, coarse, 0, 1)) > 2
    assert np.median(sampson_pixels(folder, found, 0, 1)) < limit
    # What is more certain is more precise.
    errors = sampson_pixels(folder, found, 0, 1)
    certain = found.scores > np.median(found.scores)
    assert np.median(errors[certain]) < np.median(errors[~certain])
