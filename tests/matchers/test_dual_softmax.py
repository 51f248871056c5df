from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from sfm_match.matchers import dual_softmax
from sfm_match.matchers.dual_softmax import Config
from sfm_match.types import ArrayF64, Matches, View
from tests.described import described


def match(a: ArrayF64, b: ArrayF64, **options: float) -> Matches:
    matcher = dual_softmax.build(Config(**options), "cpu", ())
    encoded = [matcher.encode(View(None, described(side))) for side in (a, b)]
    (matches,) = matcher.match([(encoded[0], encoded[1])])
    return matches


def probabilities(a: ArrayF64, b: ArrayF64, temperature: float) -> ArrayF64:
    """Return the formula as it stands: (N, M)."""
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (a, b)]
    values = unit[0] @ unit[1].T / temperature
    product: ArrayF64 = softmax(values, axis=0) * softmax(values, axis=1)
    return product


def sides(num_a: int, num_b: int, seed: int = 0) -> tuple[ArrayF64, ArrayF64]:
    """Return descriptors of any length, of which some are noisy views of the same ones."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(max(num_a, num_b), 32))
    a, b = (shared + rng.normal(size=shared.shape) * 0.4 for _ in range(2))
    b[::3] = rng.normal(size=b[::3].shape)
    return a[:num_a] * rng.uniform(0.5, 2, (num_a, 1)), b[rng.permutation(len(b))[:num_b]]


@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("min_score", [0.0, 0.01, 0.5])
@pytest.mark.parametrize(("num_a", "num_b"), [(1, 1), (1, 30), (200, 150), (130, 300)])
def test_it_is_the_plain_formula(
    temperature: float, min_score: float, num_a: int, num_b: int
) -> None:
    a, b = sides(num_a, num_b)
    scores = probabilities(a, b, temperature)
    best = (scores == scores.max(axis=0)) & (scores == scores.max(axis=1, keepdims=True))
    expected = np.argwhere(best & (scores >= min_score))
    found = match(a, b, temperature=temperature, min_score=min_score)
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_allclose(found.scores, scores[tuple(expected.T)], rtol=1e-3, atol=1e-6)
    if (num_a, temperature) == (200, 0.05):
        assert 20 < len(found) <= 150


def test_a_lower_temperature_makes_the_best_more_certain() -> None:
    a, b = sides(60, 60)
    scores = [match(a, b, temperature=t, min_score=0).scores.max() for t in (0.5, 0.1, 0.02)]
    assert scores == sorted(scores)
    assert scores[0] < 0.1
    assert scores[-1] > 0.9


def test_what_is_there_twice_shares_its_score() -> None:
    a = np.eye(4)[:2]
    once = match(a, a, temperature=0.05)
    assert once.scores.tolist() == pytest.approx([1, 1], abs=1e-3)
    twice = match(a, np.concatenate([a, a]), temperature=0.05)
    assert len(twice) == 2
    assert twice.scores.tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert len(match(a, np.concatenate([a, a]), temperature=0.05, min_score=0.6)) == 0
