import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from sfm_match.geometry import poses
from sfm_match.stages import evaluate
from sfm_match.stages.evaluate import AUC_THRESHOLDS, evaluate_model, format_evaluation
from sfm_match.types import ArrayF64

Poses = Mapping[str, ArrayF64]


def random_poses(num: int, seed: int = 0) -> dict[str, ArrayF64]:
    rng = np.random.default_rng(seed)
    rotations = Rotation.random(num, random_state=rng).as_matrix()
    centers = rng.normal(size=(num, 3, 1)) * 5
    stacked = np.concatenate([rotations, -rotations @ centers], axis=-1)
    return {f"image {i:04d}.jpg": stacked[i] for i in range(num)}


def reconstruct(cam_from_world: Poses) -> pycolmap.Reconstruction:
    reconstruction = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        model="PINHOLE", width=100, height=80, params=[90, 90, 50, 40], camera_id=1
    )
    reconstruction.add_camera_with_trivial_rig(camera)
    for image_id, (name, pose) in enumerate(cam_from_world.items(), start=1):
        image = pycolmap.Image(name=name, camera_id=1, image_id=image_id)
        reconstruction.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    return reconstruction


def write(folder: Path, model: pycolmap.Reconstruction | Poses, *, text: bool = False) -> Path:
    if not isinstance(model, pycolmap.Reconstruction):
        model = reconstruct(model)
    folder.mkdir()
    if text:
        model.write_text(folder)
    else:
        model.write(folder)
    return folder


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


def moved(cam_from_world: Poses, name: str, turn: ArrayF64, shift: ArrayF64) -> dict[str, ArrayF64]:
    """Turn one camera about its centre, then shift its centre."""
    pose = cam_from_world[name]
    rotation = turn @ pose[:, :3]
    center = poses.projection_centers(pose) + shift
    return {**cam_from_world, name: np.column_stack([rotation, -rotation @ center])}


def similar(cam_from_world: Poses, similarity: poses.Similarity) -> dict[str, ArrayF64]:
    return {n: poses.transform_poses(similarity, pose) for n, pose in cam_from_world.items()}


def similarity(seed: int, scale: float) -> poses.Similarity:
    rng = np.random.default_rng(seed)
    return poses.Similarity(
        scale, Rotation.random(random_state=rng).as_matrix(), rng.normal(size=3) * 100
    )


def brute_force_pair_errors(model: Poses, truth: Poses) -> list[float]:
    """Compare the relative poses pair by pair, with the textbook arccosines."""
    errors = []
    names = sorted(truth)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if a not in model or b not in model:
                errors.append(180.0)
                continue
            relative = []
            for of in (model, truth):
                pose = pycolmap.Rigid3d(of[b]) * pycolmap.Rigid3d(of[a]).inverse()
                relative.append(pose.matrix())
            (R0, t0), (R1, t1) = ((p[:, :3], p[:, 3]) for p in relative)
            cosines = [
                (np.trace(R0 @ R1.T) - 1) / 2,
                t0 @ t1 / (np.linalg.norm(t0) * np.linalg.norm(t1)),
            ]
            errors.append(float(np.rad2deg(np.arccos(np.clip(cosines, -1, 1))).max()))
    return errors


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [False, True])
def test_a_model_against_itself_has_no_error(tmp_path: Path, text: bool) -> None:
    names = [f"{i}.jpg" for i in range(6)]
    model = write(
        tmp_path / "m", dict(zip(names, random_poses(6).values(), strict=True)), text=text
    )
    result = evaluate_model(model, model)
    assert (result.num_truth_images, result.num_registered, result.num_extra) == (6, 6, 0)
    assert result.num_pairs == 15
    assert result.auc == pytest.approx([100] * 6, abs=1e-9)
    assert result.position is not None
    assert result.rotation is not None
    assert result.position.max < 1e-12
    assert result.rotation.max < 1e-11
    assert [image.name for image in result.images] == names
    assert result.alignment_failure is None


@pytest.mark.parametrize("scale", [1e-3, 0.5, 40.0])
def test_a_similarity_of_the_model_changes_nothing(tmp_path: Path, scale: float) -> None:
    truth = random_poses(7)
    rng = np.random.default_rng(1)
    model = truth
    for name in list(truth)[:4]:
        turn = Rotation.from_rotvec(rng.normal(size=3) * 0.05).as_matrix()
        model = moved(model, name, turn, rng.normal(size=3) * 0.3)
    truth_folder = write(tmp_path / "truth", truth)
    before = evaluate_model(write(tmp_path / "a", model), truth_folder)
    after = evaluate_model(
        write(tmp_path / "b", similar(model, similarity(2, scale))), truth_folder
    )
    assert after.auc == pytest.approx(before.auc, abs=1e-6)
    assert 5 < before.auc[3] < 95
    for left, right in zip(before.images, after.images, strict=True):
        assert right.position == pytest.approx(left.position, abs=1e-9)
        assert right.rotation == pytest.approx(left.rotation, abs=1e-9)
    assert before.position is not None
    assert before.position.max > 0.1


def test_one_turned_camera_has_exactly_its_angle_as_error(tmp_path: Path) -> None:
    truth = random_poses(5)
    name = "image 0002.jpg"
    turn = Rotation.from_rotvec(np.deg2rad(8) * np.array([0.6, 0, 0.8])).as_matrix()
    model = moved(truth, name, turn, np.zeros(3))
    result = evaluate_model(write(tmp_path / "m", model), write(tmp_path / "t", truth))
    # The centres are right, so the alignment is exact and the others are without error.
    expected = [8 if image.name == name else 0 for image in result.images]
    assert [image.rotation for image in result.images] == pytest.approx(expected, abs=1e-9)
    assert [image.position for image in result.images] == pytest.approx([0] * 5, abs=1e-12)
    assert result.rotation is not None
    assert result.rotation.mean == pytest.approx(8 / 5)
    assert result.rotation.median == pytest.approx(0, abs=1e-9)
    assert result.rotation.max == pytest.approx(8)
    # Four of ten pairs are wrong, by 8 degrees (the translation, in the turned camera's frame, by
    # no more); the other six reach a recall of 0.6 at 0. From there the curve runs to (8, 0.7).
    below_8, at_10, at_20 = 60, 100 * (8 * 0.65 + 2) / 10, 100 * (8 * 0.65 + 12) / 20
    assert result.auc == pytest.approx([below_8] * 4 + [at_10, at_20], abs=1e-6)


def test_position_errors_after_the_alignment(tmp_path: Path) -> None:
    # The corners of a square, moved out and in by the same amount along the diagonals' axis z:
    # the alternating shifts leave the best alignment where it was.
    corners = np.array([[1.0, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]]) * 10
    lifts = np.array([[0.0, 0, 0.5], [0, 0, -0.5], [0, 0, 0.5], [0, 0, -0.5]])
    truth = {f"{i}.jpg": np.column_stack([np.eye(3), -corners[i]]) for i in range(4)}
    model = {f"{i}.jpg": np.column_stack([np.eye(3), -corners[i] - lifts[i]]) for i in range(4)}
    model = similar(model, similarity(5, 0.01))
    result = evaluate_model(write(tmp_path / "m", model), write(tmp_path / "t", truth))
    # Umeyama's scale: the covariance is 200, the model's variance 200.25.
    scale = 200 / 200.25
    expected = np.hypot((1 - scale) * np.hypot(10, 10), 0.5 * scale)
    assert [i.position for i in result.images] == pytest.approx([expected] * 4, rel=1e-9)
    assert result.rotation is not None
    assert result.rotation.max < 1e-9


def test_an_image_without_a_pose_fails_its_pairs(tmp_path: Path) -> None:
    truth = random_poses(6)
    model = {name: pose for name, pose in truth.items() if name != "image 0003.jpg"}
    result = evaluate_model(write(tmp_path / "m", model), write(tmp_path / "t", truth))
    assert (result.num_truth_images, result.num_registered, result.num_pairs) == (6, 5, 15)
    assert result.auc == pytest.approx([100 * 10 / 15] * 6, abs=1e-6)
    missing = result.images[3]
    assert missing == evaluate.ImageError("image 0003.jpg", False, None, None)
    assert [image.is_registered for image in result.images].count(True) == 5
    assert "5 of 6 registered (missing: image 0003.jpg)" in format_evaluation(result)


def test_an_image_that_lost_its_pose_is_not_registered(tmp_path: Path) -> None:
    truth = random_poses(4)
    model = reconstruct(truth)
    image = model.find_image_with_name("image 0001.jpg")
    model.deregister_frame(image.frame_id)
    result = evaluate_model(write(tmp_path / "m", model), write(tmp_path / "t", truth))
    assert result.num_registered == 3
    assert result.auc == pytest.approx([50] * 6, abs=1e-6)
    # The other way round, the model's pose of it is an extra one.
    swapped = evaluate_model(tmp_path / "t", tmp_path / "m")
    assert (swapped.num_truth_images, swapped.num_registered, swapped.num_extra) == (3, 3, 1)
    assert swapped.auc == pytest.approx([100] * 6, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0.001, 1))
@settings(max_examples=15, deadline=None)
def test_auc_agrees_with_a_loop_over_all_pairs(
    tmp_path_factory: pytest.TempPathFactory, seed: int, noise: float
) -> None:
    folder = tmp_path_factory.mktemp("models")
    truth = random_poses(6, seed)
    rng = np.random.default_rng(seed)
    model: dict[str, ArrayF64] = dict(truth)
    for name in truth:
        turn = Rotation.from_rotvec(rng.normal(size=3) * noise).as_matrix()
        model = moved(model, name, turn, rng.normal(size=3) * noise)
    del model["image 0005.jpg"]
    result = evaluate_model(write(folder / "m", model), write(folder / "t", truth))
    expected = poses.auc(brute_force_pair_errors(model, truth), AUC_THRESHOLDS)
    assert result.auc == pytest.approx(expected, abs=1e-4)


def test_pairs_are_the_same_whatever_the_size_of_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, model = random_poses(7, 0), random_poses(7, 1)
    folders = write(tmp_path / "m", model), write(tmp_path / "t", truth)
    whole = evaluate_model(*folders)
    monkeypatch.setattr(evaluate, "_PAIRS_AT_A_TIME", 4)
    assert evaluate_model(*folders).auc == pytest.approx(whole.auc, abs=1e-12)


def test_cameras_at_one_place_are_judged_by_their_rotation(tmp_path: Path) -> None:
    # Map coordinates: the baseline of the first two comes out as rounding, not as zero.
    truth = random_poses(4)
    center = np.array([500_000.0, 5_400_000.0, 100.0])
    for name in ("image 0000.jpg", "image 0001.jpg"):
        rotation = truth[name][:, :3]
        truth[name] = np.column_stack([rotation, -rotation @ center])
    del truth["image 0002.jpg"], truth["image 0003.jpg"]
    turn = Rotation.from_euler("y", 4, degrees=True).as_matrix()
    model = moved(truth, "image 0001.jpg", turn, np.array([3.0, 4.0, 5.0]))
    folders = write(tmp_path / "m", model), write(tmp_path / "t", truth)
    result = evaluate_model(*folders)
    assert result.auc[3] == pytest.approx(100 * (2 + 1) / 5, abs=1e-6)
    # The other way round the model lacks a baseline that there is.
    assert evaluate_model(*reversed(folders)).auc == (0, 0, 0, 0, 0, 0)


def test_point_statistics(tmp_path: Path) -> None:
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1, num_cameras_per_rig=1, num_frames_per_rig=5, num_points3D=40
    )
    model = pycolmap.synthesize_dataset(options)
    for index, point in enumerate(model.points3D.values()):
        point.error = 0.5 + index % 2
    folder = write(tmp_path / "m", model)
    result = evaluate_model(folder, folder)
    assert result.num_points == 40
    observations = sum(point.track.length() for point in model.points3D.values())
    assert result.mean_track_length == pytest.approx(observations / 40)
    assert result.mean_observations_per_image == pytest.approx(observations / 5)
    assert result.mean_reprojection_error == pytest.approx(1.0)
    bare = write(tmp_path / "bare", random_poses(3))
    result = evaluate_model(bare, bare)
    assert (result.num_points, result.mean_observations_per_image) == (0, 0)
    assert result.mean_track_length is None
    assert result.mean_reprojection_error is None


def test_a_thousand_images_take_little_time_and_give_every_pair(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", random_poses(1000))
    result = evaluate_model(folder, folder)
    assert result.num_pairs == 499_500
    assert result.auc == pytest.approx([100] * 6, abs=1e-9)


# --- degenerate models ----------------------------------------------------------------------------


@pytest.mark.parametrize("num", [1, 2])
def test_too_few_images_for_an_alignment(tmp_path: Path, num: int) -> None:
    truth = random_poses(4)
    model = {name: truth[name] for name in list(truth)[:num]}
    result = evaluate_model(write(tmp_path / "m", model), write(tmp_path / "t", truth))
    assert result.num_registered == num
    assert result.position is None
    assert result.rotation is None
    assert result.alignment_failure is not None
    assert f"needs at least 3 points in common, got {num}" in result.alignment_failure
    assert result.auc == pytest.approx([100 / 6 if num == 2 else 0] * 6, abs=1e-6)
    assert [(i.position, i.rotation) for i in result.images] == [(None, None)] * 4
    assert f"not compared: {result.alignment_failure}" in format_evaluation(result)


def test_cameras_on_a_line_are_not_aligned_but_their_pairs_count(tmp_path: Path) -> None:
    rotations = [pose[:, :3] for pose in random_poses(5).values()]
    truth = {
        f"{i}.jpg": np.column_stack([r, -r @ np.array([1.0, 2, 3]) * i])
        for i, r in enumerate(rotations)
    }
    folder = write(tmp_path / "t", truth)
    result = evaluate_model(folder, folder)
    assert result.alignment_failure is not None
    assert "on a line" in result.alignment_failure
    assert result.position is None
    assert result.auc == pytest.approx([100] * 6, abs=1e-6)


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
    with pytest.raises(ValueError, match=r"bad cannot be read as a COLMAP model: .+"):
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
def fountain() -> Path:
    root = os.environ.get("SFM_MATCH_TEST_DATA")
    if root is None:
        pytest.skip("SFM_MATCH_TEST_DATA is not set")
    return Path(root) / "fountain-P11" / "gt"


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
