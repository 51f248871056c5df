from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.geometry import poses
from sfm_match.geometry.bootstrap import aucs, mean_average_accuracies, means, paired_bootstrap

ERRORS = st.lists(
    st.one_of(st.floats(0, 40), st.just(np.inf), st.integers(0, 20).map(float)),
    min_size=1,
    max_size=30,
)


def trapezoids(errors: list[float], limit: float) -> float:
    """The definition of SuperGlue and LoFTR, written as they do: a loop of trapezoids."""
    xs, ys = [0.0], [0.0]
    for i, error in enumerate(sorted(errors), start=1):
        if error < limit:
            xs.append(error)
            ys.append(i / len(errors))
    xs.append(limit)
    ys.append(ys[-1])
    area = sum((xs[i + 1] - xs[i]) * (ys[i + 1] + ys[i]) / 2 for i in range(len(xs) - 1))
    return 100 * area / limit


@given(ERRORS)
def test_auc_of_samples_is_the_auc(errors: list[float]) -> None:
    limits = [1.0, 5.0, 10.0, 20.0]
    found = aucs(limits)(np.array([errors, errors[::-1]]))
    expected = [trapezoids(errors, limit) for limit in limits]
    for row in (*found, poses.auc(errors, limits)):
        assert row == pytest.approx(expected, abs=1e-9)


def test_auc_by_hand() -> None:
    # One pair of two at 2: up to 4 the curve rises to 1/2 at 2 and stays: (0.5 + 1) / 4.
    assert aucs([4])(np.array([[2.0, np.inf]]))[0, 0] == pytest.approx(37.5, abs=1e-12)


def test_mean_average_accuracy_by_hand() -> None:
    # Below 1: 1/4; below 2 to 5: 2/4; below 6 to 9: 2/4; up to 10, with it: 3/4.
    errors = np.array([[0.5, 1.5, 10.0, 180.0]])
    found = mean_average_accuracies([5, 10])(errors)[0]
    assert found == pytest.approx([100 * (0.25 + 4 * 0.5) / 5, 100 * (0.25 + 8 * 0.5 + 0.75) / 10])


@given(ERRORS)
def test_mean_average_accuracy_is_that_of_a_histogram(errors: list[float]) -> None:
    capped = np.minimum(errors, 1e6)
    counts, _ = np.histogram(capped, np.arange(11))
    accuracy = np.cumsum(counts) / len(errors)
    found = mean_average_accuracies([5, 10])(np.array([errors]))[0]
    expected = [100 * accuracy[:5].mean(), 100 * accuracy.mean()]
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_interval_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.exponential(5, 40), rng.exponential(4, 40)
    (found,) = paired_bootstrap(a, b, aucs([10]), num_samples=300, seed=7)
    rows = np.random.default_rng(7).integers(0, 40, (300, 40))
    differences = [trapezoids(list(b[r]), 10) - trapezoids(list(a[r]), 10) for r in rows]
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found.difference == pytest.approx(trapezoids(list(b), 10) - trapezoids(list(a), 10))
    assert found.difference == pytest.approx(found.b - found.a)


def test_equal_methods_do_not_differ_and_a_constant_gain_is_certain() -> None:
    values = np.random.default_rng(0).uniform(0, 50, 30)
    (same,) = paired_bootstrap(values, values, means, num_samples=200)
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    assert not same.is_significant
    # Paired: the gain of each pair is 1, however much the pairs differ among themselves.
    (gain,) = paired_bootstrap(values, values + 1, means, num_samples=200)
    assert (gain.low, gain.high) == pytest.approx((1, 1))
    assert gain.is_significant


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Of 200 samples of 100 pairs, about 95 % of the intervals hold the true difference, 1."""
    rng = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        a = rng.normal(0, 3, 100)
        b = a + rng.normal(1, 2, 100)
        (found,) = paired_bootstrap(a, b, means, num_samples=500, seed=seed)
        covered += found.low <= 1 <= found.high
    assert 180 <= covered <= 199


def test_values_must_be_paired() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        paired_bootstrap(np.ones(3), np.ones(4), means)
    with pytest.raises(ValueError, match="at least one value"):
        paired_bootstrap(np.empty(0), np.empty(0), means)
