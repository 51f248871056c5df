"""Positions from EXIF, as pycolmap reads them, and only where there are valid ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL.Image
import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from sfm_match.io.exif import camera_tags
from sfm_match.io.gps import gps_position

R = IFDRational
PARIS: dict[int, Any] = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (R(48), R(51), R(3024, 100)),
    GPS.GPSLongitudeRef: "E",
    GPS.GPSLongitude: (R(2), R(17), R(401, 10)),
    GPS.GPSAltitudeRef: b"\0",
    GPS.GPSAltitude: R(355, 10),
}
SOUTH_WEST: dict[int, Any] = {
    GPS.GPSLatitudeRef: "S",
    GPS.GPSLongitudeRef: "W",
    GPS.GPSAltitudeRef: b"\1",
}


def write(path: Path, tags: dict[Any, Any]) -> Path:
    image = PIL.Image.new("RGB", (64, 48))
    if path.suffix == ".tif":
        directory = ImageFileDirectory_v2()
        directory.update({Base.Make: "Nobody", IFD.GPSInfo: tags})
        image.save(path, tiffinfo=directory)
        return path
    exif = PIL.Image.Exif()
    exif[Base.Make] = "Nobody"
    exif.get_ifd(IFD.GPSInfo).update(tags)
    image.save(path, exif=exif)
    return path


def without(*left_out: int) -> dict[int, Any]:
    return {tag: value for tag, value in PARIS.items() if tag not in left_out}


CASES = {
    "north-east": PARIS,
    "south-west": PARIS | SOUTH_WEST,
    "no letters": without(GPS.GPSLatitudeRef, GPS.GPSLongitudeRef),
    "no altitude letter": without(GPS.GPSAltitudeRef),
    "decimal degrees": PARIS | {GPS.GPSLatitude: (R(488_506, 10_000), R(0), R(0))},
}


def test_positions_are_pycolmaps(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for title, tags in CASES.items():
        write(images / f"{title}.jpg", tags)
    pycolmap.Database.open(tmp_path / "a.db").close()
    pycolmap.import_images(tmp_path / "a.db", images)
    with pycolmap.Database.open(tmp_path / "a.db") as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        priors = {names[p.corr_data_id.id]: p.position for p in database.read_all_pose_priors()}
    assert set(priors) == {f"{title}.jpg" for title in CASES}
    for name, position in priors.items():
        found = camera_tags(images / name).position
        assert found is not None
        assert (found.latitude, found.longitude, found.altitude) == pytest.approx(position)


def test_a_position_needs_no_altitude(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", without(GPS.GPSAltitude, GPS.GPSAltitudeRef))
    found = camera_tags(path).position
    assert found is not None
    assert found.latitude == pytest.approx(48 + 51 / 60 + 30.24 / 3600)
    assert found.altitude is None


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_positions_count_in_every_format(tmp_path: Path, suffix: str) -> None:
    found = camera_tags(write(tmp_path / f"a.{suffix}", PARIS)).position
    assert found is not None
    assert (found.longitude, found.altitude) == pytest.approx((2 + 17 / 60 + 40.1 / 3600, 35.5))


def test_an_image_without_exif_has_no_position(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg")
    assert camera_tags(tmp_path / "a.jpg").position is None


@pytest.mark.parametrize(
    "change",
    [
        {GPS.GPSLatitude: (R(0, 0), R(0), R(0))},
        {GPS.GPSLatitude: (R(91), R(0), R(0))},
        {GPS.GPSLongitude: (R(181), R(0), R(0))},
        {GPS.GPSLongitude: (R(-2), R(0), R(0))},
        {GPS.GPSLongitude: ()},
        {GPS.GPSLongitude: "2"},
        {GPS.GPSLongitude: ("two", R(0), R(0))},
        {GPS.GPSLatitude: (R(0),) * 3, GPS.GPSLongitude: (R(0),) * 3},
    ],
)
def test_invalid_positions_are_none(change: dict[int, Any]) -> None:
    assert gps_position(PARIS | change) is None
    assert gps_position(PARIS) is not None


def test_an_undefined_altitude_is_not_known() -> None:
    found = gps_position(PARIS | {GPS.GPSAltitude: R(0, 0)})
    assert found is not None
    assert found.altitude is None


@given(st.integers(0, 89), st.integers(0, 59), st.integers(0, 59), st.booleans(), st.booleans())
def test_signs_and_sums(
    degrees: int, minutes: int, seconds: int, south: bool, as_bytes: bool
) -> None:
    letter = "S" if south else "N"
    found = gps_position(
        {
            GPS.GPSLatitudeRef: letter.encode() + b"\0" if as_bytes else letter,
            GPS.GPSLatitude: (float(degrees), float(minutes), float(seconds)),
            GPS.GPSLongitude: (1.0,),
        }
    )
    size = degrees + minutes / 60 + seconds / 3600
    assert found is not None
    assert found.latitude == pytest.approx(-size if south else size)
    assert found.longitude == 1
