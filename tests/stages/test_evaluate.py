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
from tests.pose_models import (
    Poses,
    moved,
    random_poses,
    reconstruct,
    similar,
    similarity,
    write,
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
