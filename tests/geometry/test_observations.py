from __future__ import annotations

import numpy as np
import pycolmap
import pytest

from sfm_match.geometry.observations import (
    point_errors,
    read_observations,
    reference_views,
    surfaces,
    write_keypoints,
)
from sfm_match.synthetic.scene import look_at
from sfm_match.types import ArrayF64

POINTS = np.array([[0.0, 0.0, 0.0], [0.3, -0.2, 0.1], [-0.4, 0.3, -0.1]])


def seen_from(
    *eyes: tuple[float, float, float], target: ArrayF64 | None = None
) -> pycolmap.Reconstruction:
    """Return a model in which every eye sees every point exactly."""
    camera = pycolmap.Camera(
        camera_id=1, model="SIMPLE_RADIAL", width=640, height=480, params=[500, 320, 240, -0.05]
    )
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    tracks = [pycolmap.Track() for _ in POINTS]
    for image_id, eye in enumerate(eyes, start=1):
        pose = look_at(eye, np.zeros(3) if target is None else target, roll=20.0 * image_id)
        # A keypoint that belongs to no point comes first.
        keypoints = np.vstack([[5.0, 5.0], np.asarray(camera.img_from_cam(pose * POINTS))])
        image = pycolmap.Image(
            name=f"{image_id}", camera_id=1, image_id=image_id, keypoints=keypoints
        )
        model.add_image_with_trivial_frame(image, pose)
        for index, track in enumerate(tracks, start=1):
            track.add_element(image_id, index)
    for xyz, track in zip(POINTS, tracks, strict=True):
        model.add_point3D(xyz, track)
    return model


RING = ((0.0, -4.0, 0.5), (1.5, -4.0, 0.5), (-1.5, -3.5, 1.0))


def test_observations_are_those_of_the_tracks() -> None:
    model = seen_from(*RING)
    seen = read_observations(model)
    assert (len(seen), seen.image_ids, len(seen.point_ids)) == (9, [1, 2, 3], 3)
    assert seen.images.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert seen.of_image(1) == slice(3, 6)
    for image, point, index, xy in zip(
        seen.images, seen.points, seen.indices, seen.keypoints, strict=True
    ):
        found = model.image(seen.image_ids[image]).points2D[int(index)]
        assert found.point3D_id == seen.point_ids[point]
        assert found.xy.tolist() == xy.tolist()


def test_keypoints_are_written_where_they_were_read() -> None:
    model = seen_from(*RING)
    seen = read_observations(model)
    assert point_errors(model, seen) == pytest.approx(0, abs=1e-9)
    moved = seen.keypoints + np.array([3.0, 4.0])
    write_keypoints(model, seen, moved)
    assert read_observations(model).keypoints.tolist() == moved.tolist()
    assert [image.points2D[0].xy.tolist() for image in model.images.values()] == [[5.0, 5.0]] * 3
    assert point_errors(model, seen) == pytest.approx(5.0)


def test_surfaces_say_where_a_step_on_them_goes_in_each_image() -> None:
    model = seen_from(*RING)
    seen = read_observations(model)
    found = surfaces(model, seen)
    assert found.visible.all()
    assert found.projections == pytest.approx(seen.keypoints, abs=1e-9)
    # A step in the first view along the plane across the mean direction, made in the world.
    centres = np.array([model.image(i).projection_center() for i in seen.image_ids])
    for point in range(3):
        rows = np.flatnonzero(seen.points == point)
        xyz = model.point3D(seen.point_ids[point]).xyz
        directions = centres - xyz
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        normal = directions.mean(axis=0)
        step = np.cross(normal, [0.2, 0.5, 0.9])
        step *= 1e-3 / np.linalg.norm(step)
        moved = [
            np.asarray(camera_of(model, i).img_from_cam(pose_of(model, i) * (xyz + step)))
            for i in seen.image_ids
        ]
        offset = moved[0] - found.projections[rows[0]]
        for view, row in enumerate(rows):
            linear = found.jacobians[row] @ np.linalg.inv(found.jacobians[rows[0]])
            assert linear @ offset == pytest.approx(moved[view] - found.projections[row], abs=1e-3)


def camera_of(model: pycolmap.Reconstruction, image_id: int) -> pycolmap.Camera:
    camera = model.image(image_id).camera
    assert camera is not None
    return camera


def pose_of(model: pycolmap.Reconstruction, image_id: int) -> pycolmap.Rigid3d:
    return model.image(image_id).cam_from_world()


def test_the_reference_is_the_view_in_the_middle() -> None:
    model = seen_from((-2.0, -4, 0), (0.1, -4, 0), (2.0, -4, 0), (0.0, -9, 0))
    seen = read_observations(model)
    references = reference_views(seen, surfaces(model, seen))
    assert [seen.image_ids[seen.images[row]] for row in references] == [2, 2, 2]
    assert seen.points[references].tolist() == [0, 1, 2]


def test_a_point_behind_its_camera_has_no_surface_there() -> None:
    model = seen_from(*RING)
    image = model.image(1)
    assert image.frame is not None
    turned = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0.0, 1.0, 0.0, 0.0])), np.zeros(3))
    image.frame.set_cam_from_world(1, turned * image.cam_from_world())
    seen = read_observations(model)
    found = surfaces(model, seen)
    assert found.visible.tolist() == [False] * 3 + [True] * 6
    assert np.isfinite(found.projections).all()
    assert np.isfinite(found.jacobians).all()
    assert (seen.images[reference_views(seen, found)] > 0).all()


def test_a_point_that_no_camera_can_see_has_no_reference() -> None:
    model = seen_from(*RING)
    for point in model.points3D.values():
        point.xyz = np.array([0.0, -50.0, 0.0])
    seen = read_observations(model)
    assert reference_views(seen, surfaces(model, seen)).tolist() == [-1, -1, -1]


def test_an_empty_model_has_no_observations() -> None:
    seen = read_observations(pycolmap.Reconstruction())
    assert (len(seen), seen.keypoints.shape) == (0, (0, 2))
