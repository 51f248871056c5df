"""Masks: which belongs to which image, what it drops, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL.ExifTags import Base

from sfm_match.io.images import ImageError
from sfm_match.stages.extract import extract_some
from sfm_match.stages.scan import Sources, scan
from sfm_match.types import ArrayBool, ArrayI32, Features, Image

WIDTH, HEIGHT = 12, 8


def every_pixel(image: Image) -> Features:
    """An extractor that finds the centre of every pixel; the score is its brightness."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return Features(
        keypoints=(np.stack([x.ravel(), y.ravel()], 1) + 0.5).astype(np.float32),
        scores=image[..., 0].ravel().astype(np.float32),
        descriptors=np.zeros((x.size, 1), np.float32),
        image_size=np.array(image.shape[1::-1], np.int32),
    )


def picture() -> Image:
    """A picture of which every pixel has a brightness of its own."""
    return np.repeat(np.arange(WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH, 1), 3, 2)


def save_picture(path: Path, orientation: int = 1) -> None:
    tags = PIL.Image.Exif()
    tags[Base.Orientation] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(picture()).save(path, exif=tags)


def save_mask(path: Path, kept: ArrayBool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(kept.astype(np.uint8) * 255).save(path)


def mask(rows: slice, columns: slice) -> ArrayBool:
    kept = np.zeros((HEIGHT, WIDTH), np.bool_)
    kept[rows, columns] = True
    return kept


TOP, LEFT = mask(slice(3), slice(None)), mask(slice(None), slice(4))
CORNER = mask(slice(2), slice(2))
ALL = np.ones_like(TOP)


def kept_pixels(sources: Sources, name: str) -> ArrayBool:
    """Return on which pixels of the file an image has keypoints."""
    (found,) = extract_some(every_pixel, [sources.images[name]])
    assert isinstance(found, Features)
    columns, rows = np.floor(found.keypoints).astype(int).T
    kept = np.zeros((HEIGHT, WIDTH), np.bool_)
    kept[rows, columns] = True
    np.testing.assert_array_equal(found.scores, picture()[rows, columns, 0])
    return kept


def check(root: Path, masks: Path, expected: Mapping[str, ArrayBool]) -> None:
    sources = scan(root, masks)
    assert sources.failures == {}
    assert sorted(sources.images) == sorted(expected)
    for name, kept in expected.items():
        np.testing.assert_array_equal(kept_pixels(sources, name), kept, err_msg=name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_as_the_file_does_whatever_exif_says(tmp_path: Path, orientation: int) -> None:
    save_picture(tmp_path / "images/a/1.png", orientation)
    save_mask(tmp_path / "masks/a/1.png.png", TOP & LEFT)
    check(tmp_path / "images", tmp_path / "masks", {"a/1.png": TOP & LEFT})


def test_one_mask_for_all_one_for_each_camera_and_one_for_an_image(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    names = ["loose.png", "rig/left/1.png", "rig/left/2.png", "rig/right/1.png", "rig/right/2.png"]
    for name in names:
        save_picture(images / name)
    save_mask(tmp_path / "all.png", CORNER)
    check(images, tmp_path / "all.png", dict.fromkeys(names, CORNER))
    save_mask(masks / "rig/left.png", TOP)
    save_mask(masks / "rig/right.png", LEFT)
    save_mask(masks / "rig/right/2.png", CORNER)
    check(images, masks, dict(zip(names, (ALL, TOP, TOP, LEFT, CORNER), strict=True)))


@pytest.mark.parametrize("folder", ["images/masks", "images", "images/a/..", "images/a/masks", "."])
def test_masks_beside_the_images_are_no_images(tmp_path: Path, folder: str) -> None:
    save_picture(tmp_path / "images/1.png")
    save_picture(tmp_path / "images/a/2.png")
    save_mask(tmp_path / folder / "1.png.png", TOP)
    save_mask(tmp_path / folder / "a.png", LEFT)
    check(tmp_path / "images", tmp_path / folder, {"1.png": TOP, "a/2.png": LEFT})


def test_a_mask_of_nothing_in_the_masks_below_the_images_is_no_image(tmp_path: Path) -> None:
    save_picture(tmp_path / "1.png")
    save_mask(tmp_path / "masks/1.png.png", TOP)
    save_mask(tmp_path / "masks/gone.png.png", TOP)
    check(tmp_path, tmp_path / "masks", {"1.png": TOP})
    assert list(scan(tmp_path, tmp_path / "masks/1.png.png").images) == [
        "1.png",
        "masks/gone.png.png",
    ]


def test_masks_that_are_not_there(tmp_path: Path) -> None:
    images = tmp_path / "images"
    save_picture(images / "a/1.jpg")
    save_mask(tmp_path / "masks/a/other.jpg.png", TOP)
    save_mask(tmp_path / "masks/a/1.jpg.PNG.tif", TOP)
    with pytest.raises(ImageError) as caught:
        scan(images, tmp_path / "masks")
    assert str(caught.value) == (
        f"{tmp_path / 'masks'}: holds no mask of any image; that of a/1.jpg would be a/1.jpg.png"
    )
    with pytest.raises(ImageError, match="no: no such mask file or folder of masks"):
        scan(images, tmp_path / "no")
    with pytest.raises(ImageError, match="masks: holds no image besides the masks in"):
        scan(tmp_path / "masks", tmp_path / "masks" / "a")


def test_a_mask_that_does_not_fit_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    sizes: dict[str, ArrayI32] = {}
    for name, size, orientation in (
        ("fits.png", (HEIGHT, WIDTH), 1),
        ("small.png", (HEIGHT - 1, WIDTH), 1),
        ("turned.png", (WIDTH, HEIGHT), 6),
    ):
        save_picture(images / name, orientation)
        save_mask(masks / f"{name}.png", np.ones(size, np.bool_))
        sizes[name] = np.array(size, np.int32)
    save_picture(images / "damaged.png")
    (masks / "damaged.png.png").write_bytes(b"no picture")
    sources = scan(images, masks)
    assert list(sources.images) == ["fits.png"]
    small, turned = masks / "small.png.png", masks / "turned.png.png"
    damaged = sources.failures.pop("damaged.png")
    assert damaged.startswith(f"{masks / 'damaged.png.png'}: is not a JPEG, PNG")
    assert sources.failures == {
        "small.png": f"{small}: the mask is 12 x 7 pixels, its image 12 x 8",
        "turned.png": f"{turned}: the mask is 8 x 12 pixels, its image 12 x 8; turn it back, a "
        "mask lies as the image's file does",
    }


def test_the_digest_is_of_the_image_and_its_mask(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    for name in ("left/1.png", "left/2.png", "right/1.png"):
        save_picture(images / name)

    def digests() -> list[bytes]:
        return [source.digest for source in scan(images, masks).images.values()]

    save_mask(masks / "left.png", TOP)
    without = [source.digest for source in scan(images).images.values()]
    first = digests()
    assert len(set(without)) == 1
    assert [a == b for a, b in zip(first, without, strict=True)] == [False, False, True]
    save_mask(masks / "left.png", LEFT)
    second = digests()
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, False, True]
    save_mask(masks / "left/2.png.png", TOP)  # as the folder's was: the same pixels, the same item
    assert digests() == [second[0], first[1], second[2]]
