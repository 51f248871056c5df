from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sfm_match.models.loftr_tiles import resize_to_multiples, tiles


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 200), st.sampled_from([8, 16]))
def test_sizes_for_the_network(height: int, width: int, limit: int, multiple: int) -> None:
    image = np.zeros((height, width), np.uint8)
    resized = resize_to_multiples(image, limit, multiple)
    assert all(side % multiple == 0 and side > 0 for side in resized.shape)
    factor = min(1.0, limit / max(height, width)) if limit else 1.0
    for side, new in zip((height, width), resized.shape, strict=True):
        assert abs(new - max(side * factor, multiple)) <= multiple / 2


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(20, 60), st.integers(0, 15))
def test_tiles_cover_an_image_once(width: int, height: int, side: int, overlap: int) -> None:
    covered = np.zeros((height, width), np.int64)
    for window, core in tiles(width, height, side, overlap):
        covered[core.top : core.bottom, core.left : core.right] += 1
        assert window.right - window.left == min(side, width)
        assert window.bottom - window.top == min(side, height)
        # A core keeps away from those borders of its window that are inside of the image.
        for low, high, first, last, length in (
            (window.left, window.right, core.left, core.right, width),
            (window.top, window.bottom, core.top, core.bottom, height),
        ):
            assert first == 0 or first - low >= overlap // 2
            assert last == length or high - last >= overlap // 2
    assert (covered == 1).all()
