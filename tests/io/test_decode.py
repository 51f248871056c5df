"""Decoding: the values of every kind of pixel, and damage that is always noticed."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL.ExifTags import Base

from sfm_match.io.images import ImageError, read_image
from sfm_match.types import Image
from tests.io.test_images import HEIGHT, WIDTH, picture, save, save_cv2, set_tag

EXTRA_SAMPLES = 338
RAMP = np.linspace(0, 255, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, axis=0)


def grey_of(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def pillow_image(mode: str) -> PIL.Image.Image:
    image = PIL.Image.fromarray(picture())
    if mode in ("RGBA", "LA"):
        image = image.convert(mode[:-1])
        image.putalpha(PIL.Image.fromarray(RAMP))
        return image
    return image.quantize(16) if mode == "P" else image.convert(mode)


KINDS = [
    *[("tif", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")],
    *[("tif", m, {"compression": "tiff_lzw"}) for m in ("1", "L", "LA", "P", "RGB", "RGBA")],
    ("tif", "1", {"compression": "group4"}),
    ("tif", "RGB", {"compression": "jpeg"}),
    ("tif", "RGB", {"compression": "tiff_adobe_deflate"}),
    *[("png", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
    *[("bmp", mode, {}) for mode in ("1", "L", "P", "RGB")],
    ("ppm", "RGB", {}),
    ("pgm", "L", {}),
    *[("webp", mode, {"lossless": True}) for mode in ("RGB", "RGBA")],
    *[("jpg", mode, {}) for mode in ("L", "RGB", "CMYK")],
    *[("jpg", "RGB", {"progressive": True}), ("jpg", "RGB", {"keep_rgb": True})],
]


@pytest.mark.parametrize(("suffix", "mode", "options"), KINDS)
def test_every_kind_gives_its_colours(
    tmp_path: Path, suffix: str, mode: str, options: dict[str, Any]
) -> None:
    path = tmp_path / f"a.{suffix}"
    pillow_image(mode).save(path, **options)
    with PIL.Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(np.float64)
        if mode in ("LA", "RGBA"):
            expected *= np.asarray(image.getchannel("A"))[..., None] / 255
    loaded = read_image(path).pixels
    assert loaded.dtype == np.uint8
    assert loaded.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(loaded - expected).max() <= 0.5 + 1e-9
    grey = read_image(path, grey=True).pixels
    assert grey.dtype == np.uint8
    assert grey.shape == (HEIGHT, WIDTH)
    assert np.abs(grey.astype(int) - grey_of(loaded)).max() <= 1


def test_what_hides_under_transparent_pixels_is_not_seen(tmp_path: Path) -> None:
    pixels = np.full((4, 6, 4), 200, np.uint8)
    pixels[..., 3] = [0, 0, 0, 255, 255, 255]
    for name in ("a.png", "a.tif", "a.webp"):
        options = {"lossless": True, "exact": True} if name == "a.webp" else {}
        loaded = read_image(save(tmp_path / name, pixels, **options)).pixels
        assert loaded[:, :3].max() == 0
        assert loaded[:, 3:].min() == 200


def test_a_transparent_palette_entry_is_not_seen(tmp_path: Path) -> None:
    image = PIL.Image.new("P", (4, 3), 1)
    image.putpalette([10, 20, 30, 200, 210, 220])
    image.putpixel((2, 1), 0)
    image.save(tmp_path / "a.png", transparency=1)
    expected = np.zeros((3, 4, 3), np.uint8)
    expected[1, 2] = 10, 20, 30
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, expected)


# 16 bits and floats


@pytest.mark.parametrize(
    ("suffix", "channels"), [("png", 1), ("png", 3), ("png", 4), ("tif", 1), ("tif", 3), ("pgm", 1)]
)
@pytest.mark.parametrize("bits", [5, 8, 10, 12, 14, 16])
def test_deep_pixels_are_scaled_by_the_bits_in_use(
    tmp_path: Path, suffix: str, channels: int, bits: int
) -> None:
    top = 2**bits - 1
    deep = np.random.default_rng(bits).integers(0, top + 1, (9, 7, channels)).astype(np.uint16)
    deep[0, 0] = top
    if channels == 4:
        deep[..., 3] = 65535
    path = save_cv2(tmp_path / f"a.{suffix}", deep[..., 0] if channels == 1 else deep)
    expected = deep[..., :3] * (255 / max(top, 255))
    loaded = read_image(path).pixels
    assert np.abs(loaded - expected).max() <= 0.5 + 1e-9
    assert np.abs(read_image(path, grey=True).pixels.astype(int) - grey_of(loaded)).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_alpha_is_blended_before_scaling(tmp_path: Path, suffix: str) -> None:
    deep = np.full((5, 4, 4), 60000, np.uint16)
    deep[..., 3] = 32768
    deep[0, 0, 3] = 65535  # keeps all 16 bits in use
    path = save_cv2(tmp_path / f"a.{suffix}", deep)
    if suffix == "tif":
        set_tag(path, EXTRA_SAMPLES, 2)
    blended = 60000 * (deep[..., 3:] / 65535)
    assert np.abs(read_image(path).pixels - blended / 257).max() <= 0.51


@pytest.mark.parametrize("meaning", [0, 1])  # unspecified; alpha that is multiplied in already
def test_other_fourth_samples_of_deep_tiff_are_ignored(tmp_path: Path, meaning: int) -> None:
    deep = np.full((5, 4, 4), 65535, np.uint16)
    deep[..., 3] = 100
    path = save_cv2(tmp_path / "a.tif", deep)
    set_tag(path, EXTRA_SAMPLES, meaning)
    assert read_image(path).pixels.min() == 255


def test_deep_tiff_with_white_as_zero_is_refused(tmp_path: Path) -> None:
    path = save_cv2(tmp_path / "a.tif", np.full((5, 4), 60000, np.uint16))
    set_tag(path, Base.PhotometricInterpretation, 0)
    with pytest.raises(ImageError, match=r"a\.tif: 16-bit TIFF with white as zero"):
        read_image(path)


def test_floats_from_0_to_1_are_scaled_and_others_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    loaded = read_image(save(tmp_path / "a.tif", values), grey=True).pixels
    assert np.abs(loaded - values * 255).max() <= 0.5 + 1e-4
    for wrong in (values * 2, values - 0.5, np.where(values > 0.5, np.nan, values)):
        path = save(tmp_path / "b.tif", wrong.astype(np.float32))
        with pytest.raises(ImageError, match=r"b\.tif: has values from .* must be in \[0, 1\]"):
            read_image(path)


def test_32_bit_integers_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", np.full((4, 5), 70000, np.int32))
    with pytest.raises(ImageError, match=r"a\.tif: has int32 pixels"):
        read_image(path)


# Sizes and damage


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "ppm", "webp"])
def test_one_pixel_is_an_image(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", np.full((1, 1, 3), 100, np.uint8))
    assert np.abs(read_image(path).pixels.astype(int) - 100).max() <= 2
    assert read_image(path, grey=True).pixels.shape == (1, 1)


def test_unusable_files_are_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").touch()
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html>Not found</html>")
    (tmp_path / "folder.jpg").mkdir()
    save(tmp_path / "heart.gif", picture()).rename(tmp_path / "gif.png")
    for name, reason in {
        "zero.jpg": "the file is empty",
        "page.jpg": "is not a JPEG, PNG, TIFF, BMP, PPM or WebP file",
        "folder.jpg": "is a folder",
        "missing.jpg": "no such file",
        "gif.png": "it starts with b'GIF8",
    }.items():
        with pytest.raises(ImageError, match=f"{name}: .*{reason}"):
            read_image(tmp_path / name)


def test_a_format_is_known_by_its_contents(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture()).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(path).pixels, picture())


CUTS = [
    *[("jpg", {}, cut) for cut in (3, 20, 400, 0.5, 0.9, -20, -2, -1)],
    *[("jpg", {"progressive": True}, cut) for cut in (0.4, 0.9, -1)],
    *[("png", {}, cut) for cut in (9, 30, 60, 0.5, 0.9, -30)],
    *[("tif", {}, cut) for cut in (5, 0.5, -1)],
    *[("tif", {"compression": "tiff_lzw"}, cut) for cut in (0.5, -1)],
    *[("bmp", {}, cut) for cut in (20, 0.5, -1)],
    *[("ppm", {}, cut) for cut in (4, 0.5, -1)],
    *[("webp", {}, cut) for cut in (20, 0.5, -1)],
]


@pytest.mark.parametrize(("suffix", "options", "cut"), CUTS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about TIFF cut in its header
def test_truncated_files_are_refused(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    suffix: str,
    options: dict[str, Any],
    cut: float,
) -> None:
    path = save(tmp_path / f"a.{suffix}", picture(), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data)) if isinstance(cut, float) else int(cut)])
    for grey in (False, True):
        with pytest.raises(ImageError, match=rf"a\.{suffix}: "):
            read_image(path, grey)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("cut", [0.5, 0.9, -13])
def test_truncated_deep_png_is_refused(tmp_path: Path, cut: float) -> None:
    path = save_cv2(tmp_path / "a.png", picture().astype(np.uint16) * 257)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data)) if isinstance(cut, float) else cut])
    with pytest.raises(ImageError, match=r"a\.png: the PNG file is truncated"):
        read_image(path)


def test_jpeg_with_a_thumbnail_and_a_trailer_is_cut_where_its_own_data_end(tmp_path: Path) -> None:
    thumbnail = save(tmp_path / "t.jpg", picture()[:8, :8]).read_bytes()
    path = save(tmp_path / "a.jpg", picture(), exif=b"Exif\0\0" + thumbnail)
    data = path.read_bytes()
    path.write_bytes(data + b"trailer" + thumbnail)
    assert read_image(path).pixels.shape == (HEIGHT, WIDTH, 3)
    path.write_bytes(data[:-10])
    with pytest.raises(ImageError, match="truncated"):
        read_image(path)


FILES: dict[str, dict[str, Any]] = {
    "jpg": {},
    "png": {},
    "tif": {"compression": "tiff_lzw"},
    "bmp": {},
    "webp": {},
}


@pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged TIFF directories
@given(
    suffix=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=3),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_bytes_give_a_picture_or_an_image_error(
    tmp_path: Path, suffix: str, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path / f"a.{suffix}"
    save(path, picture(), **FILES[suffix])
    data = bytearray(path.read_bytes())
    for position, value in changes:
        data[position] = value
    path.write_bytes(data)
    try:
        outcome = str(read_image(path).pixels.dtype)
    except ImageError as error:
        outcome = str(error)
    assert outcome == "uint8" or outcome.startswith(f"{path}: ")


@pytest.mark.slow
def test_an_image_above_pillows_limit_is_read(tmp_path: Path) -> None:
    side = 14_000  # 196 megapixels; Pillow raises above 179
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(side * (side + 1)), 1)),
        (b"IEND", b""),
    ]
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            for name, body in chunks
        )
    )
    assert read_image(path, grey=True).pixels.shape == (side, side)
