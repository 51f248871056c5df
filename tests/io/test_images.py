"""Image files: found by name, decoded in every kind, turned upright once, refused when damaged."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL.ExifTags import Base

from sfm_match.geometry.raster import keep_unmasked, to_file_raster, upright
from sfm_match.io.digests import digest
from sfm_match.io.images import (
    ImageError,
    ImageHeader,
    find_mask,
    list_images,
    read_header,
    read_image,
    read_mask,
)
from sfm_match.types import Features, Image

DATA = os.environ.get("SFM_MATCH_TEST_DATA")
WIDTH, HEIGHT = 44, 30


def picture() -> Image:
    """A smooth picture in colour, which JPEG hardly changes."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT)), np.uint8)


def save(path: Path, pixels: npt.NDArray[Any], **options: Any) -> Path:
    PIL.Image.fromarray(pixels).save(path, **options)
    return path


def save_cv2(path: Path, pixels: npt.NDArray[Any]) -> Path:
    swapped = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    assert cv2.imwrite(str(path), swapped)
    return path


def exif(orientation: int) -> PIL.Image.Exif:
    tags = PIL.Image.Exif()
    tags[Base.Orientation] = orientation
    return tags


# Names and digests


def test_list_images_finds_all_suffixes_and_odd_names(tmp_path: Path) -> None:
    wanted = ["-dash.jpg", "A.JPG", "a b.Jpeg", "a/b/100%.png", "a/b/x.tif", "a-b/x.TIFF"]
    wanted += ["sömmer/日本.bmp", "two.dots.webp"]
    ignored = [".hidden.jpg", ".git/x.jpg", "a/notes.txt", "a/x.jpg.part", "jpg", "a/b/x.heic"]
    for name in wanted + ignored:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == sorted(wanted)


def test_list_images_survives_link_loops_and_lists_no_folder_twice(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "a" / "x.jpg").touch()
    (tmp_path / "elsewhere" / "y.png").touch()
    (tmp_path / "root" / "a" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "c").symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "root") == ["a/x.jpg", "b/y.png"]


def test_list_images_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="missing: no such folder"):
        list_images(tmp_path / "missing")
    file = tmp_path / "x.jpg"
    file.touch()
    with pytest.raises(ImageError, match=r"x\.jpg: is not a folder"):
        list_images(file)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"empty: holds no image \(looked for \.jpg, .*\.webp\)"):
        list_images(tmp_path / "empty")


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_list_images_refuses_names_that_are_not_unicode(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).touch()
    with pytest.raises(ImageError, match="not valid Unicode"):
        list_images(tmp_path)


@given(content=st.binary(max_size=200))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_digest_is_sha256_of_the_bytes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "16.tif", "16.png"])
def test_a_blob_is_found_again_in_the_files_raster(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[6:10, 28:34] = 255  # centre of mass (31, 8), corner origin
    path = tmp_path / f"a.{suffix}"
    if suffix.startswith("16"):
        save_cv2(path, pixels.astype(np.uint16) * 257)
        set_orientation(path, orientation)
    else:
        save(path, pixels, exif=exif(orientation), **({"lossless": 1} if suffix == "webp" else {}))
    loaded = read_image(path, grey=True)
    assert loaded.header == ImageHeader(WIDTH, HEIGHT, orientation) == read_header(path)
    pixels = upright(loaded.pixels, loaded.header.orientation)
    weights = pixels.astype(np.float64)
    weights[weights < 30] = 0  # JPEG's ringing
    rows, columns = np.indices(weights.shape)
    centre = [(weights * grid).sum() / weights.sum() + 0.5 for grid in (columns, rows)]
    found = Features(
        keypoints=np.array([centre], np.float32),
        scores=np.ones(1, np.float32),
        descriptors=np.ones((1, 4), np.float32),
        image_size=np.array(pixels.shape[::-1], np.int32),
    )
    in_file = to_file_raster(found, orientation)
    assert in_file.image_size.tolist() == [WIDTH, HEIGHT]
    np.testing.assert_allclose(in_file.keypoints, [[31, 8]], atol=0.05)


def set_orientation(path: Path, orientation: int) -> None:
    """Give a file that OpenCV wrote an orientation."""
    if path.suffix == ".tif":
        set_tag(path, Base.Orientation, orientation)
        return
    data = path.read_bytes()
    body = b"eXIf" + exif(orientation).tobytes()[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:33] + chunk + data[33:])


def set_tag(path: Path, tag: int, value: int) -> None:
    """Set a tag of one small number in a little-endian TIFF, in a new directory at its end."""
    data = path.read_bytes()
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    found = [data[i : i + 12] for i in range(start + 2, start + 2 + 12 * count, 12)]
    entries = {struct.unpack_from("<H", entry)[0]: entry for entry in found}
    entries[tag] = struct.pack("<HHIHxx", tag, 3, 1, value)
    directory = b"".join(entries[key] for key in sorted(entries))
    head = data[:4] + struct.pack("<I", len(data)) + data[8:]
    path.write_bytes(head + struct.pack("<H", len(entries)) + directory + bytes(4))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reading_turns_nothing(tmp_path: Path, orientation: int) -> None:
    path = save(tmp_path / "a.png", picture(), exif=exif(orientation))
    loaded = read_image(path)
    assert loaded.header.orientation == orientation
    np.testing.assert_array_equal(loaded.pixels, picture())
    assert loaded.pixels.flags.c_contiguous
    assert loaded.pixels.flags.writeable


def test_tiff_that_only_xmp_says_to_turn_is_turned_once(tmp_path: Path) -> None:
    packet = b'<x:xmpmeta tiff:Orientation="6"/>'
    path = save(tmp_path / "a.tif", picture(), tiffinfo={Base.XMLPacket: packet})
    loaded = read_image(path)
    assert loaded.header == ImageHeader(WIDTH, HEIGHT, 6)
    np.testing.assert_array_equal(loaded.pixels, picture())


# Masks


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_mask_is_false_where_it_is_black(tmp_path: Path, orientation: int) -> None:
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[3, 5] = 0, 0, 1  # nearly black is kept
    path = save(tmp_path / "m.png", stored, exif=exif(orientation))
    expected = stored.any(axis=2)
    np.testing.assert_array_equal(read_mask(path), expected)
    faint = save_cv2(tmp_path / "m16.png", np.where(expected, 1, 0).astype(np.uint16))
    faint_pixels = np.asarray(PIL.Image.open(faint))
    assert faint_pixels.max() == 1
    np.testing.assert_array_equal(read_mask(faint), expected)
    bits = tmp_path / "m1.png"
    PIL.Image.fromarray(expected).save(bits)
    np.testing.assert_array_equal(read_mask(bits), expected)


def test_a_mask_drops_keypoints_in_the_files_raster(tmp_path: Path) -> None:
    stored = np.zeros((HEIGHT, WIDTH), np.uint8)
    stored[:, :10] = 255
    mask = read_mask(save(tmp_path / "m.png", stored, exif=exif(6)))
    found = Features(
        keypoints=np.array([[9.9, 29], [10, 29]], np.float32),
        scores=np.array([1, 2], np.float32),
        descriptors=np.ones((2, 4), np.float32),
        image_size=np.array([WIDTH, HEIGHT], np.int32),
    )
    assert keep_unmasked(found, mask).scores.tolist() == [1]


def test_find_mask_knows_the_image_its_folders_and_one_for_all(tmp_path: Path) -> None:
    there = ("a/b.jpg.png", "a/b.png", "a/c.png", "one.png", "rig.png", "rig/cam 0.png")
    for name in (*there, "rig/cam 0/x.JPG.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name, mask in {
        "a/b.jpg": "a/b.jpg.png",
        "a/c.JPG": "a/c.png",
        "rig/cam 0/x.JPG": "rig/cam 0/x.JPG.png",
        "rig/cam 0/y.jpg": "rig/cam 0.png",
        "rig/cam 1/y.jpg": "rig.png",
        "rig/z.jpg": "rig.png",
    }.items():
        assert find_mask(tmp_path, name) == tmp_path / mask
    for name in ("a/d.jpg", "d.jpg", "cam 0/y.jpg", "rigs/y.jpg"):
        assert find_mask(tmp_path, name) is None
    assert find_mask(tmp_path / "one.png", "a/d.jpg") == tmp_path / "one.png"
    with pytest.raises(ImageError, match="nowhere: no such mask file or folder"):
        find_mask(tmp_path / "nowhere", "a/b.jpg")


# Many threads, large files, real files


def test_threads_get_their_own_pictures(tmp_path: Path) -> None:
    paths = [
        save(tmp_path / f"{i}.{suffix}", np.full((20, 10 + i, 3), 5 * i, np.uint8))
        for i in range(8)
        for suffix in ("jpg", "png", "tif")
    ]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(read_image, paths * 3))
    for path, image in zip(paths * 3, images, strict=True):
        assert image.pixels.shape == (20, 10 + int(path.stem), 3)
        assert np.abs(image.pixels.astype(int) - 5 * int(path.stem)).max() <= 1


def test_the_programs_limit_on_pixels_neither_warns_nor_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(tmp_path / f"a.{suffix}", picture()) for suffix in ("png", "tif", "bmp", "jpg")]
    paths.append(save(tmp_path / "lzw.tif", picture(), compression="tiff_lzw", exif=exif(5)))
    paths.append(save_cv2(tmp_path / "deep.tif", picture()[..., 0].astype(np.uint16) * 257))
    for mode in ("1", "L", "P", "CMYK", "RGBA"):
        image = PIL.Image.fromarray(picture()).convert(mode)
        if mode == "RGBA":
            image.putalpha(100)
        paths.append(tmp_path / f"{mode}.tif")
        image.save(paths[-1])
    expected = [read_image(path).pixels for path in paths]
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path, before in zip(paths, expected, strict=True):
            # Libtiff and we round a product with alpha differently.
            assert np.abs(read_image(path).pixels.astype(int) - before).max() <= 1, path
    assert PIL.Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.skipif(DATA is None, reason="SFM_MATCH_TEST_DATA is not set")
@pytest.mark.parametrize("scene", ["fountain-P11", "sacre_coeur"])
def test_real_images_are_decoded_as_pillow_does(scene: str) -> None:
    root = Path(str(DATA)) / scene / "images"
    names = list_images(root)
    assert len(names) >= 10
    for name in names:
        loaded = read_image(root / name)
        with PIL.Image.open(root / name) as image:
            reference = np.asarray(image.convert("RGB"))
        assert np.abs(loaded.pixels.astype(np.int16) - reference).max() <= 2
        luma = reference @ np.array([0.299, 0.587, 0.114])
        grey = read_image(root / name, grey=True).pixels
        # Colours that JPEG holds outside of RGB's range are clipped before they are weighted.
        inside = ((reference > 0) & (reference < 255)).all(axis=2)
        assert np.abs(grey - luma)[inside].max() <= 2
