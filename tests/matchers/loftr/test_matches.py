"""Which matches come out, and where their points lie."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sfm_match.models.loftr_tiles import resize_to_multiples
from sfm_match.types import View
from tests.loftr_matching import build, everything, pictures, rows_of, run
from tests.photographs import fountain, sampson_pixels
from tests.pictures import noise_picture

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_best_matches_are_kept(checkpoints: dict[str, str]) -> None:
    images = pictures()
    every, best = (
        run(everything(checkpoints["kornia"], max_matches=num), *images) for num in (0, 5)
    )
    assert len(best) == 5
    assert sorted(best.scores) == sorted(every.scores)[-5:]
    assert rows_of(best) < rows_of(every)


def test_the_border_and_the_threshold(checkpoints: dict[str, str]) -> None:
    images = pictures(96, 128)
    found = run(build(checkpoints["small"], threshold=0.0, border=2), *images)
    assert found.points0.min() >= 32
    assert (found.points0 <= np.array([128, 96]) - 48).all()
    every = run(everything(checkpoints["small"]), *images)
    limit = float(np.median(every.scores))
    some = run(build(checkpoints["small"], threshold=limit, border=1), *images)
    assert rows_of(some) == {row for row in rows_of(every) if row[-1] > limit}


@pytest.mark.parametrize(("limit", "size"), [(0, (51, 75)), (64, (51, 75)), (0, (96, 64))])
def test_points_are_scaled_exactly_on_each_axis(
    checkpoints: dict[str, str], limit: int, size: tuple[int, int]
) -> None:
    image = noise_picture(*size)
    found = run(everything(checkpoints["kornia"], resize=limit, refine="none"), image, image)
    grey = resize_to_multiples(image, limit, 8)
    cells = found.points0 * np.array(grey.shape[::-1]) / np.array(size[::-1]) / 8
    np.testing.assert_allclose(cells, cells.round(), atol=1e-4)
    assert len(found) > 5


def test_blank_and_tiny_images_match_nothing(checkpoints: dict[str, str]) -> None:
    matcher = everything(checkpoints["kornia"])
    picture = noise_picture(64, 96)
    for other in (np.full((64, 96, 3), 127, np.uint8), np.zeros((48, 200), np.uint8)):
        assert len(run(matcher, picture, other)) == len(run(matcher, other, other)) == 0
    for size in ((1, 1), (1, 50), (9, 9)):
        assert len(run(matcher, picture, picture[: size[0], : size[1]].copy())) == 0
    with pytest.raises(ValueError, match="this view has none"):
        matcher.encode(View(None, None))


def test_the_distilled_network_on_photographs(test_data: Path) -> None:
    folder = test_data / "fountain-P11"
    images = fountain(folder, 2, 3)
    found = run(build("coarse-16"), *images)
    assert len(found) > 300
    errors = sampson_pixels(folder, found, 2, 3)
    assert np.median(errors) < 3.5
    assert np.mean(errors < 16) > 0.97
    # At full size, in tiles: twice as fine a grid.
    tiled = run(build("coarse-16", resize=512, tile=512), *images)
    coarse = run(build("coarse-16", resize=512), *images)
    assert len(tiled) > 1.5 * len(coarse)
    errors = sampson_pixels(folder, tiled, 2, 3)
    assert np.median(errors) < 0.75 * np.median(sampson_pixels(folder, coarse, 2, 3))
    assert np.mean(errors < 16) > 0.97
    assert len(rows_of(tiled)) == len(tiled)


def test_there_is_no_constant_bias(test_data: Path) -> None:
    """A picture against itself, shrunk by a known factor: corner-origin pixels are multiplied."""
    (image,) = fountain(test_data / "fountain-P11", 5)
    matcher = build("coarse-16", threshold=0.05)
    for factor in (0.8, 0.7):
        size = round(1024 * factor), round(683 * factor)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        found = run(matcher, image, np.asarray(small, np.uint8))
        away = found.points1 - found.points0 * np.array(size) / (1024, 683)
        right = np.abs(away).max(axis=1) < 12
        assert np.count_nonzero(right) > 400
        # A frame that is off by d pixels would show as (1 - factor) d; cells' centres are 8 off.
        assert np.abs(np.mean(away[right], axis=0) / (1 - factor)).max() < 2.5
