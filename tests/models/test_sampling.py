from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.feature.aliked.deform_conv2d import deform_conv2d
from torch.nn import functional

from sfm_match.models import sampling
from sfm_match.models.sampling import Enlarged, corners, deformable_convolution, weighted_rows


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_weighted_rows_are_sums_of_rows() -> None:
    table = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    rows = torch.tensor([[[0, 2], [1, 1]]])
    weights = torch.tensor([[[0.5, 2.0], [1.0, -1.0]]])
    assert weighted_rows(table, rows, weights).tolist() == [[[6.5, 65.0], [0.0, 0.0]]]


@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_corners_sample_as_torch_does_with_zeros_beyond_the_map(
    width: int, height: int, seed: int
) -> None:
    image = random(height, width, 3, seed=seed)
    x, y = random(2, 40, seed=seed + 1) * 4 + torch.tensor([[width / 2], [height / 2]])
    columns, rows, weights = corners(x, y, width, height)
    found = weighted_rows(image.flatten(0, 1), rows * width + columns, weights)
    # grid_sample's -1 and 1 are the outer borders of the outermost pixels.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=1)
    expected = functional.grid_sample(
        image.movedim(2, 0)[None], grid[None, None], mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(found, expected[0, :, 0].T, atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples_at_once", [1, 100, 10**6])
def test_a_deformable_convolution_is_kornias(
    samples_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_SAMPLES_AT_ONCE", samples_at_once)
    image, moves = random(7, 9, 5), 3 * random(7, 9, 18, seed=1)
    weight, bias = random(4, 5, 3, 3, seed=2), random(4, seed=3)
    expected = deform_conv2d(
        image.movedim(2, 0)[None], moves.movedim(2, 0)[None], weight, bias, padding=1
    )
    found = deformable_convolution(image, moves, weight.permute(2, 3, 1, 0).reshape(45, 4), bias)
    torch.testing.assert_close(found, expected[0].movedim(0, 2), atol=1e-4, rtol=0)


def test_a_deformable_convolution_that_moves_nothing_is_a_convolution() -> None:
    image, weight, bias = random(6, 8, 3), random(2, 3, 3, 3, seed=1), random(2, seed=2)
    expected = functional.conv2d(image.movedim(2, 0)[None], weight, bias, padding=1)
    taps = weight.permute(2, 3, 1, 0).reshape(27, 2)
    found = deformable_convolution(image, torch.zeros(6, 8, 18), taps, bias)
    torch.testing.assert_close(found, expected[0].movedim(0, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("small", "large"),
    [((2, 3), (64, 96)), ((1, 1), (32, 32)), ((16, 4), (32, 32)), ((5, 5), (5, 5))],
)
def test_an_enlarged_map_is_torchs(small: tuple[int, int], large: tuple[int, int]) -> None:
    image = random(*small, 4)
    expected = functional.interpolate(
        image.movedim(2, 0)[None], large, mode="bilinear", align_corners=True
    )[0].movedim(0, 2)
    enlarged = Enlarged(small, large, image.device)
    for rows in (slice(0, large[0]), slice(1, 4), slice(3, 4)):
        torch.testing.assert_close(enlarged.rows(image, rows), expected[rows], atol=1e-5, rtol=0)
    grid = torch.cartesian_prod(*(torch.arange(size) for size in large))
    found = enlarged.at(image, grid[:, 0], grid[:, 1])
    torch.testing.assert_close(found, expected.flatten(0, 1), atol=1e-5, rtol=0)
