from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from sfm_match.io.images import ImageError
from sfm_match.training.pictures import LICENCES, free_photographs, leaves, made_up, read_pictures
from tests.training.test_warps import picture


def test_all_pictures_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    PillowImage.fromarray(picture(0)).save(tmp_path / "b" / "x.png")
    PillowImage.fromarray(picture(1, (60, 80))[..., 0]).save(tmp_path / "a.png")
    found = read_pictures(tmp_path)
    assert [image.shape for image in found] == [(60, 80, 3), (300, 400, 3)]
    np.testing.assert_array_equal(found[1], picture(0))
    with pytest.raises(ImageError):
        read_pictures(tmp_path / "nothing")


def test_the_free_photographs_are_there_and_not_in_the_gallery() -> None:
    pytest.importorskip("sklearn")
    found = free_photographs()
    assert len(found) == len(LICENCES) == 10
    assert all(image.ndim == 3 and image.dtype == np.uint8 for image in found)
    text = (Path(__file__).parents[2] / "datasets" / "gallery" / "README.md").read_text()
    used, reserved = text.split("Reserved for training data")
    for name in LICENCES:
        if name.startswith("skimage"):
            assert Path(name).name in reserved
            assert Path(name).name not in used


def test_made_up_pictures_come_from_their_seed() -> None:
    images = made_up(5, [picture(0)], 3)
    assert [image.shape for image in images] == [(480, 640, 3)] * 3
    digests = {hashlib.sha256(image.tobytes()).hexdigest() for image in images}
    assert len(digests) == 3
    np.testing.assert_array_equal(made_up(5, [picture(0)], 1)[0], images[0])
    # Leaves of all sizes: detail everywhere, but no noise without structure.
    covered = leaves(np.random.default_rng(1), (200, 200), num=600).mean(axis=2)
    tiles = covered.reshape(10, 20, 10, 20).std(axis=(1, 3))
    assert (tiles > 4).mean() > 0.9
