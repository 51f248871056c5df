import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from sfm_match.stages import evaluate
from sfm_match.stages.evaluate import evaluate_model, format_evaluation
from sfm_match.types import ArrayF64
from tests.pose_models import Poses, moved, random_poses, similar, similarity, write


def write_old_text(
    folder: Path, cam_from_world: Poses, points_line: str = "\n", quaternion_factor: float = 1
) -> Path:
    """Write a text model as COLMAP before 3.12 did, without rigs and frames."""
    folder.mkdir()
    (folder / "cameras.txt").write_text("# a comment\n1 PINHOLE 100 80 90 90 50 40\n")
    lines = ["# Image list with two lines of data per image\n"]
    for image_id, (name, pose) in enumerate(cam_from_world.items(), start=1):
        x, y, z, w = Rotation.from_matrix(pose[:, :3]).as_quat() * quaternion_factor
        numbers = " ".join(repr(float(value)) for value in (w, x, y, z, *pose[:, 3]))
        lines.append(f"{image_id} {numbers} 1 {name.replace(' ', '_')}\n{points_line}")
    (folder / "images.txt").write_text("".join(lines))
    (folder / "points3D.txt").write_text("")
    return folder


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("points_line", ["\n", "1.5 2.5 -1 7.5 8.5 -1\n", " \n"])
def test_old_text_models_without_rigs_and_frames(tmp_path: Path, points_line: str) -> None:
    truth = {name.replace(" ", "_"): pose for name, pose in random_poses(5).items()}
    old = write_old_text(tmp_path / "old", truth, points_line)
    assert not (old / "rigs.txt").exists()
    for model, reference in ((old, write(tmp_path / "new", truth)), (tmp_path / "new", old)):
        result = evaluate_model(model, reference)
        assert (result.num_truth_images, result.num_registered) == (5, 5)
        assert result.auc == pytest.approx([100] * 6, abs=1e-6)


def test_quaternions_of_any_length_are_normalised(tmp_path: Path) -> None:
    truth = {name.replace(" ", "_"): pose for name, pose in random_poses(5).items()}
    model = write_old_text(tmp_path / "scaled", truth, quaternion_factor=1.7)
    result = evaluate_model(model, write(tmp_path / "t", truth))
    assert result.rotation is not None
    assert result.rotation.max < 1e-9
    assert result.auc == pytest.approx([100] * 6, abs=1e-9)
    zero = write_old_text(tmp_path / "zero", truth, quaternion_factor=0)
    with pytest.raises(ValueError, match="has no finite rotation"):
        evaluate_model(zero, model)


def test_text_models_without_the_points_lines_are_refused(tmp_path: Path) -> None:
    # COLMAP reads every other image of such a file and says nothing.
    model = write_old_text(tmp_path / "m", random_poses(4), points_line="")
    with pytest.raises(ValueError, match=r"images\.txt, line 3: expected the image points"):
        evaluate_model(model, model)


def test_extra_images_are_counted(tmp_path: Path) -> None:
    model = random_poses(6)
    truth = {name: model[name] for name in list(model)[:4]}
    result = evaluate_model(write(tmp_path / "m", model), write(tmp_path / "t", truth))
    assert (result.num_truth_images, result.num_registered, result.num_extra) == (4, 4, 2)
    assert result.auc == pytest.approx([100] * 6, abs=1e-6)


def test_no_common_names_shows_some_of_each(tmp_path: Path) -> None:
    truth = random_poses(5)
    model = {f"images/{name}": pose for name, pose in truth.items()}
    folders = write(tmp_path / "m", model), write(tmp_path / "t", truth)
    with pytest.raises(ValueError, match="no registered image in common") as error:
        evaluate_model(*folders)
    assert "has images/image 0000.jpg, images/image 0001.jpg" in str(error.value)
    assert "has image 0000.jpg, image 0001.jpg, image 0002.jpg and 2 more" in str(error.value)
    with pytest.raises(ValueError, match="has no images"):
        evaluate_model(write(tmp_path / "empty", {}), folders[1])


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good", random_poses(3))
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        evaluate_model(tmp_path / "nowhere", good)
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        evaluate_model(good, tmp_path / "nowhere")
    part = write(tmp_path / "part", random_poses(3))
    (part / "points3D.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"no COLMAP model: points3D\.bin missing"):
        evaluate_model(part, good)


@pytest.mark.parametrize(
    ("name", "content"),
    [("cameras.bin", b"abc"), ("images.bin", b"\x07" + bytes(7)), ("rigs.bin", bytes(8))],
)
def test_damaged_files_are_reported_with_their_folder(
    tmp_path: Path, name: str, content: bytes
) -> None:
    good = write(tmp_path / "good", random_poses(3))
    bad = write(tmp_path / "bad", random_poses(3))
    (bad / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"bad cannot be read"):
        evaluate_model(bad, good)


def test_names_cut_at_a_space_are_not_confused(tmp_path: Path) -> None:
    text = write(tmp_path / "text", random_poses(3), text=True)
    with pytest.raises(ValueError, match="two images named 'image'"):
        evaluate_model(text, text)


def test_a_truth_of_one_image_is_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "one", random_poses(1))
    with pytest.raises(ValueError, match="one has 1 images with a pose"):
        evaluate_model(one, one)


def test_a_pose_that_is_not_finite_is_named(tmp_path: Path) -> None:
    model = random_poses(3)
    model["image 0001.jpg"][0, 3] = np.nan
    folder = write(tmp_path / "m", model)
    with pytest.raises(ValueError, match=r"image 'image 0001\.jpg' has no finite"):
        evaluate_model(folder, folder)


# --- output ---------------------------------------------------------------------------------------


def test_the_plain_form_survives_json(tmp_path: Path) -> None:
    truth = random_poses(4)
    model = {name: truth[name] for name in list(truth)[:3]}
    result = evaluate_model(write(tmp_path / "m", model), write(tmp_path / "t", truth))
    plain = result.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain["auc"]) == ["0.5", "1", "3", "5", "10", "20"]
    assert plain["auc"]["5"] == pytest.approx(50, abs=1e-6)
    assert plain["images"][3] == {
        "name": "image 0003.jpg",
        "is_registered": False,
        "position": None,
        "rotation": None,
    }
    assert set(plain["position"]) == {"mean", "median", "max"}


def test_the_table(tmp_path: Path) -> None:
    result = evaluate.ModelEvaluation(
        num_truth_images=3,
        num_registered=3,
        num_extra=1,
        position=evaluate.ErrorSummary(0.25, 0.125, 0.5),
        rotation=evaluate.ErrorSummary(1.5, 1.25, 2.0),
        alignment_failure=None,
        images=tuple(evaluate.ImageError(n, True, 0.25, 1.5) for n in "abc"),
        num_pairs=3,
        auc=(0, 10, 20.5, 30.123, 99.999, 100),
        num_points=1234,
        mean_track_length=3.456,
        mean_reprojection_error=0.789,
        mean_observations_per_image=500.0,
    )
    assert format_evaluation(result).splitlines() == [
        "images     3 of 3 registered, 1 extra",
        "points     1234, mean track length 3.46, mean reprojection error 0.79 px, "
        "observations per image 500.00",
        "",
        "image error          mean    median       max",
        "position             0.25     0.125       0.5",
        "rotation (deg)        1.5      1.25         2",
        "",
        "pair error        0.5 deg     1 deg     3 deg     5 deg    10 deg    20 deg",
        "AUC (%)              0.00     10.00     20.50     30.12    100.00    100.00   of 3 pairs",
    ]


# --- real ground truth ----------------------------------------------------------------------------


@pytest.fixture
def fountain(test_data: Path) -> Path:
    return test_data / "fountain-P11" / "gt"


def test_fountain_against_itself(fountain: Path) -> None:
    result = evaluate_model(fountain, fountain)
    assert (result.num_truth_images, result.num_registered, result.num_pairs) == (11, 11, 55)
    assert result.auc == pytest.approx([100] * 6, abs=1e-9)
    assert result.position is not None
    assert result.position.max < 1e-12


def test_fountain_against_a_copy_with_two_wrong_cameras(tmp_path: Path, fountain: Path) -> None:
    truth = {
        # The file's quaternions are not of unit length; scipy normalises them.
        image.name: np.column_stack(
            [
                Rotation.from_quat(image.cam_from_world().rotation.quat).as_matrix(),
                image.cam_from_world().translation,
            ]
        )
        for image in pycolmap.Reconstruction(fountain).images.values()
    }
    model: dict[str, ArrayF64] = dict(truth)
    turn = Rotation.from_euler("y", 2, degrees=True).as_matrix()
    model = moved(model, "0004.jpg", turn, np.zeros(3))
    del model["0007.jpg"]
    result = evaluate_model(write(tmp_path / "m", similar(model, similarity(7, 3.0))), fountain)
    assert result.num_registered == 10
    by_name = {image.name: image for image in result.images}
    assert by_name["0004.jpg"].rotation == pytest.approx(2, abs=1e-9)
    assert by_name["0003.jpg"].rotation == pytest.approx(0, abs=1e-9)
    assert by_name["0007.jpg"].rotation is None
    assert result.position is not None
    assert result.position.max < 1e-12
    # Of 55 pairs 10 failed, 9 are wrong by 2 degrees, 36 are right.
    at_1 = 100 * 36 / 55
    at_3 = 100 * (2 * 36.5 + 1 * 45) / 55 / 3
    assert result.auc[:3] == pytest.approx([at_1, at_1, at_3], abs=1e-6)
