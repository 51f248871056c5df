from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from sfm_match.geometry import poses
from sfm_match.io.exif import ImageHeader
from sfm_match.io.model import ModelError
from sfm_match.spec import ConfigError
from sfm_match.stages.pair_truth import read_truth
from tests.pose_lists import line_of, write_list
from tests.pose_models import random_poses, write

IMAGES = Path("images")


def looking(*degrees: float) -> dict[str, np.ndarray]:
    """Cameras that are turned about the vertical, rolled by 40 degrees and moved sideways."""
    roll = Rotation.from_euler("z", 40, degrees=True)
    return {
        f"{i}.jpg": np.column_stack(
            [(roll * Rotation.from_euler("y", d, degrees=True)).as_matrix(), [i, 0, 0]]
        )
        for i, d in enumerate(degrees)
    }


# --- models ---------------------------------------------------------------------------------------


def test_all_pairs_of_a_model(tmp_path: Path) -> None:
    world = random_poses(4)
    truth = read_truth(write(tmp_path / "m", world), IMAGES, list(world))
    assert truth.names == sorted(world)
    assert [pair.names for pair in truth.pairs][:2] == [
        ("image 0000.jpg", "image 0001.jpg"),
        ("image 0000.jpg", "image 0002.jpg"),
    ]
    assert len(truth.pairs) == 6
    for pair in truth.pairs:
        a, b = pair.names
        expected = poses.relative_pose(world[a], world[b])
        np.testing.assert_allclose(pair.cam1_from_cam0, expected, atol=1e-12)
        assert list(pair.cameras[0].params) == [90, 90, 50, 40]


def test_images_of_a_model_that_are_not_there_are_named(tmp_path: Path) -> None:
    world = random_poses(5)
    folder = write(tmp_path / "m", world)
    truth = read_truth(folder, IMAGES, [*sorted(world)[:3], "other.jpg"])
    assert len(truth.pairs) == 3
    assert truth.missing == ("image 0003.jpg", "image 0004.jpg")
    with pytest.raises(ModelError, match="1 of its 5 images with a pose are in images") as error:
        read_truth(folder, IMAGES, ["image 0003.jpg", "other.jpg"])
    assert "the folder image 0003.jpg, other.jpg" in str(error.value)


def test_the_angle_is_the_one_between_the_viewing_directions(tmp_path: Path) -> None:
    world = looking(0, 10, 30)
    folder = write(tmp_path / "m", world)
    truth = read_truth(folder, IMAGES, list(world))
    assert [pair.angle for pair in truth.pairs] == pytest.approx([10, 30, 20], abs=1e-9)
    assert [p.names for p in truth.within(15, 25).pairs] == [("1.jpg", "2.jpg")]
    assert truth.within(0, 180) is truth
    assert len(truth.within(0, 20.1).pairs) == 2
    with pytest.raises(ConfigError, match=r"no pair has 40 to 90 .* they have 10\.0 to 30\.0"):
        truth.within(40, 90)


def test_cameras_at_one_place_have_no_baseline(tmp_path: Path) -> None:
    world = random_poses(2)
    first, second = world.values()
    turn = Rotation.from_euler("x", 5, degrees=True).as_matrix()
    world["still.jpg"] = turn @ first
    truth = read_truth(write(tmp_path / "m", world), IMAGES, list(world))
    still = [not pair.cam1_from_cam0[:, 3].any() for pair in truth.pairs]
    assert still == [False, True, False]
    assert second.shape == (3, 4)


@pytest.mark.parametrize(
    ("size", "params"),
    [
        ((100, 80), [90, 90, 50, 40]),
        ((50, 40), [45, 45, 25, 20]),
        ((1000, 800), [900, 900, 500, 400]),
        # 33.3 x 26.7 in whole pixels
        ((33, 27), [29.7, 30.375, 16.5, 13.5]),
    ],
)
def test_cameras_of_a_model_are_scaled_to_resized_images(
    tmp_path: Path, size: tuple[int, int], params: list[float]
) -> None:
    world = random_poses(3)
    truth = read_truth(write(tmp_path / "m", world), IMAGES, list(world))
    fitted = truth.fitted({name: ImageHeader(*size, 1) for name in world})
    for camera in (camera for pair in fitted.pairs for camera in pair.cameras):
        assert list(camera.params) == pytest.approx(params)
        assert (camera.width, camera.height) == size
    assert list(truth.pairs[0].cameras[0].params) == [90, 90, 50, 40]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((80, 100), "the image is 80 x 100 pixels, its camera 100 x 80: one of them is turned"),
        ((100, 60), "the image is 100 x 60 pixels, its camera 100 x 80: not the same picture"),
        ((50, 42), ".* not the same picture resized"),
    ],
)
def test_images_of_another_shape_are_refused(
    tmp_path: Path, size: tuple[int, int], message: str
) -> None:
    world = random_poses(2)
    truth = read_truth(write(tmp_path / "m", world), IMAGES, list(world))
    with pytest.raises(ConfigError, match=rf"m: image 0001\.jpg: {message}"):
        truth.fitted({"image 0001.jpg": ImageHeader(*size, 1)})


def test_a_camera_without_a_focal_length_is_refused(tmp_path: Path) -> None:
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera.create_from_model_name(1, "EQUIRECTANGULAR", 1, 200, 100)
    model.add_camera_with_trivial_rig(camera)
    for i, pose in enumerate(random_poses(2).values(), start=1):
        image = pycolmap.Image(name=f"{i}.jpg", camera_id=1, image_id=i)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    truth = read_truth(write(tmp_path / "m", model), IMAGES, ["1.jpg", "2.jpg"])
    with pytest.raises(ConfigError, match="camera model EQUIRECTANGULAR has no focal length"):
        truth.fitted({"1.jpg": ImageHeader(200, 100, 1)})


# --- lists ----------------------------------------------------------------------------------------


def test_a_list_keeps_its_order_and_its_repetitions(tmp_path: Path) -> None:
    path = write_list(tmp_path, line_of("b.jpg a.jpg"), line_of(), line_of())
    truth = read_truth(path, IMAGES, ["a.jpg", "b.jpg", "c.jpg"])
    assert [pair.names for pair in truth.pairs] == [("b.jpg", "a.jpg")] + [("a.jpg", "b.jpg")] * 2
    assert list(truth.pairs[0].cameras[0].params) == [500, 510, 320, 240]
    assert list(truth.pairs[0].cameras[1].params) == [800, 805, 400.5, 300.5]
    assert truth.orientations == {}


def test_a_list_must_find_all_its_images(tmp_path: Path) -> None:
    path = write_list(tmp_path, line_of(), line_of("b.jpg img_1.jpg"))
    with pytest.raises(ConfigError, match=r"1 of its images are not in images: img_1\.jpg"):
        read_truth(path, IMAGES, ["a.jpg", "b.jpg", "img1.jpg"])


def test_rotations_of_a_list_become_orientations(tmp_path: Path) -> None:
    names = [f"{turn}.jpg" for turn in range(4)]
    path = write_list(tmp_path, line_of("0.jpg 1.jpg", "0 1"), line_of("2.jpg 3.jpg", "2 3"))
    truth = read_truth(path, IMAGES, names)
    assert truth.orientations == {"1.jpg": 8, "2.jpg": 3, "3.jpg": 6}
    sized = {name: ImageHeader(640, 480, 1) for name in names}
    assert truth.fitted(sized).orientations == truth.orientations
    truth.fitted(sized | {"1.jpg": ImageHeader(640, 480, 8)})
    with pytest.raises(ConfigError, match=r"turns 1\.jpg as EXIF orientation 8 does, but the file"):
        truth.fitted(sized | {"1.jpg": ImageHeader(640, 480, 6)})


def test_an_image_has_one_rotation(tmp_path: Path) -> None:
    path = write_list(tmp_path, line_of(turns="0 1"), line_of("a.jpg c.jpg", "2 0"))
    with pytest.raises(ConfigError, match=r"line 2: a\.jpg has the rotation 2, but 0 before"):
        read_truth(path, IMAGES, ["a.jpg", "b.jpg", "c.jpg"])


def test_a_list_for_larger_images_is_refused(tmp_path: Path) -> None:
    truth = read_truth(write_list(tmp_path, line_of()), IMAGES, ["a.jpg", "b.jpg"])
    with pytest.raises(ConfigError, match=r"a\.jpg: the principal point \(320, 240\) of its K lie"):
        truth.fitted({"a.jpg": ImageHeader(320, 240, 1)})


def test_neither_a_list_nor_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: is neither a list of pairs nor a folder"):
        read_truth(tmp_path / "nowhere", IMAGES, [])
    with pytest.raises(FileNotFoundError, match="holds no COLMAP model"):
        read_truth(tmp_path, IMAGES, [])
