from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.models.descriptors import encode_descriptors
from sfm_match.models.graph_matching import candidates_of_matches, nearest_candidates
from sfm_match.models.graph_matching_config import Config
from sfm_match.models.graph_matching_field import (
    Sizes,
    _fit,
    best_of_row_and_column,
    contradicted,
    greedy_matches,
)
from sfm_match.models.graph_matching_geometry import (
    Candidates,
    Keypoints,
    Prior,
    edges_to_seeds,
    nearest_points,
    spacing,
    vote_for_prior,
)
from sfm_match.types import ArrayF64

# --- spacing --------------------------------------------------------------------------------------


def grid(width: int, height: int) -> ArrayF64:
    columns, rows = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    return np.column_stack([columns.ravel(), rows.ravel()])


def turned(points: ArrayF64, degrees: float) -> ArrayF64:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.asarray(points @ np.array([[c, s], [-s, c]]))


@pytest.mark.parametrize("degrees", [0, 30, 90])
@pytest.mark.parametrize("scale", [0.3, 1.0, 20.0])
def test_the_spacing_of_a_grid_is_its_step(degrees: float, scale: float) -> None:
    points = turned(grid(40, 25), degrees) * scale + 700
    assert spacing(points.astype(np.float32)) == pytest.approx(scale, rel=0.01)


def test_the_spacing_of_degenerate_points() -> None:
    line = np.column_stack([np.arange(50), 2 * np.arange(50)]).astype(np.float32)
    assert spacing(line) == pytest.approx(np.sqrt(5), rel=0.01)
    assert spacing(np.full((9, 2), 3, np.float32)) == 1
    assert spacing(np.zeros((1, 2), np.float32)) == 1
    assert spacing(np.zeros((0, 2), np.float32)) == 1


# --- candidates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3])
def test_candidates_are_the_nearest_neighbours_of_both_sides(k: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 16)), rng.normal(size=(20, 16))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    encoded = [encode_descriptors(torch.from_numpy(x.astype(np.float32))) for x in (a, b)]
    found = nearest_candidates(encoded[0], encoded[1], k)
    d = np.linalg.norm(a[:, None] - b[None], axis=2)
    expected = {(i, int(j)) for i in range(30) for j in np.argsort(d[i])[:k]}
    expected |= {(int(i), j) for j in range(20) for i in np.argsort(d[:, j])[:k]}
    pairs = list(zip(found.rows0.tolist(), found.rows1.tolist(), strict=True))
    assert len(pairs) == len(expected)
    assert set(pairs) == expected
    for (i, j), ratio in zip(pairs, found.ratios.tolist(), strict=True):
        others = min(np.delete(d[i], j).min(), np.delete(d[:, j], i).min())
        assert ratio == pytest.approx(d[i, j] / others, abs=1e-4)
    mutual = {(i, j) for i, j in pairs if d[i].argmin() == j and d[:, j].argmin() == i}
    below = {p for p, r in zip(pairs, found.ratios.tolist(), strict=True) if r < 1}
    assert below == mutual


def test_the_scores_of_matches_count_by_rank() -> None:
    rows = torch.tensor([[0, 4], [1, 3], [2, 2], [3, 1]])
    found = candidates_of_matches(rows, torch.tensor([10.0, -5.0, 10.0, 0.0]), 0.4)
    np.testing.assert_allclose(found.ratios, [0.6, 1.0, 0.6, 0.8], atol=1e-6)
    assert found.rows1.tolist() == [4, 3, 2, 1]
    alone = candidates_of_matches(rows[:1], torch.tensor([0.3]), 0.4)
    assert alone.ratios.tolist() == [1.0]


# --- neighbours -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 15))
@settings(max_examples=25, deadline=None)
def test_the_nearest_points_are_those_of_all_distances(seed: int, num: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    points, queries = rng.normal(size=(2, num)), rng.normal(size=(2, 17))
    found = nearest_points(torch.from_numpy(points), torch.from_numpy(queries), k).numpy()
    d = np.linalg.norm(queries[:, :, None] - points[:, None], axis=0)
    np.testing.assert_array_equal(found, np.argsort(d, axis=1)[:, :k].T)


def placed(points: ArrayF64) -> Keypoints:
    return Keypoints(torch.from_numpy(points.T.astype(np.float32).copy()), None, None)


def test_edges_lead_to_seeds_near_in_either_image() -> None:
    # Seed 1 is near candidate 0 in the first image, seed 2 in the second.
    a = placed(np.array([[0.0, 0], [1, 0], [9, 9]]))
    b = placed(np.array([[0.0, 0], [9, 9], [0, 2]]))
    rows = torch.arange(3)
    found = Candidates(rows, rows, torch.ones(3))
    edges = edges_to_seeds(a, b, found, torch.tensor([1, 2]), 1)
    assert edges.seeds[:, 0].tolist() == [0, 1]
    assert [float(step[0, 0]) for step in edges.steps0] == [1, 0]
    assert [float(step[1, 0]) for step in edges.steps1] == [0, 2]
    assert edges.shared[:, 0].tolist() == [False, False]
    assert edges.shared[0, 1]


# --- the prior ------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [0, 45, -90, 180])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.8])
def test_the_prior_is_found_among_wrong_seeds(degrees: float, scale: float) -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 17, (300, 2))
    other = turned(points, degrees) * scale
    wrong = rng.random(300) < 0.5
    other[wrong] = rng.permutation(other[wrong])
    rows = torch.arange(300)
    found = Candidates(rows, rows, torch.full((300,), 0.8))
    prior = vote_for_prior(placed(points), placed(other), found, rows, Config())
    assert np.exp(prior.log_scale) == pytest.approx(scale, rel=0.05)
    assert np.cos(prior.angle - np.deg2rad(degrees)) > np.cos(np.deg2rad(3))


def test_without_votes_there_is_no_change() -> None:
    rows = torch.arange(2)
    found = Candidates(rows, rows, torch.ones(2))
    together = placed(np.zeros((2, 2)))
    assert vote_for_prior(together, together, found, rows, Config()) == Prior(0.0, 0.0)


def test_the_inverse_prior_takes_it_back() -> None:
    prior = Prior(0.4, 0.9)
    (a, b), (c, d) = prior.matrix, prior.inverse.matrix
    assert (a * c - b * d, a * d + b * c) == pytest.approx((1, 0))
    scale = np.exp(0.4)
    assert prior.noise == pytest.approx(prior.inverse.noise * scale)
    assert prior.length == pytest.approx(prior.inverse.length * scale)


# --- assignment -----------------------------------------------------------------------------------


def random_candidates(seed: int, num: int, sizes: Sizes) -> tuple[Candidates, torch.Tensor]:
    rng = np.random.default_rng(seed)
    cells = rng.choice(sizes.num0 * sizes.num1, min(num, sizes.num0 * sizes.num1), replace=False)
    scores = rng.integers(0, 9, len(cells)) / 10  # with ties
    rows0, rows1 = torch.from_numpy(cells // sizes.num1), torch.from_numpy(cells % sizes.num1)
    return Candidates(rows0, rows1, torch.ones(len(cells))), torch.from_numpy(scores)


@given(st.integers(0, 2**32 - 1), st.integers(0, 80), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_rounds_of_matches_are_those_one_by_one(seed: int, num: int, num0: int, num1: int) -> None:
    sizes = Sizes(num0, num1)
    found, scores = random_candidates(seed, num, sizes)
    used0: set[int] = set()
    used1: set[int] = set()
    expected = set()
    for c in np.argsort(-scores.numpy(), kind="stable"):
        i, j = int(found.rows0[c]), int(found.rows1[c])
        if scores[c] > 0.15 and i not in used0 and j not in used1:
            expected.add(int(c))
            used0.add(i)
            used1.add(j)
    assert set(greedy_matches(found, scores, 0.15, sizes).tolist()) == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_best_of_row_and_column(seed: int, num: int, num0: int, num1: int) -> None:
    sizes = Sizes(num0, num1)
    found, scores = random_candidates(seed, num, sizes)
    best = best_of_row_and_column(found, scores, torch.arange(len(found)), sizes)
    assert len(best) >= 1
    for rows in (found.rows0, found.rows1):
        assert len(set(rows[best].tolist())) == len(best)
    for c in best:
        rivals = (found.rows0 == found.rows0[c]) | (found.rows1 == found.rows1[c])
        assert scores[c] == scores[rivals].max()
    others = torch.arange(len(found))
    assert contradicted(found, others, best, sizes)[best].all()


# --- the affine fit -------------------------------------------------------------------------------


def test_an_affine_map_is_fitted_to_the_edges() -> None:
    rng = np.random.default_rng(0)
    matrix = np.array([[1.3, 0.4], [-0.2, 0.8]])
    steps = rng.normal(size=(2, 12, 5))
    images = np.einsum("ij,jkc->ikc", matrix, steps)
    d, e = (
        (torch.from_numpy(x[0]).float(), torch.from_numpy(x[1]).float()) for x in (steps, images)
    )
    weights = torch.from_numpy(rng.uniform(0.5, 1, (12, 5))).float()
    exact = _fit(d, e, weights, Prior(0.0, 0.0), Config(prior_weight=1e-6))
    np.testing.assert_allclose(torch.stack(exact), images, atol=1e-4)
    # Without any weight the prior is left: here a quarter turn.
    prior = _fit(d, e, torch.zeros(12, 5), Prior(0.0, np.pi / 2), Config())
    np.testing.assert_allclose(torch.stack(prior), [-steps[1], steps[0]], atol=1e-5)
