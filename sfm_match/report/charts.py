"""Histograms."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sfm_match.types import ArrayF64

_SHOWN_PERCENT = 99.0
_NUM_BINS = 24
_MAX_LENGTH = 20


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram.

    Attributes:
        label: what is counted, with the unit.
        count: how many there are.
        height: from 0 to 100, 100 for the highest bar.
    """

    label: str
    count: int
    height: float


@dataclass(frozen=True)
class Histogram:
    """A histogram, and what is said below it.

    Attributes:
        bars: from the smallest value to the largest.
        ticks: what is written below the left end, the middle and the right end.
        facts: the numbers that sum it up.
    """

    bars: tuple[Bar, ...]
    ticks: tuple[str, str, str]
    facts: str


def length_histogram(lengths: npt.NDArray[np.int64]) -> Histogram:
    """Return the histogram of track lengths (P,), P > 0; the longest ones share a bar."""
    longest = int(min(lengths.max(), _MAX_LENGTH))
    counts = np.bincount(np.minimum(lengths, longest), minlength=longest + 1)[2:]
    more = lengths.max() > longest
    labels = [f"{n} images" for n in range(2, longest + 1)]
    if more:
        labels[-1] = f"{longest} images or more"
    middle = (2 + longest) // 2
    ticks = ("2", str(middle), f"{longest}{'+' if more else ''}")
    facts = f"mean {lengths.mean():.2f}, median {np.median(lengths):g}, longest {lengths.max()}"
    return Histogram(_bars(labels, counts), ticks, facts)


def error_histogram(errors: ArrayF64) -> Histogram:
    """Return the histogram of errors in pixels (P,), P > 0; the largest percent shares a bar."""
    top = max(float(np.percentile(errors, _SHOWN_PERCENT)), 1e-6)
    edges = np.linspace(0, top, _NUM_BINS + 1)
    counts, _ = np.histogram(np.minimum(errors, top), edges)
    labels = [f"{a:.2f} to {b:.2f} px" for a, b in pairwise(edges.tolist())]
    labels[-1] = f"{edges[-2]:.2f} px or more"
    finite = errors[np.isfinite(errors)]
    facts = (
        f"mean {finite.mean():.3f} px, median {np.median(errors):.3f} px, 99% below {top:.2f} px"
    )
    return Histogram(_bars(labels, counts), ("0", f"{top / 2:.2f}", f"{top:.2f}+ px"), facts)


def _bars(labels: list[str], counts: npt.NDArray[np.int64]) -> tuple[Bar, ...]:
    highest = max(int(counts.max(initial=0)), 1)
    return tuple(
        Bar(label, int(count), round(100 * int(count) / highest, 2))
        for label, count in zip(labels, counts, strict=True)
    )
