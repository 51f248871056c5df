"""Headers: sizes and orientations without decoding, and pycolmap's focal lengths."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pycolmap
import pytest
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from sfm_match.io.exif import ImageError, ImageHeader, camera_tags, read_header

FILM = {Base.FocalLengthIn35mmFilm: 28}
FOCAL = {Base.FocalLength: IFDRational(58, 10)}
PLANE = {**FOCAL, Base.FocalPlaneXResolution: IFDRational(4438356, 1415)}
LISTED = {Base.Make: "Canon", Base.Model: "PowerShot SX110 IS"}
UNLISTED = {Base.Make: "Nobody", Base.Model: "No. 1"}


def write(
    path: Path,
    sub: dict[Any, Any],
    main: dict[Any, Any] | None = None,
    size: tuple[int, int] = (64, 48),
) -> Path:
    image = PIL.Image.new("RGB", size)
    if path.suffix == ".tif":
        directory = ImageFileDirectory_v2()
        directory.update({**(main or {}), IFD.Exif: sub})
        image.save(path, tiffinfo=directory)
        return path
    exif = PIL.Image.Exif()
    exif.update(main or {})
    exif.get_ifd(IFD.Exif).update(sub)
    image.save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("size", [(64, 48), (48, 64), (64, 1)])
@pytest.mark.parametrize(
    ("sub", "main"),
    [
        ({}, {}),
        (FILM, {}),
        ({Base.FocalLengthIn35mmFilm: 0}, {}),
        (FOCAL, {}),
        *[({**PLANE, Base.FocalPlaneResolutionUnit: unit}, {}) for unit in range(1, 6)],
        (PLANE, {}),
        (FOCAL, LISTED),
        (FOCAL, UNLISTED),
        ({**PLANE, Base.FocalPlaneResolutionUnit: 2}, LISTED),
        ({**PLANE, **FILM, Base.FocalPlaneResolutionUnit: 2}, LISTED),
        (FILM, {Base.Orientation: 6}),
    ],
)
def test_focal_length_is_pycolmaps(
    tmp_path: Path,
    sub: dict[Any, Any],
    main: dict[Any, Any],
    size: tuple[int, int],
    suffix: str,
) -> None:
    path = write(tmp_path / f"a.{suffix}", sub, main, size)
    camera = pycolmap.infer_camera_from_image(path)
    expected = float(camera.params[0]) if camera.has_prior_focal_length else None
    assert camera_tags(path).focal == (
        None if expected is None else pytest.approx(expected, rel=1e-6)
    )


def test_a_camera_of_colmaps_list_has_its_sensor_width(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", FOCAL, LISTED)
    assert camera_tags(path).focal == pytest.approx(5.8 / 6.16 * 64)
    assert camera_tags(write(tmp_path / "b.jpg", FOCAL, UNLISTED)).focal is None


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_counts_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", FILM, {Base.Orientation: 8})
    assert camera_tags(path).focal == pytest.approx(28 / 43.27 * 80)
    assert read_header(path) == ImageHeader(width=64, height=48, orientation=8)


@pytest.mark.parametrize("resolution", [IFDRational(0), IFDRational(1, 0)])
def test_senseless_resolutions_give_no_prior(tmp_path: Path, resolution: IFDRational) -> None:
    sub = {**PLANE, Base.FocalPlaneXResolution: resolution, Base.FocalPlaneResolutionUnit: 2}
    assert camera_tags(write(tmp_path / "a.jpg", sub)).focal is None


def test_an_undefined_focal_length_gives_no_prior(tmp_path: Path) -> None:
    sub = {Base.FocalLength: IFDRational(0, 0)}
    assert camera_tags(write(tmp_path / "a.jpg", sub, LISTED)).focal is None


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_invalid_orientations_count_as_upright(tmp_path: Path, value: int) -> None:
    path = write(tmp_path / "a.jpg", {}, {Base.Orientation: value})
    assert read_header(path).orientation == 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    PIL.Image.new("RGB", (5, 4)).save(path, exif=b"Exif\0\0nonsense")
    assert read_header(path) == ImageHeader(width=5, height=4, orientation=1)
    assert camera_tags(path).focal is None


def test_exif_behind_a_png_files_pixels_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", {}, {Base.Orientation: 6})
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    path.write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    assert path.read_bytes().index(b"eXIf") > path.read_bytes().index(b"IDAT")
    assert read_header(path).orientation == 6


def test_the_header_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    assert read_header(path) == ImageHeader(width=400, height=300, orientation=1)


def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    PIL.Image.new("1", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") + (20_000).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"huge\.png: 30000 x 20000 pixels is more than the 500 m"):
        read_header(path)
