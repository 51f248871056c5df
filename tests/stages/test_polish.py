"""The second pass brings keypoints to where the images say, and never makes a model worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pycolmap
import pytest

from sfm_match.geometry.observations import read_observations, surfaces
from sfm_match.geometry.poses import pose_error, relative_pose
from sfm_match.io.images import ImageError
from sfm_match.stages import polish_images
from sfm_match.stages.adjust import Free, adjust
from sfm_match.stages.polish import polish
from sfm_match.stages.polish_config import Config
from sfm_match.stages.polish_images import realign
from sfm_match.stages.scan import scan
from sfm_match.types import ArrayF64
from tests.polish_scene import HEIGHT, WIDTH, Photographed, disturbed, photograph

pytestmark = pytest.mark.usefixtures("one_thread")

ONCE = Config(rounds=1)
HELD = Free(focal_length=False, extra_params=False)
NOTHING = Free(poses=False, focal_length=False, extra_params=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Photographed:
    return photograph(tmp_path_factory.mktemp("polish") / "images")


def residuals(model: pycolmap.Reconstruction) -> ArrayF64:
    """Return how far each keypoint is from the projection of its point."""
    seen = read_observations(model)
    found: ArrayF64 = np.linalg.norm(surfaces(model, seen).projections - seen.keypoints, axis=1)
    return found


def pair_errors(model: pycolmap.Reconstruction, truth: pycolmap.Reconstruction) -> ArrayF64:
    """Return the pose errors of all pairs in degrees."""
    poses, true = (
        np.array([m.image(i).cam_from_world().matrix() for i in sorted(truth.reg_image_ids())])
        for m in (model, truth)
    )
    a, b = np.triu_indices(len(true), k=1)
    errors: ArrayF64 = pose_error(
        relative_pose(poses[a], poses[b]), relative_pose(true[a], true[b])
    )
    return errors


@pytest.mark.parametrize("noise", [0.2, 0.5])
def test_keypoints_with_noise_come_back(made: Photographed, noise: float) -> None:
    # With true poses what is left of the error is that of the keypoints.
    model, seen, _ = disturbed(made.model, noise)
    adjust(model, NOTHING, 1.0, 1)
    before = np.median(residuals(model))
    assert before > 0.8 * noise
    polished, change = polish(model, made.sources, ONCE, NOTHING)
    assert np.median(residuals(polished)) < min(0.08, before / 3)
    assert change.moved > 0.9 * len(seen)
    assert change.moved + change.rejected + change.failed == change.observations == len(seen)
    assert change.error_after < change.error_before / 3
    assert polished.num_points3D() == made.model.num_points3D()
    assert polished.compute_num_observations() == len(seen)


def test_poses_become_several_times_better(made: Photographed) -> None:
    model, _, _ = disturbed(made.model, 0.5)
    assert adjust(model, HELD, 1.0, 1)
    polished, _ = polish(model, made.sources, ONCE, HELD)
    before, after = pair_errors(model, made.model), pair_errors(polished, made.model)
    assert after.mean() < before.mean() / 3
    assert polished.cameras[1].params.tolist() == made.model.cameras[1].params.tolist()


def test_intrinsics_that_are_free_are_refined(made: Photographed) -> None:
    model, _, _ = disturbed(made.model, 0.3)
    true = model.cameras[1].params.copy()
    model.cameras[1].params = [true[0] * 1.01, *true[1:]]
    polished, _ = polish(model, made.sources, Config(rounds=2), Free())
    assert polished.cameras[1].params[0] == pytest.approx(true[0], rel=2e-3)
    assert polished.cameras[1].params[1:3].tolist() == true[1:3].tolist()


def test_large_steps_are_found_from_coarse_to_fine(made: Photographed) -> None:
    model, seen, _ = disturbed(made.model, 0.3)
    # The model says that points are where they are not; keypoints are as far off.
    for point in model.points3D.values():
        point.xyz = point.xyz + np.array([0.0, 0.05, 0.02])
    found = {
        search: realign(model, seen, list(made.sources.values()), replace(ONCE, search=search))
        for search in (2.0, 8.0)
    }
    assert found[8.0].aligned.mean() > found[2.0].aligned.mean()
    assert found[8.0].aligned.mean() > 0.8


def test_the_result_does_not_depend_on_blocks_and_workers(
    made: Photographed, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen, _ = disturbed(made.model, 0.5)
    sources = list(made.sources.values())
    done: list[int] = []
    whole = realign(model, seen, sources, ONCE)
    monkeypatch.setattr(polish_images, "_POINTS_AT_ONCE", 37)
    parts = realign(model, seen, sources, ONCE, progress=done.append)
    # Patches that have converged go on while many beside them have not.
    assert np.abs(parts.keypoints - whole.keypoints).max() < 0.05
    assert np.abs(parts.keypoints - whole.keypoints).mean() < 0.002
    assert (parts.aligned == whole.aligned).mean() > 0.99
    assert len(done) == -(-len(seen.point_ids) // 37)
    threads = realign(model, seen, sources, ONCE, workers=2)
    assert (threads.keypoints == parts.keypoints).all()


def test_one_thread_gives_the_same_model_to_the_last_bit(made: Photographed) -> None:
    points = []
    for _ in range(2):
        polished, _ = polish(disturbed(made.model, 0.5)[0], made.sources, ONCE, HELD)
        points.append(sorted(point.xyz.tobytes() for point in polished.points3D.values()))
    assert points[0] == points[1]


@pytest.mark.parametrize("pixels", ["blank", "noise"])
def test_images_that_say_nothing_leave_the_model_as_it_is(
    made: Photographed, tmp_path: Path, pixels: str
) -> None:
    rng = np.random.default_rng(0)
    for name in made.sources:
        grey = (
            rng.integers(0, 256, (HEIGHT, WIDTH))
            if pixels == "noise"
            else np.full((HEIGHT, WIDTH), 90)
        )
        PIL.Image.fromarray(grey.astype(np.uint8)).save(tmp_path / name)
    model, seen, _ = disturbed(made.model, 0.5)
    model.update_point_3d_errors()
    before = residuals(model)
    polished, change = polish(model, scan(tmp_path).images, ONCE, HELD)
    assert change.error_after <= change.error_before
    assert change.moved < 0.02 * len(seen)
    if pixels == "blank":
        assert (change.moved, change.failed, change.median_shift) == (0, len(seen), 0.0)
        assert residuals(polished).tolist() == before.tolist()


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_the_reprojection_error_never_rises(made: Photographed, noise: float) -> None:
    model, _, _ = disturbed(made.model, noise)
    adjust(model, HELD, 1.0, 1)
    polished, change = polish(model, made.sources, Config(rounds=2), HELD)
    assert change.error_after <= change.error_before
    assert polished.compute_mean_reprojection_error() == change.error_after


def test_nothing_is_moved_onto_a_mask(made: Photographed, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    white = np.full((HEIGHT, WIDTH), 255, np.uint8)
    white[:, WIDTH // 2 :] = 0
    PIL.Image.fromarray(white).save(masks / "3.png.png")
    model, seen, _ = disturbed(made.model, 0.5)
    found = realign(model, seen, list(scan(made.folder, masks).images.values()), ONCE)
    in_third = seen.images == 2
    behind = in_third & (read_observations(made.model).keypoints[:, 0] > WIDTH / 2 + 1)
    before_it = in_third & (read_observations(made.model).keypoints[:, 0] < WIDTH / 2 - 1)
    assert behind.sum() > 50
    assert not found.aligned[behind].any()
    assert found.aligned[before_it].mean() > 0.9
    assert (found.keypoints[behind] == seen.keypoints[behind]).all()


def test_an_image_that_changed_or_cannot_be_read_is_named(
    made: Photographed, tmp_path: Path
) -> None:
    model, _, _ = disturbed(made.model, 0.5)
    second = made.sources["2.png"]
    changed = made.sources | {"2.png": replace(second, digest=b"another")}
    with pytest.raises(ImageError, match=r"2\.png: was changed during the run"):
        polish(model, changed, ONCE, HELD)
    gone = made.sources | {"2.png": replace(second, path=tmp_path / "2.png")}
    with pytest.raises(ImageError, match=r"2\.png"):
        polish(model, gone, ONCE, HELD)
