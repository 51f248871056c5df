"""Images that are resized before anything is found in them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sfm_match.stages.scan import Resize, scan
from sfm_match.stages.views import load_upright
from tests.pictures import noise_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), noise_picture(90, 120))
    mask = np.zeros((90, 120), np.uint8)
    mask[:, :60] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    return tmp_path


@pytest.mark.parametrize(("name", "flag"), [("linear", cv2.INTER_LINEAR), ("area", cv2.INTER_AREA)])
def test_pixels_mask_and_header_are_of_the_new_size(folder: Path, name: str, flag: int) -> None:
    source = scan(folder / "images", folder / "mask.png").images["a.png"]
    resized = source.with_size(Resize(40, 45, name))  # type: ignore[arg-type]
    pixels, placement = load_upright(resized)
    expected = cv2.resize(noise_picture(90, 120), (40, 45), interpolation=flag)
    np.testing.assert_array_equal(pixels[..., 0], expected)
    assert placement.image_size.tolist() == [40, 45]
    assert (resized.header.width, resized.header.height) == (40, 45)
    assert placement.mask is not None
    assert placement.mask.shape == (45, 40)
    assert placement.mask[:, :20].all()
    assert not placement.mask[:, 20:].any()


def test_every_size_and_way_has_a_digest_of_its_own(folder: Path) -> None:
    source = scan(folder / "images").images["a.png"]
    sizes = [Resize(40, 45, "linear"), Resize(40, 45, "area"), Resize(45, 40, "area")]
    digests = {source.digest, *(source.with_size(size).digest for size in sizes)}
    turned = source.with_orientation(6)
    assert (
        turned.with_size(sizes[0]).digest == source.with_size(sizes[0]).with_orientation(6).digest
    )
    assert len(digests | {turned.digest, turned.with_size(sizes[0]).digest}) == 6


def test_a_picture_is_turned_upright_after_it_is_resized(folder: Path) -> None:
    source = scan(folder / "images").images["a.png"].with_orientation(6)
    pixels, placement = load_upright(source.with_size(Resize(40, 45, "linear")))
    assert pixels.shape[:2] == (40, 45)
    assert placement.image_size.tolist() == [40, 45]
