from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfm_match.models.assignment import mutual_maxima


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(
    a: Tensor, b: Tensor, bonus_a: Tensor, bonus_b: Tensor
) -> tuple[list[list[int]], list[float]]:
    """Compute the formula as it stands, with the whole matrix."""
    values = a @ b.T
    logs = values.log_softmax(0) + values.log_softmax(1) + bonus_a[:, None] + bonus_b
    pairs = [
        [i, j]
        for i in range(len(a))
        for j in range(len(b))
        if logs[i, j] == logs[i].max() and logs[i, j] == logs[:, j].max()
    ]
    return pairs, [float(logs[i, j]) for i, j in pairs]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_it_is_the_plain_formula_whatever_the_blocks(
    num_a: int, num_b: int, block_rows: int, seed: int
) -> None:
    a, b = random(num_a, 8, seed=seed), random(num_b, 8, seed=seed + 1)
    bonuses = random(num_a, seed=seed + 2), random(num_b, seed=seed + 3)
    found, logs = mutual_maxima(a, b, *bonuses, block_rows=block_rows)
    pairs, expected = plain(a, b, *bonuses)
    assert found.tolist() == pairs
    assert logs.tolist() == pytest.approx(expected)
    none = torch.zeros(num_a), torch.zeros(num_b)
    found, logs = mutual_maxima(a, b, block_rows=block_rows)
    assert found.tolist() == plain(a, b, *none)[0]
    assert logs.tolist() == pytest.approx(plain(a, b, *none)[1])


def test_large_products_do_not_overflow() -> None:
    # Products of 1000 and -1000: the exponential of neither is a number.
    a = 1000 * torch.eye(3)
    b = torch.cat([torch.eye(3), -torch.eye(3)])
    found, logs = mutual_maxima(a, b, block_rows=2)
    assert found.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert logs.exp().tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_of_equals_one_is_taken_once() -> None:
    same = torch.ones(5, 2)
    for block_rows in (1, 2, 5):
        found, logs = mutual_maxima(same, same, block_rows=block_rows)
        assert found.tolist() == [[0, 0]]
        assert logs.exp().tolist() == pytest.approx([1 / 25])


@pytest.mark.parametrize(("num_a", "num_b"), [(0, 0), (0, 3), (3, 0)])
def test_an_empty_side_has_no_pairs(num_a: int, num_b: int) -> None:
    found, logs = mutual_maxima(torch.zeros(num_a, 4), torch.zeros(num_b, 4))
    assert found.shape == (0, 2)
    assert found.dtype == torch.long
    assert logs.shape == (0,)


MEASURE = """
import resource, torch
from sfm_match.models.assignment import mutual_maxima
torch.set_num_threads(1)
a, b = torch.rand(2, 20_000, 16)
mutual_maxima(a[:500], b[:500])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mutual_maxima(a, b)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
def test_memory_is_bounded() -> None:
    # One matrix of 20,000 by 20,000 would be 1.6 GB.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, timeout=300, check=True
    )
    assert int(done.stdout) < 150e6
