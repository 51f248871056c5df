"""The sizes in which benchmarks show their images, by rules with names.

`none` leaves an image as it is, `640x480` is that size whatever the aspect, `long-840` makes the
long side 840 pixels, `short-480` the short side 480, `max-1600` shrinks images with a longer side
to it. Sides are rounded. `/8` at the end rounds them down to multiples of 8 afterwards, as LoFTR's
programs do.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sfm_match.spec import ConfigError

Size = tuple[int, int]
"""Width and height in pixels."""

_RULE = re.compile(r"(none|(\d+)x(\d+)|(long|short|max)-(\d+))(?:/(\d+))?")


def parse_resize(rule: str) -> Callable[[Size], Size]:
    """Return what takes the size of an image to the size in which it is shown.

    Raises:
        ConfigError: there is no such rule.
    """
    found = _RULE.fullmatch(rule)
    sides = [int(n) for n in (found.group(2, 3, 5, 6) if found else ()) if n is not None]
    if found is None or 0 in sides:
        raise ConfigError(
            f"resize: no rule {rule!r}; one is none, 640x480, long-840, short-480 or max-1600, and "
            "any with /8 for sides that are multiples of 8"
        )
    width, height, kind, side, multiple = found.group(2, 3, 4, 5, 6)

    def apply(size: Size) -> Size:
        new = size
        if width is not None:
            new = int(width), int(height)
        elif kind is not None:
            new = _scaled(size, kind, int(side))
        step = int(multiple or 1)
        return max(new[0] // step * step, step), max(new[1] // step * step, step)

    return apply


def _scaled(size: Size, kind: str, side: int) -> Size:
    scale = side / (min(size) if kind == "short" else max(size))
    if kind == "max":
        scale = min(scale, 1.0)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
