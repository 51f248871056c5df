from __future__ import annotations

from typing import Any

import pycolmap
import pytest

from sfm_match.geometry.cameras import Cameras, Config, ImageInfo, assign_cameras
from sfm_match.spec import ConfigError, parse_config

MODELS = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
CANON = ("Canon", "EOS 5D", 50.0)


def info(
    name: str, width: int = 640, height: int = 480, focal: float | None = None, body: Any = None
) -> ImageInfo:
    return ImageInfo(name, width, height, focal, body)


def assign(*images: ImageInfo, **options: Any) -> Cameras:
    return assign_cameras(images, parse_config(Config, options, "camera"))


def groups(cameras: Cameras) -> list[set[str]]:
    ids = sorted(set(cameras.of_image.values()))
    assert ids == sorted(cameras.cameras) == list(range(1, len(ids) + 1))
    return [{name for name, i in cameras.of_image.items() if i == camera_id} for camera_id in ids]


# --- which images share a camera ------------------------------------------------------------------

FOLDERS = [info("b/1.jpg"), info("a/1.jpg"), info("a/2.jpg"), info("3.jpg"), info("a/c/1.jpg")]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("single", [{"3.jpg", "a/1.jpg", "a/2.jpg", "a/c/1.jpg", "b/1.jpg"}]),
        ("per_folder", [{"3.jpg"}, {"a/1.jpg", "a/2.jpg"}, {"a/c/1.jpg"}, {"b/1.jpg"}]),
        ("per_image", [{"3.jpg"}, {"a/1.jpg"}, {"a/2.jpg"}, {"a/c/1.jpg"}, {"b/1.jpg"}]),
        # Without EXIF data nothing says that two images are of one camera.
        ("auto", [{"3.jpg"}, {"a/1.jpg"}, {"a/2.jpg"}, {"a/c/1.jpg"}, {"b/1.jpg"}]),
    ],
)
def test_modes(mode: str, expected: list[set[str]]) -> None:
    assert groups(assign(*FOLDERS, mode=mode)) == expected
    assert groups(assign(*FOLDERS[::-1], mode=mode)) == expected


def test_auto_tells_bodies_focal_lengths_and_sizes_apart() -> None:
    cameras = assign(
        info("1.jpg", focal=900.0, body=CANON),
        info("2.jpg", focal=900.0, body=CANON),
        info("3.jpg", focal=800.0, body=CANON),
        info("4.jpg", focal=900.0, body=("Nikon", "D5", 50.0)),
        info("5.jpg", 480, 640, focal=900.0, body=CANON),
        info("6.jpg", focal=900.0, body=CANON),
    )
    assert groups(cameras) == [{"1.jpg", "2.jpg", "6.jpg"}, {"3.jpg"}, {"4.jpg"}, {"5.jpg"}]


@pytest.mark.parametrize("mode", ["single", "per_folder"])
def test_images_of_different_sizes_cannot_share_a_camera(mode: str) -> None:
    images = info("a/1.jpg"), info("a/2.jpg", 480, 640)
    with pytest.raises(ConfigError) as error:
        assign(*images, mode=mode)
    for part in (f"camera.mode={mode}", "a/2.jpg is 480 x 640", "640 x 480", "camera.mode=auto"):
        assert part in str(error.value)
    assert len(assign(*images, mode="auto").cameras) == 2


def test_a_camera_is_found_by_the_image() -> None:
    cameras = assign(info("a.jpg"), info("b.jpg", 800, 600), fixed=True)
    assert cameras["b.jpg"].width == 800
    assert cameras["a.jpg"].camera_id == 1
    assert cameras.fixed is True
    assert assign(info("a.jpg")).fixed is False


# --- intrinsics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_colmap(model: str) -> None:
    camera = assign(info("a.jpg", focal=700.0), model=model)["a.jpg"]
    assert camera.model.name == model
    assert camera.verify_params()
    if camera.focal_length_idxs():
        assert camera.mean_focal_length() == 700
        assert (camera.principal_point_x, camera.principal_point_y) == (320, 240)
        assert len(camera.params) == len(camera.params_info.split(","))
    assert (camera.width, camera.height) == (640, 480)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"camera\.model: .*did you mean .*SIMPLE_RADIAL"):
        assign(info("a.jpg"), model="SIMPLERADIAL")
    with pytest.raises(ConfigError, match=r"camera\.model: .*no such camera model"):
        assign(info("a.jpg"), model="INVALID")


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640)])
def test_without_exif_the_focal_length_is_guessed(width: int, height: int) -> None:
    camera = assign(info("a.jpg", width, height))["a.jpg"]
    assert camera.mean_focal_length() == 1.2 * 640
    assert not camera.has_prior_focal_length
    wide = assign(info("a.jpg", width, height), focal_factor=0.5)["a.jpg"]
    assert wide.mean_focal_length() == 320


def test_the_focal_length_of_exif_is_a_prior() -> None:
    camera = assign(info("a.jpg", focal=700.0, body=CANON))["a.jpg"]
    assert list(camera.params) == [700, 320, 240, 0]
    assert camera.has_prior_focal_length


@pytest.mark.parametrize("params", ["600,310,250", " 600, 310 , 250 ", [600, 310, 250]])
def test_parameters_as_a_list_or_as_text(params: Any) -> None:
    cameras = assign(
        info("a.jpg", focal=700.0), info("b.jpg"), model="SIMPLE_PINHOLE", params=params
    )
    for name in ("a.jpg", "b.jpg"):
        assert list(cameras[name].params) == [600, 310, 250]
        assert cameras[name].has_prior_focal_length


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("600,320", r"camera\.params: SIMPLE_RADIAL has the parameters f, cx, cy, k, got 2 numb"),
        ("600,600,320,240,0", r"f, cx, cy, k, got 5 numbers"),
        ("600,320,240,k", r"camera\.params\.3: .*valid number.*, got 'k'"),
        ("", r"camera\.params\.0: "),
        (600, r"camera\.params: "),
    ],
)
def test_wrong_parameters_are_named(params: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assign(info("a.jpg"), params=params)


# --- digests --------------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_intrinsics() -> None:
    plain = assign(info("a.jpg"), info("b.jpg"))
    assert plain.digest("a.jpg") == plain.digest("b.jpg")
    assert len(plain.digest("a.jpg")) == 32
    others = [
        assign(info("a.jpg", 480, 640)),
        assign(info("a.jpg", focal=700.0)),
        assign(info("a.jpg", focal=768.0)),  # the guess, but known
        assign(info("a.jpg"), model="PINHOLE"),
        assign(info("a.jpg"), params="768,320,241,0"),
    ]
    digests = [cameras.digest("a.jpg") for cameras in (plain, *others)]
    assert len(set(digests)) == len(digests)
    known = info("a.jpg", focal=700.0)
    assert assign(known, fixed=True).digest("a.jpg") == assign(known).digest("a.jpg")


def test_fixed_intrinsics_count_as_known() -> None:
    assert not assign(info("a.jpg"))["a.jpg"].has_prior_focal_length
    assert assign(info("a.jpg"), fixed=True)["a.jpg"].has_prior_focal_length


@pytest.mark.parametrize(
    "params", ["nan,240,180,0", "-5,240,180,0", "600,600,240,180", "600,240,900,0"]
)
def test_parameters_of_another_model_or_image_are_refused(params: str) -> None:
    with pytest.raises(
        ConfigError, match=r"camera\.params: SIMPLE_RADIAL has the parameters f, cx"
    ):
        assign(info("a.jpg", 480, 360), params=params)
