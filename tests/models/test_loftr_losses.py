from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.feature.loftr.utils.coarse_matching import CoarseMatching
from torch import Tensor

from sfm_match.models.loftr_losses import (
    cell_positions,
    dual_softmax,
    dual_softmax_loss,
    fine_loss,
    fine_offsets,
    mutual_cells,
    transport_loss,
    warp_cells,
    within_window,
)
from sfm_match.models.loftr_network import network_config
from sfm_match.models.loftr_transport import assign_with_dustbins
from sfm_match.training.warps import flow_of


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


# --- what is true ---------------------------------------------------------------------------------


def test_cells_lie_where_the_homography_brings_them() -> None:
    affine = np.array([[1.1, -0.2, 7.0], [0.3, 0.9, -4.0], [0.0, 0.0, 1.0]])
    warped = warp_cells(torch.from_numpy(flow_of(affine, 64))[None], 16)[0].reshape(4, 4, 2)
    assert warped[0].isnan().all()
    assert warped[:, 0].isnan().all()
    for row in (1, 2, 3):
        for column in (1, 2, 3):
            expected = (affine @ (16 * column, 16 * row, 1))[:2]
            np.testing.assert_allclose(warped[row, column], expected, atol=1e-4)


def test_cells_at_edges_and_at_unknown_pixels_lie_nowhere() -> None:
    flow = torch.from_numpy(flow_of(np.eye(3), 48))[None]
    flow[0, 15, 16] = torch.nan  # one of the four around the cell (1, 1)
    flow[0, 32:, 32:] += 4.0  # the cell (2, 2) is at the corner of something nearer
    flow[0, :, :16] += 2.0  # too little to be an edge, at the cells (1, 1) and (1, 2)
    warped = warp_cells(flow, 16)[0].reshape(3, 3, 2)
    assert warped[1, 1].isnan().all()
    assert warped[2, 2].isnan().all()
    assert warped[1, 2].tolist() == [32, 16]
    assert warped[2, 1].tolist() == [17, 33]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 500), st.floats(0, 0.5))
def test_true_matches_are_mutually_nearest(
    rows: int, columns: int, seed: int, unknown: float
) -> None:
    positions = cell_positions(rows, columns, 16)
    assert positions.tolist() == [[16 * x, 16 * y] for y in range(rows) for x in range(columns)]
    warped = random(2, 6, 2, seed=seed).float() * 64
    warped[random(2, 6, seed=seed + 1) < unknown] = torch.nan
    expected = []
    for pair in range(2):
        distances = [[math.dist(w, p) for p in positions.tolist()] for w in warped[pair].tolist()]
        known = [i for i, row in enumerate(distances) if not math.isnan(row[0])]
        for i in known:
            j = min(range(len(positions)), key=lambda j: distances[i][j])
            if i == min(known, key=lambda k: distances[k][j]):
                expected.append([pair, i, j])
    assert mutual_cells(warped, positions).tolist() == expected


def test_offsets_are_from_the_cell_that_was_found() -> None:
    warped = torch.tensor([[[20.0, 10.0], [torch.nan, torch.nan]]])
    found = torch.tensor([[0, 0, 1], [0, 0, 0], [0, 1, 1]])
    offsets = fine_offsets(warped, found, cell_positions(1, 2, 16), reach=8)
    assert offsets[:2].tolist() == [[0.5, 1.25], [2.5, 1.25]]
    assert offsets[2].isnan().all()
    assert within_window(torch.tensor([[0.9, -0.9], [1.0, 0.0], [0.0, torch.nan]])).tolist() == [
        True,
        False,
        False,
    ]


# --- the coarse stage -----------------------------------------------------------------------------

MATCHES = torch.tensor([[0, 0, 2], [0, 3, 1], [1, 1, 0]])


def test_the_dual_softmax_is_kornia_s() -> None:
    tokens0, tokens1 = 6 * random(2, 12, 8) - 3, 6 * random(2, 6, 8, seed=1) - 3
    matching = CoarseMatching(network_config()["match_coarse"]).eval()
    data = {"hw0_c": (3, 4), "hw1_c": (2, 3), "stride_c": 16}
    matching(tokens0, tokens1, data)
    torch.testing.assert_close(dual_softmax(tokens0, tokens1, 0.1), data["conf_matrix"])


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_focal_loss_of_a_dual_softmax_term_by_term(gamma: float) -> None:
    confidence = 0.02 + 0.9 * random(2, 4, 3)
    true, others = [], []
    for b, i, j in np.ndindex(2, 4, 3):
        p = float(confidence[b, i, j])
        if [b, i, j] in MATCHES.tolist():
            true.append(-((1 - p) ** gamma) * math.log(p))
        else:
            others.append(-(p**gamma) * math.log(1 - p))
    found = dual_softmax_loss(confidence, MATCHES, gamma)
    assert float(found) == pytest.approx(np.mean(true) + np.mean(others))
    confidence.requires_grad_()
    assert torch.autograd.gradcheck(lambda c: dual_softmax_loss(c, MATCHES, gamma), confidence)


def test_pairs_without_a_true_match_still_say_what_is_wrong() -> None:
    confidence = torch.full((1, 2, 2), 0.5)
    loss = dual_softmax_loss(confidence, MATCHES[:0])
    assert float(loss) == pytest.approx(0.25 * math.log(2))


def test_the_loss_of_transport_term_by_term() -> None:
    assignment = 0.02 + 0.9 * random(2, 5, 4)
    terms = []
    for b in range(2):
        matched = [(i, j) for pair, i, j in MATCHES.tolist() if pair == b]
        rows = [(i, 3) for i in range(4) if i not in dict(matched)]
        columns = [(4, j) for j in range(3) if j not in [j for _, j in matched]]
        for i, j in matched + rows + columns:
            p = float(assignment[b, i, j])
            terms.append(-((1 - p) ** 2) * math.log(p))
    assert float(transport_loss(assignment, MATCHES)) == pytest.approx(np.mean(terms))


def test_the_loss_of_transport_has_gradients_down_to_the_score_of_its_dustbins() -> None:
    scores, bin_score = 4 * random(2, 4, 3) - 2, torch.tensor(0.3, dtype=torch.float64)

    def loss(scores: Tensor, bin_score: Tensor) -> Tensor:
        return transport_loss(assign_with_dustbins(scores, bin_score, 3), MATCHES)

    inputs = (scores.requires_grad_(), bin_score.requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)


# --- the fine stage -------------------------------------------------------------------------------


def test_the_fine_loss_term_by_term() -> None:
    expected = 2 * random(6, 3) - 1
    expected[:, 2] = 0.1 + random(6, seed=1)
    offsets = 1.8 * random(6, 2, seed=2) - 0.9
    offsets[1, 0], offsets[4] = -1.1, torch.nan
    weights, squares = [], []
    for row in (0, 2, 3, 5):
        x, y, spread = expected[row].tolist()
        weights.append(1 / spread)
        squares.append((x - offsets[row, 0].item()) ** 2 + (y - offsets[row, 1].item()) ** 2)
    by_hand = np.sum(np.multiply(weights, squares)) / np.sum(weights)
    assert float(fine_loss(expected, offsets)) == pytest.approx(by_hand)


def test_the_fine_loss_does_not_reward_being_unsure() -> None:
    expected = (2 * random(6, 3) - 1).abs().requires_grad_()
    offsets = 1.8 * random(6, 2, seed=2) - 0.9
    (gradient,) = torch.autograd.grad(fine_loss(expected, offsets), expected)
    assert (gradient[:, 2] == 0).all()
    assert (gradient[:, :2] != 0).all()
    spread = expected[:, 2:].detach()
    assert torch.autograd.gradcheck(
        lambda xy: fine_loss(torch.cat([xy, spread], dim=1), offsets),
        expected[:, :2].detach().clone().requires_grad_(),
    )


def test_where_nothing_is_true_the_fine_loss_is_zero() -> None:
    expected = random(3, 3).requires_grad_()
    loss = fine_loss(expected, torch.full((3, 2), torch.nan))
    (gradient,) = torch.autograd.grad(loss, expected)
    assert float(loss.detach()) == 0
    assert (gradient == 0).all()
