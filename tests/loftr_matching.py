"""LoFTR on two pictures."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from sfm_match.spec import Spec
from sfm_match.types import Correspondences, Image, View
from tests.pictures import noise_picture


@cache
def build(weights: str, **options: Any) -> Any:
    """Return a matcher with the weights of a name or a file."""
    return Spec.parse("matchers", "loftr", {"weights": weights, **options}).build()


def everything(path: str, **options: Any) -> Any:
    """Return a matcher that keeps every mutual nearest neighbour."""
    return build(path, threshold=0.0, border=1, **options)


def run(matcher: Any, *images: Image) -> Correspondences:
    """Match two pictures."""
    a, b = (matcher.encode(View(image, None)) for image in images)
    (found,) = matcher.match([(a, b)])
    assert isinstance(found, Correspondences)
    return found


def pictures(height: int = 64, width: int = 96) -> tuple[Image, Image]:
    """Return two pictures of the same size, of which the second is moved by a cell."""
    picture = noise_picture(height + 8, width + 8)
    return picture[:height, :width].copy(), picture[8:, 8:].copy()


def assert_same(found: Correspondences, expected: Correspondences) -> None:
    for name in ("points0", "points1", "scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def rows_of(found: Correspondences) -> set[tuple[float, ...]]:
    """Return each correspondence with its score as one tuple."""
    table = np.c_[found.points0, found.points1, found.scores].tolist()
    return {tuple(row) for row in table}
