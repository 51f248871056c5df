from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional

from sfm_match.models.r2d2_losses import average_precision
from sfm_match.models.r2d2_samplers import (
    Described,
    Rings,
    full_ranking,
    grid_ranking,
    neighbourhood_ranking,
    sampled,
)
from tests.models.test_r2d2_losses import random_flow, seeded, still, value_at


def random_maps(seed: int, num: int, height: int, width: int, channels: int = 5) -> Described:
    vectors = torch.randn(num, channels, height, width, generator=seeded(seed), dtype=torch.float64)
    reliability = torch.rand(num, height, width, generator=seeded(seed + 1), dtype=torch.float64)
    return Described(functional.normalize(vectors, dim=1), reliability)


def vector_at(of: Described, n: int, x: float, y: float) -> Tensor:
    """One point, with zeros beyond the border."""
    values = [value_at(channel, x, y) for channel in of.descriptors[n]]
    return functional.normalize(torch.tensor(values, dtype=torch.float64), dim=0)


def test_the_full_sampler_is_that_of_one_pixel_after_the_other() -> None:
    a, b = random_maps(0, 2, 4, 5), random_maps(2, 2, 4, 5)
    flow = random_flow(4, 2, 4, 5)
    found = full_ranking(a, b, flow)
    pixels = [
        (n, y, x)
        for n, y, x in itertools.product(range(2), range(4), range(5))
        if 0 < flow[n, y, x, 0] < 5 and 0 < flow[n, y, x, 1] < 4
    ]
    assert found.similarities.shape == (len(pixels), len(pixels))
    for row, (n, y, x) in enumerate(pixels):
        u, v = flow[n, y, x].tolist()
        there = value_at(b.reliability[n], u, v)
        mean = (a.reliability[n, y, x].item() + there) / 2
        assert found.reliability[row].item() == pytest.approx(mean, abs=1e-9)
        for column, (m, j, i) in enumerate(pixels):
            similarity = a.descriptors[n, :, y, x] @ vector_at(b, m, *flow[m, j, i].tolist())
            assert found.similarities[row, column].item() == pytest.approx(similarity.item())
            assert found.positive[row, column].item() == (row == column)
            assert found.negative[row, column].item() == (row != column)


def test_grids_with_a_border_in_the_batch_and_in_the_image() -> None:
    a, b = random_maps(0, 2, 12, 16), random_maps(2, 2, 12, 16)
    flow = still(2, 12, 16)
    flow[1, 2, 2] = torch.nan
    sample = partial(grid_ranking, a, b, flow, border=2, query_stride=4, database_stride=2)
    found = sample()
    assert found.similarities.shape == (2 * 2 * 3 - 1, 2 * 4 * 6 - 1)
    assert (found.positive.sum(dim=1) == 1).all()
    assert (found.negative == ~found.positive).all()
    in_image = sample(within_image=True)
    assert torch.equal(in_image.positive, found.positive)
    assert in_image.negative[:6].sum(dim=1).tolist() == [23] * 6
    assert in_image.negative[6:].sum(dim=1).tolist() == [22] * 5
    # Queries that are not among what they rank are left out.
    fewer = grid_ranking(a, b, flow, border=2, query_stride=2, database_stride=4)
    assert fewer.similarities.shape == (11, 11)


@pytest.mark.parametrize("stride", [1, 4])
def test_the_neighbourhood_sampler_is_that_of_one_query_after_the_other(stride: int) -> None:
    size = 24
    a = random_maps(0, 2, size // stride, size // stride)
    b = random_maps(2, 2, size // stride, size // stride)
    flow = random_flow(4, 2, size, size)
    rings = Rings(grid=8, positive=4.0, nearest=5.0, farthest=8.0)
    reach = range(-8, 9)
    offsets = [(dx, dy) for dy in reach for dx in reach if dx % stride == dy % stride == 0]

    def at(of: Described, n: int, x: float, y: float) -> tuple[Tensor, float]:
        limit = size / stride - 0.5
        inner = (min(max(c / stride, 0.5), limit) for c in (x, y))
        u, v = inner
        return vector_at(of, n, u, v), value_at(of.reliability[n], u, v)

    row = 0
    flow[0, 4, 4] = torch.nan  # a neighbour is asked instead of it
    found = neighbourhood_ranking(a, b, flow, stride, rings)
    for n, top, left in itertools.product(range(2), range(0, size, 8), range(0, size, 8)):
        known = [
            ((y - top - 4) ** 2 + (x - left - 4) ** 2, y, x)
            for y in range(top, top + 8)
            for x in range(left, left + 8)
            if flow[n, y, x].min() >= 0 and flow[n, y, x].max() < size
        ]
        _, y, x = min(known)
        u, v = flow[n, y, x].tolist()
        query, reliability = at(a, n, x + 0.5, y + 0.5)
        near = [at(b, n, u + dx, v + dy) for dx, dy in offsets if np.hypot(dx, dy) <= 4]
        similarities = [(query @ vector).item() for vector, _ in near]
        best = int(np.argmax(similarities))
        assert found.similarities[row, 0].item() == pytest.approx(similarities[best])
        mean = (reliability + near[best][1]) / 2
        assert found.reliability[row].item() == pytest.approx(mean)
        negatives = [
            (query @ at(b, n, u + dx, v + dy)[0]).item()
            for dx, dy in offsets
            if 5 <= np.hypot(dx, dy) <= 8 and 0 <= u + dx < size and 0 <= v + dy < size
        ]
        step = 8 // stride
        for m, j, i in itertools.product(
            range(2), range(step // 2, size // stride, step), range(step // 2, size // stride, step)
        ):
            cx, cy = (i + 0.5) * stride, (j + 0.5) * stride
            if m != n or np.hypot(cx - u, cy - v) >= 5:
                negatives.append((query @ b.descriptors[m, :, j, i]).item())
        values = found.similarities[row][found.negative[row]]
        np.testing.assert_allclose(sorted(values.tolist()), sorted(negatives), atol=1e-9)
        assert found.positive[row].nonzero().flatten().tolist() == [0]
        row += 1
    assert row == len(found.similarities) == 18
    sparse = torch.full_like(flow, torch.nan)
    sparse[0, 3, 17] = flow[1, 12, 12]
    assert len(neighbourhood_ranking(a, b, sparse, stride, rings).similarities) == 1


def test_sampling_at_the_centres_gives_what_is_there() -> None:
    maps = random_maps(7, 1, 6, 8)
    y, x = torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")
    centres = (torch.stack([x, y], dim=2).flatten(0, 1).double() + 0.5) * 4
    image = torch.zeros(48, dtype=torch.int64)
    vectors, reliability = sampled(maps, image, centres, stride=4)
    torch.testing.assert_close(vectors, maps.descriptors[0].flatten(1).T)
    torch.testing.assert_close(reliability, maps.reliability[0].flatten())
    # One pixel, beyond which its border goes on.
    single = random_maps(8, 1, 1, 1)
    vectors, _ = sampled(single, image[:2], centres[:2], stride=4)
    torch.testing.assert_close(vectors, single.descriptors[0].flatten(1).T.expand(2, -1))


def test_gradients_reach_both_images() -> None:
    a, b = random_maps(0, 1, 4, 4, 3), random_maps(2, 1, 4, 4, 3)
    flow = random_flow(3, 1, 16, 16)

    def similarities(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        found = neighbourhood_ranking(
            Described(tensors[0], tensors[1]), Described(tensors[2], tensors[3]), flow, 4
        )
        return found.similarities, found.reliability

    assert gradcheck(similarities, tuple(t.clone().requires_grad_() for t in (*a, *b)))


def test_the_right_network_has_the_highest_precision() -> None:
    a = random_maps(0, 1, 32, 32, channels=64)
    rings = Rings(grid=4, positive=1.0)
    same = neighbourhood_ranking(a, a, still(1, 32, 32), 1, rings)
    other = neighbourhood_ranking(a, random_maps(5, 1, 32, 32, 64), still(1, 32, 32), 1, rings)
    found, none = (average_precision(*ranking[:3]).mean() for ranking in (same, other))
    assert found > 0.95
    assert none < 0.2


def test_with_a_border_only_what_is_inside_is_compared() -> None:
    size, border = 40, 8
    a, b = random_maps(0, 2, size, size), random_maps(2, 2, size, size)
    flow = random_flow(4, 2, size, size)
    inside = ((flow >= border) & (flow < size - border)).all(dim=-1)
    inside[:, :border] = inside[:, -border:] = False
    inside[:, :, :border] = inside[:, :, -border:] = False
    inner_flow = flow.where(inside[..., None], torch.nan)
    rings = Rings(grid=8, positive=3.0, nearest=5.0, farthest=7.0)
    everywhere = neighbourhood_ranking(a, b, inner_flow, 1, rings)
    found = neighbourhood_ranking(a, b, flow, 1, rings._replace(border=border))
    assert 0 < len(found.similarities) == len(everywhere.similarities) < 2 * (size // 8) ** 2
    cells = torch.zeros(2, size // 8, size // 8, dtype=torch.bool)
    cells[:, 1:-1, 1:-1] = True
    kept = torch.ones(everywhere.similarities.shape[1], dtype=torch.bool)
    kept[-cells.numel() :] = cells.flatten()
    torch.testing.assert_close(found.similarities, everywhere.similarities[:, kept])
    torch.testing.assert_close(found.reliability, everywhere.reliability)
    assert torch.equal(found.negative, everywhere.negative[:, kept])
