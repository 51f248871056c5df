from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from sfm_match.models.r2d2_losses import (
    average_precision,
    cosine_loss,
    peakiness_loss,
    reliability_loss,
    seen,
    warped,
)

SEEDS = st.integers(0, 10_000)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def still(num: int, height: int, width: int) -> Tensor:
    """The flow of images that do not move."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack([x, y], dim=2) + 0.5).double().expand(num, -1, -1, -1).clone()


def random_flow(seed: int, num: int, height: int, width: int) -> Tensor:
    noise = torch.randn(num, height, width, 2, generator=seeded(seed), dtype=torch.float64)
    flow = still(num, height, width) + 2 * noise
    flow[torch.rand(num, height, width, generator=seeded(seed + 1)) < 0.1] = torch.nan
    return flow


# --- warping --------------------------------------------------------------------------------------


def value_at(values: Tensor, x: float, y: float) -> float:
    """Bilinear, zeros beyond the border; x and y in corner-origin pixels."""
    total = 0.0
    height, width = values.shape
    for row in (int(np.floor(y - 0.5)), int(np.floor(y - 0.5)) + 1):
        for column in (int(np.floor(x - 0.5)), int(np.floor(x - 0.5)) + 1):
            if 0 <= row < height and 0 <= column < width:
                share = (1 - abs(y - 0.5 - row)) * (1 - abs(x - 0.5 - column))
                total += share * float(values[row, column])
    return total


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_warping_is_that_of_one_point_after_the_other(seed: int) -> None:
    maps = torch.rand(2, 1, 7, 9, generator=seeded(seed), dtype=torch.float64)
    flow = random_flow(seed, 2, 5, 6)
    found, mask = warped(maps, flow)[:, 0], seen(flow, 7, 9)
    for n in range(2):
        for y in range(5):
            for x in range(6):
                u, v = flow[n, y, x].tolist()
                expected = 0.0 if np.isnan(u) else value_at(maps[n, 0], u, v)
                assert found[n, y, x].item() == pytest.approx(expected, abs=1e-9)
                inside = 0 < u < 9 and 0 < v < 7
                assert mask[n, y, x].item() == inside


# --- repeatability --------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_mean", [False, True])
def test_cosine_loss_is_that_of_patches_one_by_one(zero_mean: bool) -> None:
    a, b = torch.rand(2, 2, 12, 16, generator=seeded(3), dtype=torch.float64)
    flow = random_flow(4, 2, 12, 16)
    flow[0, :4, :4] = torch.nan  # patches that are not seen, or hardly
    there, mask = warped(b[:, None], flow)[:, 0], seen(flow, 12, 16)
    cosines = []
    for n in range(2):
        for top in range(0, 12 - 4 + 1, 2):
            for left in range(0, 16 - 4 + 1, 2):
                patch = n, slice(top, top + 4), slice(left, left + 4)
                valid = mask[patch]
                u, v = a[patch][valid], there[patch][valid]
                if len(u) < 4:
                    continue
                if zero_mean:
                    u, v = u - u.mean(), v - v.mean()
                length = u.norm() * v.norm()
                cosines.append((u @ v / length).item() if length > 0 else 0.0)
    assert 40 < len(cosines) < 2 * 5 * 7
    found = cosine_loss(a, b, flow, 4, zero_mean)
    assert found.item() == pytest.approx(1 - np.mean(cosines), abs=1e-9)


def test_equal_maps_agree_and_constant_ones_only_if_their_mean_counts() -> None:
    flow = still(1, 16, 16)
    a = torch.rand(1, 16, 16, generator=seeded(5), dtype=torch.float64)
    assert cosine_loss(a, a, flow, 8).item() == pytest.approx(0, abs=1e-9)
    constant = torch.full_like(a, 0.7)
    assert cosine_loss(constant, constant, flow, 8).item() == pytest.approx(0, abs=1e-9)
    assert cosine_loss(constant, constant, flow, 8, zero_mean=True).item() == pytest.approx(1)


def test_peakiness_is_that_of_windows_one_by_one() -> None:
    a = torch.rand(1, 9, 11, generator=seeded(6), dtype=torch.float64)
    # Averages count zeros beyond the border, maxima do not see them.
    smooth = torch.zeros(9, 11, dtype=torch.float64)
    framed = torch.nn.functional.pad(a[0], (1, 1, 1, 1))
    for y in range(9):
        for x in range(11):
            smooth[y, x] = framed[y : y + 3, x : x + 3].sum() / 9
    differences = []
    for y in range(9):
        for x in range(11):
            window = smooth[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            differences.append((window.max() - window.sum() / 25).item())
    assert peakiness_loss(a, 4).item() == pytest.approx(1 - np.mean(differences), abs=1e-9)


def test_peaks_are_better_than_plains() -> None:
    peaks = torch.zeros(1, 32, 32)
    peaks[:, 4::8, 4::8] = 1
    assert peakiness_loss(peaks, 8) < peakiness_loss(torch.full((1, 32, 32), 0.5), 8)


# --- average precision ----------------------------------------------------------------------------


def exact_precision(similarities: Tensor, positive: Tensor, negative: Tensor) -> float:
    """The mean precision at the ranks of the positives."""
    used = positive | negative
    order = similarities[used].argsort(descending=True)
    hits = positive[used][order].numpy()
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precisions[hits].mean()) if hits.any() else 0.0


def soft_precision(similarities: Tensor, positive: Tensor, negative: Tensor, num: int) -> float:
    """The formula of the paper, bin by bin."""
    distance = 1 / (num - 1)
    hits, total, number, found = 0.0, 0.0, int(positive.sum()), 0.0
    for m in range(num):
        share = (1 - (similarities.clamp(0, 1) - (1 - m * distance)).abs() / distance).clamp(min=0)
        of_bin = float((share * positive).sum())
        hits += of_bin
        total += float((share * (positive | negative)).sum())
        if total > 0:
            found += hits / total * of_bin / number
    return found


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_precision_is_that_of_bins_and_with_many_bins_the_exact_one(seed: int) -> None:
    similarities = torch.randperm(200, generator=seeded(seed)).double()[None, :40] / 199
    kind = torch.randint(0, 4, (1, 40), generator=seeded(seed + 1))
    kind[0, 0] = 0
    ranking = similarities, kind == 0, kind > 1
    values, positive, negative = similarities[0], kind[0] == 0, kind[0] > 1
    (found,) = average_precision(*ranking, num_bins=20)
    assert found.item() == pytest.approx(soft_precision(values, positive, negative, 20))
    exact = exact_precision(values, positive, negative)
    # As soon as no two of them share a bin.
    (found,) = average_precision(*ranking, num_bins=2 * 199 + 1)
    assert found.item() == pytest.approx(exact)


def test_more_bins_are_nearer_to_the_exact_precision() -> None:
    similarities = torch.rand(100, 60, generator=seeded(0), dtype=torch.float64)
    positive = torch.rand(100, 60, generator=seeded(1)) < 0.2
    ranking = similarities, positive, ~positive
    exact = [exact_precision(*row) for row in zip(*ranking, strict=True)]
    errors = [
        np.abs(average_precision(*ranking, num_bins=num).numpy() - exact).mean()
        for num in (5, 10, 20, 40, 80)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]  # what two neighbouring bins share stays


def test_the_precision_of_bins_by_hand() -> None:
    # Bins at 1, 0.5 and 0; the positive is shared between the first two.
    similarities = torch.tensor([[0.75, 0.5, 0.0]])
    positive = torch.tensor([[True, False, False]])
    found = average_precision(similarities, positive, ~positive, num_bins=3)
    # Precision 1 at the first bin, (1 / 2) of the recall; 1 of 2 at the second, the other half.
    assert found.item() == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    nothing = torch.zeros_like(positive)
    assert average_precision(similarities, nothing, ~nothing).item() == 0
    # Below zero all is alike.
    low = torch.tensor([[-0.5, -0.9]])
    first = torch.tensor([[True, False]])
    assert average_precision(low, first, ~first).item() == pytest.approx(0.5)


def test_what_is_neither_takes_no_part() -> None:
    similarities = torch.tensor([[0.6, 0.9, 0.3]])
    positive = torch.tensor([[True, False, False]])
    negative = torch.tensor([[False, False, True]])
    found = average_precision(similarities, positive, negative)
    assert found.item() == pytest.approx(1)


# --- reliability ----------------------------------------------------------------------------------


def test_reliability_pays_where_the_precision_exceeds_kappa() -> None:
    precision = torch.tensor([0.9, 0.2], dtype=torch.float64)
    reliability = torch.tensor([0.6, 0.6], dtype=torch.float64, requires_grad=True)
    loss = reliability_loss(precision, reliability)
    expected = 1 - np.mean([0.9 * 0.6 + 0.4 * 0.5, 0.2 * 0.6 + 0.4 * 0.5])
    assert loss.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss, reliability)
    assert gradient[0] < 0 < gradient[1]


def test_the_floor_changes_the_gradient_only() -> None:
    precision = torch.tensor([0.3], requires_grad=True)
    reliability = torch.tensor([0.1])
    plain, floored = (reliability_loss(precision, reliability, floor=f) for f in (0.0, 0.5))
    assert plain.item() == floored.item()
    (low,) = torch.autograd.grad(plain, precision)
    (high,) = torch.autograd.grad(floored, precision)
    assert low.item() == pytest.approx(-0.1)
    assert high.item() == pytest.approx(-0.5)


# --- gradients ------------------------------------------------------------------------------------


def test_gradients() -> None:
    a, b = torch.rand(2, 1, 8, 8, generator=seeded(1), dtype=torch.float64)
    a.requires_grad_()
    b.requires_grad_()
    flow = random_flow(2, 1, 8, 8)
    for zero_mean in (False, True):
        assert gradcheck(lambda x, y, z=zero_mean: cosine_loss(x, y, flow, 4, z), (a, b))
    assert gradcheck(lambda x: peakiness_loss(x, 4), (a,))
    # Away from the middles of bins, where the derivative jumps.
    similarities = (torch.randperm(60, generator=seeded(3)).double() + 0.5).view(3, 20) / 60
    positive = torch.rand(3, 20, generator=seeded(4)) < 0.3
    similarities.requires_grad_()
    assert gradcheck(lambda x: average_precision(x, positive, ~positive, 7), (similarities,))
    precision = torch.rand(5, generator=seeded(5), dtype=torch.float64, requires_grad=True)
    reliability = torch.rand(5, generator=seeded(6), dtype=torch.float64, requires_grad=True)

    def value(p: Tensor, r: Tensor) -> Tensor:
        return reliability_loss(p, r)

    analytic = torch.autograd.grad(value(precision, reliability), (precision, reliability))
    torch.testing.assert_close(analytic[0], -reliability / 5)
    torch.testing.assert_close(analytic[1], (0.5 - precision) / 5)
