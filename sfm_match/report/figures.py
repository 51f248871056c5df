"""Panels laid out in rows, and written as PNG or SVG. Drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfm_match.geometry.raster import shrink
from sfm_match.io.files import write_bytes
from sfm_match.report.colours import Scale
from sfm_match.report.pictures import Panel
from sfm_match.spec import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")

# In inches.
_WIDTH = 13.0
_MAX_HEIGHT = 8.5
_MARGIN = 0.2
_GAP = 0.15
_CAPTION = 0.34
_TITLE = 0.3
_BAR_WIDTH, _BAR_HEIGHT = 1.2, 0.09
_LIFT, _SPACE = 0.08, 0.06  # of captions above panels; between a bar and its numbers

_DPI = 150
_BAR_STEPS = 256
_INK, _GREY = "#1f2933", "#616e7c"


def compose(rows: Sequence[Sequence[Panel]], title: str = "", width: float = _WIDTH) -> Figure:
    """Lay out panels in rows; those of a row have one height and fill the width.

    Args:
        rows: the panels, from the top.
        title: above all of them.
        width: of the figure, in inches; its height follows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [_row_height(row, width) for row in rows]
    above = _MARGIN + (_TITLE if title else 0.0)
    height = above + sum(heights) + _CAPTION * len(rows) + _GAP * (len(rows) - 1) + _MARGIN
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        written = _write(
            figure, _MARGIN, height - _MARGIN, title, size=13, weight="bold", above=False
        )
        _cut(figure, written, width - 2 * _MARGIN)
    top = height - above
    for row, row_height in zip(rows, heights, strict=True):
        left = _MARGIN
        for panel in row:
            panel_width = row_height * panel.size[0] / panel.size[1]
            _draw(figure, panel, (left, top - _CAPTION - row_height, panel_width, row_height))
            left += panel_width + _GAP
        top -= _CAPTION + row_height + _GAP
    return figure


def picture_bytes(figure: Figure, picture_format: str = "png") -> bytes:
    """Return a figure as PNG or SVG; the same figure gives the same bytes.

    Raises:
        ConfigError: neither of the two.
    """
    from matplotlib import rc_context

    if picture_format not in FORMATS:
        raise ConfigError(f"pictures are PNG or SVG (.png, .svg), not {picture_format!r}")
    written = io.BytesIO()
    # A date or random names in the file would differ from time to time.
    metadata: dict[str, Any] = {"Date": None} if picture_format == "svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "sfm_match"}):
        figure.savefig(written, format=picture_format, metadata=metadata)
    return written.getvalue()


def check_format(path: Path) -> str:
    """Return the format that a file's name stands for.

    Raises:
        ConfigError: it ends neither in .png nor in .svg.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ConfigError(f"{path}: pictures are PNG or SVG: the name must end in .png or .svg")
    return suffix


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG or SVG, by the file's suffix.

    Raises:
        ConfigError: the suffix is another one.
        FileError: the file cannot be written.
    """
    write_bytes(path, picture_bytes(figure, check_format(path)))


def _row_height(row: Sequence[Panel], width: float) -> float:
    room = width - 2 * _MARGIN - _GAP * (len(row) - 1)
    return min(room / sum(panel.size[0] / panel.size[1] for panel in row), _MAX_HEIGHT)


def _draw(figure: Figure, panel: Panel, box: tuple[float, float, float, float]) -> None:
    """Draw a panel into a box: left, bottom, width and height in inches."""
    left, bottom, width, height = box
    axes = _axes(figure, box)
    axes.set(xlim=(0, panel.size[0]), ylim=(panel.size[1], 0))
    pixels_per_unit = width * _DPI / panel.size[0]
    for picture, (x0, y0, x1, y1) in zip(panel.pictures, panel.boxes, strict=True):
        longest = max(1, round(max(x1 - x0, y1 - y0) * pixels_per_unit))
        small = shrink(picture, longest)
        box_of = (x0, x1, y1, y0)
        axes.imshow(small, cmap="gray", vmin=0, vmax=255, extent=box_of, aspect="auto")
    _draw_marks(axes, panel)
    baseline = bottom + height + _LIFT
    caption = _write(figure, left, baseline, panel.caption, size=10)
    _cut(figure, caption, width)
    if panel.scale is not None:
        used = left + _text_width(figure, caption) + _GAP
        _draw_scale(figure, panel.scale, (used, left + width), baseline)


def _draw_marks(axes: Axes, panel: Panel) -> None:
    from matplotlib.collections import LineCollection

    for lines in panel.lines:
        axes.add_collection(
            LineCollection(
                list(lines.ends),
                colors=lines.colours,
                linewidths=lines.width,
                alpha=lines.opacity,
                capstyle="round",
            ),
            autolim=False,
        )
    for dots in panel.dots:
        x, y = dots.points.T
        axes.scatter(x, y, s=dots.size**2, c=dots.colours, linewidths=0, zorder=3)


def _draw_scale(figure: Figure, scale: Scale, room: tuple[float, float], baseline: float) -> None:
    """Draw what the colours mean at the right end of a room; what does not fit is left out."""
    left, right = room
    if right - left < 2 * _BAR_WIDTH:
        return
    steps = np.linspace(0, 1, _BAR_STEPS)
    if scale.is_log:
        values = scale.low * (scale.high / scale.low) ** steps
    else:
        values = scale.low + (scale.high - scale.low) * steps
    small = partial(_write, figure, y=baseline, size=8, colour=_GREY, align="right")
    right -= _text_width(figure, small(x=right, text=f"{scale.high:.3g}")) + _SPACE
    bar = _axes(figure, (right - _BAR_WIDTH, baseline + 0.01, _BAR_WIDTH, _BAR_HEIGHT))
    bar.imshow(scale.colours(values)[None], aspect="auto")
    right -= _BAR_WIDTH + _SPACE
    right -= _text_width(figure, small(x=right, text=f"{scale.low:.3g}")) + 2 * _SPACE
    label = small(x=right, text=scale.label)
    if _text_width(figure, label) > right - left:
        label.remove()


def _axes(figure: Figure, box: tuple[float, float, float, float]) -> Axes:
    """Add axes without frame in a box: left, bottom, width and height in inches."""
    width, height = figure.get_size_inches()
    left, bottom, box_width, box_height = box
    axes = figure.add_axes((left / width, bottom / height, box_width / width, box_height / height))
    axes.set_axis_off()
    return axes


def _write(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    weight: str = "normal",
    colour: str = _INK,
    align: str = "left",
    above: bool = True,
) -> Any:
    """Write text at a place in inches, above or below it."""
    width, height = figure.get_size_inches()
    written = figure.text(
        x / width,
        y / height,
        text,
        size=size,
        weight=weight,
        color=colour,
        ha=align,
        va="baseline" if above else "top",
    )
    written.set_parse_math(False)  # a name may have dollar signs
    return written


def _cut(figure: Figure, text: Any, width: float) -> None:
    """Cut off what is wider than so many inches."""
    whole, used = text.get_text(), _text_width(figure, text)
    if used > width:
        text.set_text(whole[: max(1, int(len(whole) * width / used) - 2)].rstrip() + "\u2026")


def _text_width(figure: Figure, text: Any) -> float:
    """Return the width of written text in inches."""
    return float(text.get_window_extent().width / figure.dpi)
