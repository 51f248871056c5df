from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.models.loftr_transport import assign_with_dustbins, without_unmatched


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 1000), st.floats(-2, 2))
def test_transport_keeps_the_masses(rows: int, columns: int, seed: int, bin_score: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(2, rows, columns, generator=generator)
    assignment = assign_with_dustbins(scores, bin_score, 1000)
    masses0 = torch.tensor([1.0] * rows + [float(columns)])
    masses1 = torch.tensor([1.0] * columns + [float(rows)])
    torch.testing.assert_close(assignment.sum(dim=1), masses1.expand(2, -1))
    torch.testing.assert_close(assignment.sum(dim=2), masses0.expand(2, -1), atol=1e-3, rtol=0)
    # Sinkhorn's iteration in the plain domain, in double precision.
    kernel = torch.full((2, rows + 1, columns + 1), bin_score, dtype=torch.float64)
    kernel[:, :-1, :-1] = scores
    plain = kernel.exp()
    for _ in range(1000):
        plain = plain * (masses0 / plain.sum(dim=2))[:, :, None]
        plain = plain * (masses1 / plain.sum(dim=1))[:, None, :]
    torch.testing.assert_close(assignment.double(), plain, atol=1e-4, rtol=1e-4)


def test_transport_leaves_unmatched_what_fits_nothing() -> None:
    scores = torch.full((1, 4, 3), -5.0)
    scores[0, [0, 1, 3], [2, 0, 1]] = torch.tensor([5.0, 5.0, -4.0])
    found = without_unmatched(assign_with_dustbins(scores, 0.0, 50))[0]
    assert found.nonzero().tolist() == [[0, 0], [0, 2], [1, 0], [1, 2]]
    assert (found > 0.5).nonzero().tolist() == [[0, 2], [1, 0]]
