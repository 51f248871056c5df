"""The losses that the paper does not have, against loops over single points."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from sfm_match.models.r2d2_losses import (
    average_precision,
    average_precision_of_one,
    position_loss,
)
from tests.models.test_r2d2_losses import SEEDS, seeded, still


def bump(height: int, width: int, x: float, y: float, spread: float = 0.8) -> Tensor:
    """Logits with a single peak at corner-origin (x, y): the logarithm of a Gaussian."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    away = (columns.double() + 0.5 - x) ** 2 + (rows.double() + 0.5 - y) ** 2
    return (-away / (2 * spread**2))[None]


@given(st.floats(-1.4, 1.4), st.floats(-1.4, 1.4), st.floats(5.1, 5.9), st.floats(5.1, 5.9))
@settings(max_examples=40, deadline=None)
def test_peaks_at_corresponding_positions_cost_nothing_wherever_in_the_pixel_they_are(
    dx: float, dy: float, x: float, y: float
) -> None:
    flow = still(1, 12, 12) + torch.tensor([dx, dy], dtype=torch.float64)
    there = bump(12, 12, x + dx, y + dy)
    assert position_loss(bump(12, 12, x, y), there, flow, 1).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("away", [0.3, 0.7, 1.5])
def test_peaks_beside_the_corresponding_positions_cost_the_more_the_farther(away: float) -> None:
    here = bump(12, 12, 5.5, 6.5)
    costs = [
        position_loss(here, bump(12, 12, 5.5 + x, 6.5), still(1, 12, 12), 1).item()
        for x in (0, away / 2, away)
    ]
    assert costs[0] < costs[1] < costs[2]
    # The divergence of two Gaussians of one width.
    assert costs[2] == pytest.approx(away**2 / (2 * 0.8**2), rel=0.1)


def test_a_position_is_carried_by_the_flow_around_it() -> None:
    """Twice as large there: a third of a pixel becomes two thirds."""
    flow = (still(1, 12, 12) - 6) * 2 + 12
    here, there = bump(12, 12, 6.8, 5.8), bump(24, 24, 13.6, 11.6)
    assert position_loss(here, there, flow, 1).item() == pytest.approx(0, abs=1e-9)


def test_a_flat_map_costs_what_the_divergence_from_nothing_is() -> None:
    here, flat = bump(12, 12, 5.5, 5.5), torch.zeros(1, 12, 12, dtype=torch.float64)
    weights = [math.exp(-(x**2 + y**2) / (2 * 0.8**2)) for x in range(-3, 4) for y in range(-3, 4)]
    shares = [weight / sum(weights) for weight in weights]
    expected = sum(share * math.log(share * 49) for share in shares)
    assert position_loss(here, flat, still(1, 12, 12), 1).item() == pytest.approx(expected)


def test_only_the_highest_peaks_that_the_second_image_shows_count() -> None:
    low, high, unseen = bump(24, 24, 5.5, 5.5) + 20, bump(24, 24, 17.5, 5.5), bump(24, 24, 12, 18)
    here = torch.logaddexp(torch.logaddexp(low - 22, high), unseen + 5)
    flow = still(1, 24, 24)
    flow[0, 14:] = torch.nan
    there = bump(24, 24, 17.5, 5.5)  # nothing at the others
    assert position_loss(here, there, flow, 1).item() < 0.01
    assert position_loss(here, there, flow, 2).item() > 0.5


def test_pictures_without_common_pixels_cost_nothing() -> None:
    flow = torch.full((1, 12, 12, 2), torch.nan, dtype=torch.float64)
    logits = torch.randn(1, 12, 12, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    loss = position_loss(logits, logits, flow, 10)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_gradients_of_the_position_loss() -> None:
    here = torch.randn(2, 12, 12, generator=seeded(1), dtype=torch.float64)
    there = torch.randn(2, 12, 12, generator=seeded(2), dtype=torch.float64, requires_grad=True)
    flow = still(2, 12, 12) + 0.3
    assert gradcheck(lambda logits: position_loss(here, logits, flow, 5), (there,))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 25), st.floats(-0.6, 0.9))
def test_the_precision_of_queries_with_one_partner_is_the_general_one(
    seed: int, num_bins: int, bias: float
) -> None:
    noise = torch.rand(6, 9, generator=seeded(seed), dtype=torch.float64) - 0.5
    similarities = (bias + noise).clamp(-1, 1)
    positive = torch.zeros(6, 9, dtype=torch.bool)
    positive[:, 0] = True
    negative = torch.rand(6, 9, generator=seeded(seed + 1)) < 0.7
    negative[:, 0] = False
    expected = average_precision(similarities, positive, negative, num_bins)
    found = average_precision_of_one(
        similarities[:, 0], similarities[:, 1:], negative[:, 1:], num_bins
    )
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_gradients_of_the_precision_of_one_partner() -> None:
    similarity = torch.tensor([0.93, 0.41, 0.02], dtype=torch.float64, requires_grad=True)
    others = torch.rand(3, 7, generator=seeded(5), dtype=torch.float64) * 2 - 1
    negative = torch.ones(3, 7, dtype=torch.bool)
    others.requires_grad_()
    assert gradcheck(
        lambda a, b: average_precision_of_one(a, b, negative), (similarity, others), eps=1e-7
    )
