"""Is one method better than another on the same pairs? Paired bootstrap intervals of a difference.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: pairs are drawn with
replacement, the same for both methods, and the interval is that of the percentiles of the
difference. It holds for other pairs like these; pairs that share images are less than independent,
so the interval is rather too narrow than too wide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sfm_match.types import ArrayF64

_VALUES_AT_A_TIME = 1 << 21

Statistic = Callable[[ArrayF64], ArrayF64]
"""Takes the values of some samples, (B, N) or (B, N, K), to a number or numbers of each, (B, T)."""


class Difference(NamedTuple):
    """A difference b - a with its interval."""

    a: float
    b: float
    difference: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    a: ArrayF64,
    b: ArrayF64,
    statistic: Statistic,
    *,
    num_samples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Difference]:
    """Return the difference of each number of a statistic, with its interval.

    Args:
        a: float64 (N,), the values of the first method, one of each pair; infinity is allowed.
        b: float64 (N,), of the second method, in the same order.
        statistic: see `Statistic`.
        num_samples: how often the pairs are drawn.
        confidence: of the interval, for example 0.95.
        seed: of the draws; equal seeds draw the same pairs.

    Raises:
        ValueError: there are no values, or not as many of each.
    """
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(f"a and b must be (N,) with at least one value, got {a.shape}, {b.shape}")
    rng = np.random.default_rng(seed)
    step = max(1, _VALUES_AT_A_TIME // len(a))
    parts = []
    for start in range(0, num_samples, step):
        size = min(step, num_samples - start)
        rows: npt.NDArray[np.int64] = rng.integers(0, len(a), (size, len(a)))
        parts.append(statistic(b[rows]) - statistic(a[rows]))
    differences = np.concatenate(parts)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(differences, [tail, 100 - tail], axis=0)
    of_a, of_b = statistic(a[None])[0], statistic(b[None])[0]
    return [
        Difference(*map(float, row)) for row in zip(of_a, of_b, of_b - of_a, low, high, strict=True)
    ]


def means(values: ArrayF64) -> ArrayF64:
    """Return the mean of each sample: (B, N) to (B, 1)."""
    return np.asarray(values.mean(axis=1, keepdims=True))


def aucs(thresholds: npt.ArrayLike) -> Statistic:
    """Return what takes the errors of each sample to `sfm_match.geometry.poses.auc`."""
    limits = np.asarray(thresholds, np.float64)

    def compute(errors: ArrayF64) -> ArrayF64:
        num = errors.shape[1]
        capped = np.sort(np.minimum(errors, limits.max()), axis=1)
        recall = np.arange(1, num + 1) / num
        before = np.concatenate([np.zeros((len(errors), 1)), capped[:, :-1]], axis=1)
        strips = (capped - before) * (recall - 0.5 / num)
        found = []
        for limit in limits:
            below = capped < limit
            count = below.sum(axis=1)
            last = np.where(count > 0, capped[np.arange(len(errors)), count - 1], 0.0)
            area = np.sum(strips, axis=1, where=below) + (limit - last) * count / num
            found.append(100 * area / limit)
        return np.stack(found, axis=1)

    return compute


def mean_average_accuracies(thresholds: npt.ArrayLike) -> Statistic:
    """Return what takes the errors of each sample to its mean average accuracies, in percent.

    Jin et al., "Image Matching across Wide Baselines: From Paper to Practice", IJCV 2020: the mean
    of the parts of errors below 1, 2, ... T, for each whole number T of thresholds, one of each. An
    error of exactly the largest threshold counts as below it, as in the authors' histogram.
    """
    limits = np.asarray(thresholds, np.int64)

    def compute(errors: ArrayF64) -> ArrayF64:
        found = []
        for limit in limits:
            steps = np.arange(1, limit + 1)
            parts = [
                np.mean(errors < step if step < limits.max() else errors <= step, axis=1)
                for step in steps
            ]
            found.append(100 * np.mean(parts, axis=0))
        return np.stack(found, axis=1)

    return compute
