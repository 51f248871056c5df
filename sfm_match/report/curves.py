"""Curves of a training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from sfm_match.io.files import write_bytes


def draw_curves(losses: Path, picture: Path) -> None:
    """Draw every column of a table of losses against its first, each in a panel of its own.

    Args:
        losses: CSV with a line for each step.
        picture: PNG.
    """
    import io

    from matplotlib.figure import Figure

    with losses.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    names = rows[0]
    table = np.array([[float(v) if v else np.nan for v in row] for row in rows[1:]])
    table = table.reshape(-1, len(names))
    columns = 3
    lines = -(-(len(names) - 1) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * lines), layout="constrained")
    for number, name in enumerate(names[1:], start=1):
        axes = figure.add_subplot(lines, columns, number)
        axes.plot(table[:, 0], table[:, number], linewidth=0.5, alpha=0.35, color="C0")
        axes.plot(table[:, 0], smoothed(table[:, number]), linewidth=1.5, color="C0")
        low, high = np.nanpercentile(table[:, number], [1, 99]) if len(table) else (0, 1)
        if high > low:
            axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.grid(alpha=0.3)
    figure.supxlabel(names[0])
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    write_bytes(picture, content.getvalue())


def smoothed(values: np.ndarray, share: float = 0.02) -> np.ndarray:
    """Return running means (N,) over a share of the values."""
    width = max(1, int(len(values) * share))
    weights = np.ones(width)
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0), weights, mode="same")
    return total / np.maximum(np.convolve(known, weights, mode="same"), 1)
