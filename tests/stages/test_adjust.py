from __future__ import annotations

from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.geometry.observations import read_observations, write_keypoints
from sfm_match.stages import adjust as adjusting
from sfm_match.stages.adjust import Free, adjust, free_after
from sfm_match.stages.mappers import mapper_spec

HELD = Free(focal_length=False, extra_params=False)


@pytest.mark.parametrize(
    ("mapper", "options", "fixed", "expected"),
    [
        ("incremental", {}, False, Free()),
        ("incremental", {}, True, HELD),
        ("incremental", {"ba_refine_focal_length": False}, False, Free(focal_length=False)),
        ("incremental", {"ba_refine_principal_point": True}, False, Free(principal_point=True)),
        ("incremental", {"constant_cameras": [1]}, False, HELD),
        ("hierarchical", {"incremental_options": {"ba_refine_extra_params": False}}, False,
         Free(extra_params=False)),
        ("global", {"mapper": {"bundle_adjustment": {"refine_focal_length": False}}}, False,
         Free(focal_length=False)),
        ("global", {}, True, HELD),
    ],
)  # fmt: skip
def test_what_the_mapper_holds_is_held(
    mapper: str, options: dict[str, Any], fixed: bool, expected: Free
) -> None:
    assert free_after(mapper_spec(mapper, options, 0, fixed), options) == expected


def test_poses_that_were_given_are_held(tmp_path: Any) -> None:
    options = {"poses": str(tmp_path)}
    free = free_after(mapper_spec("triangulation", options, 0, False), options)
    assert free == Free(poses=False, focal_length=False, extra_params=False)


@pytest.fixture
def disturbed() -> pycolmap.Reconstruction:
    """A model of five images with some pixels of noise, and some keypoints far off."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(num_frames_per_rig=5, num_points3D=120)
    model = pycolmap.synthesize_dataset(options)
    seen, rng = read_observations(model), np.random.default_rng(0)
    noise = rng.normal(0, 0.3, (len(seen), 2))
    noise[::40] += 15.0
    write_keypoints(model, seen, seen.keypoints + noise)
    model.update_point_3d_errors()
    return model


def content(model: pycolmap.Reconstruction) -> tuple[list[float], list[list[float]]]:
    """Return the parameters of the camera, and the poses."""
    poses = [model.image(i).cam_from_world().matrix().ravel() for i in model.reg_image_ids()]
    return next(iter(model.cameras.values())).params.tolist(), [p.tolist() for p in poses]


def test_only_what_is_free_changes(disturbed: pycolmap.Reconstruction) -> None:
    camera, poses = content(disturbed)
    everything = {}
    for name, free in {
        "points": Free(poses=False, focal_length=False, extra_params=False),
        "poses": HELD,
        "all": Free(),
    }.items():
        model = pycolmap.Reconstruction(disturbed)
        assert adjust(model, free, 1.0, 1)
        everything[name] = content(model)
    assert everything["points"][0] == camera
    assert np.array(everything["points"][1]) == pytest.approx(np.array(poses), abs=1e-12)
    assert everything["poses"][0] == camera
    assert np.abs(np.array(everything["poses"][1]) - poses).max() > 1e-3
    assert everything["all"][0] != camera
    assert everything["all"][0][1:3] == camera[1:3]  # the principal point
    # The first image holds the place of the model.
    assert everything["all"][1][0] == pytest.approx(poses[0], abs=1e-12)


def test_a_robust_loss_ignores_what_is_far_off(disturbed: pycolmap.Reconstruction) -> None:
    truth = content(disturbed)[1]
    errors = {}
    for scale in (0.3, 1000.0):
        model = pycolmap.Reconstruction(disturbed)
        assert adjust(model, HELD, scale, 1)
        errors[scale] = np.abs(np.array(content(model)[1]) - truth).max()
    assert errors[0.3] < errors[1000.0] / 4


def test_a_large_model_is_adjusted_in_smaller_steps(
    disturbed: pycolmap.Reconstruction, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = pycolmap.Reconstruction(disturbed), pycolmap.Reconstruction(disturbed)
    assert adjust(whole, HELD, 1.0, 1)
    monkeypatch.setattr(adjusting, "_RESIDUALS_PER_SOLUTION", 1)
    assert adjust(parts, HELD, 1.0, 1)
    for model in (whole, parts):
        model.update_point_3d_errors()
    errors = [model.compute_mean_reprojection_error() for model in (whole, parts)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
