from __future__ import annotations

import numpy as np
import pycolmap
import pytest

from sfm_match.report.errors import observations_of
from sfm_match.report.model_view import upright_from_world, view_model
from tests.report.made import make_out

NAMES = [f"{i}.jpg" for i in range(6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pycolmap.Reconstruction:
    return pycolmap.Reconstruction(make_out(tmp_path_factory.mktemp("m"), NAMES) / "model")


def test_the_tops_of_the_pictures_are_upwards(model: pycolmap.Reconstruction) -> None:
    view = view_model(model, None, 100, NAMES)
    top_left, bottom_left = view.frusta[:, 1], view.frusta[:, 4]
    assert (top_left[:, 2] > bottom_left[:, 2]).all()
    # They look at the wall, and one looks from behind them.
    ahead = view.frusta[:, 1:].mean(axis=1) - view.frusta[:, 0]
    assert (ahead @ view.eye < 0).all()


def test_upright_is_a_rotation_for_cameras_that_look_down() -> None:
    down = np.array([np.column_stack([np.diag([1.0, -1, -1]), np.zeros(3)])])
    turned = np.concatenate([down, down * np.array([[-1.0], [-1], [1]])])
    rotation = upright_from_world(turned)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation @ [0, 0, 1], [0, 0, 1], atol=1e-12)


def test_a_moved_truth_lies_on_the_model(model: pycolmap.Reconstruction) -> None:
    truth = pycolmap.Reconstruction(model)
    truth.transform(pycolmap.Sim3d(3.0, pycolmap.Rotation3d([0.1, 0.2, 0.3, 0.9]), [5, 6, 7]))
    view = view_model(model, truth, 100, NAMES)
    assert view.true_names == view.names
    np.testing.assert_allclose(view.true_frusta[:, 0], view.frusta[:, 0], atol=1e-6)
    assert view.no_truth == ""


def test_a_truth_that_cannot_be_aligned_is_said_to_be(model: pycolmap.Reconstruction) -> None:
    truth = pycolmap.Reconstruction(model)
    for image_id in sorted(truth.reg_image_ids())[2:]:
        truth.deregister_frame(truth.images[image_id].frame_id)
    view = view_model(model, truth, 100, NAMES)
    assert "at least 3 points" in view.no_truth
    assert len(view.true_frusta) == 0


def test_points_far_out_are_left_out_and_counted(model: pycolmap.Reconstruction) -> None:
    far = pycolmap.Reconstruction(model)
    track = pycolmap.Track()
    far.add_point3D(np.array([1e4, 0, 0]), track, np.zeros(3, np.uint8))
    view = view_model(far, None, 50, NAMES)
    assert (view.num_points, view.num_outside) == (model.num_points3D() + 1, 1)
    assert len(view.points) == 50
    assert np.abs(view.points).max() < 100


def test_errors_are_the_distances_to_the_projections(model: pycolmap.Reconstruction) -> None:
    found = observations_of(model)
    image = model.find_image_with_name(NAMES[2])
    assert image is not None
    row = next(i for i, p in enumerate(image.points2D) if p.has_point3D())
    point = model.points3D[image.points2D[row].point3D_id]
    projected = image.project_point(point.xyz)
    assert projected is not None
    expected = np.linalg.norm(projected - image.points2D[row].xy)
    assert found[NAMES[2]].errors[row] == pytest.approx(expected)
    without = [i for i, p in enumerate(image.points2D) if not p.has_point3D()]
    assert np.isnan(found[NAMES[2]].errors[without]).all()
