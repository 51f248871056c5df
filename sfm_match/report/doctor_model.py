"""Findings on a model, held against the database that it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.io.database_access import Connection
from sfm_match.io.database_reading import stream_geometries
from sfm_match.report.doctor_tables import ArrayInt, Survey
from sfm_match.report.doctor_thresholds import Thresholds
from sfm_match.report.findings import Finding, Place, Severity, count
from sfm_match.types import ArrayBool


def examine_model(
    found: Survey, connection: Connection, model: pycolmap.Reconstruction, limits: Thresholds
) -> Iterator[Finding]:
    """Yield what is wrong with a model."""
    row_of = {name: row for row, name in enumerate(found.images.names)}
    registered = {
        row_of[image.name]: image
        for image in (model.images[i] for i in model.reg_image_ids())
        if image.name in row_of
    }
    others = _of_other_database(found, registered, model.num_reg_images())
    if others is not None:
        yield others
        return
    yield from _unregistered(found, connection, registered)
    yield from _drifted(found, registered, model, limits)
    length, error = model.compute_mean_track_length(), model.compute_mean_reprojection_error()
    if len(registered) > 2 and model.num_points3D() and length < limits.min_track_length:
        yield Finding(
            Severity.WARNING,
            "short-tracks",
            f"a point of the model is seen by {length:.2f} images on average: hardly any by three",
            (),
            "match each image with more others (--pairs exhaustive, -o pairs.expand=2); features "
            "that repeat themselves better (--recipe aliked); a larger -o tracks.radius",
        )
    if error > limits.max_reprojection_error:
        yield Finding(
            Severity.WARNING,
            "reprojection-error",
            f"the mean reprojection error of the model is {error:.2f} pixels",
            (),
            "is the camera model right (-o camera.model=OPENCV or OPENCV_FISHEYE)? Were pictures "
            "cropped, resized or stabilised? Refine the keypoints: -o refiner.name=photometric",
        )


def _of_other_database(
    found: Survey, registered: Mapping[int, pycolmap.Image], num_registered: int
) -> Finding | None:
    num_keypoints = found.images.num_keypoints
    differ = [
        row for row, image in registered.items() if image.num_points2D() != num_keypoints[row]
    ]
    unknown = num_registered - len(registered)
    if not differ and not unknown:
        return None
    return Finding(
        Severity.WARNING,
        "model-of-other-database",
        f"the model is not of this database: {count(unknown, 'image')} of it not there, "
        f"{count(len(differ), 'image')} with another number of keypoints",
        tuple(Place((found.images.names[row],)) for row in differ),
        "map again: sfm-match map OUT",
    )


def _unregistered(
    found: Survey, connection: Connection, registered: Mapping[int, pycolmap.Image]
) -> Iterator[Finding]:
    """Yield the images that are not in the model, with their matches to its points."""
    images = found.images
    missing = [row for row in range(len(images)) if row not in registered]
    # What has no keypoints is told as such.
    missing = [row for row in missing if images.num_keypoints[row]]
    if not missing:
        return
    num_seen = _num_points_seen(found, connection, missing, registered)
    missing.sort(key=lambda row: num_seen[row])
    yield Finding(
        Severity.PROBLEM if len(missing) > len(images) / 2 else Severity.WARNING,
        "unregistered-images",
        f"{len(missing)} of {count(len(images), 'image')} not in the model",
        tuple(Place((images.names[row],), f"{num_seen[row]} 2D-3D matches") for row in missing),
        "registration needs 30 inliers: with fewer 2D-3D matches more pairs (--pairs exhaustive, "
        "-o pairs.expand=2) or other features; with many, -o mapper.mapper.abs_pose_max_error=20 "
        "or a wrong focal length; --mapper global registers all images at once",
    )


def _num_points_seen(
    found: Survey,
    connection: Connection,
    missing: list[int],
    registered: Mapping[int, pycolmap.Image],
) -> dict[int, int]:
    """Return how many keypoints of each missing image match one with a point in the model."""
    ends = found.pairs.images
    is_missing = np.isin(ends, missing)
    wanted = np.isin(ends, list(registered)).any(axis=1) & is_missing.any(axis=1)
    rows_of = {int(found.pairs.ids[pair]): ends[pair] for pair in np.flatnonzero(wanted)}
    with_point: dict[int, ArrayBool] = {}
    sees = {row: np.zeros(found.images.num_keypoints[row], np.bool_) for row in missing}
    for geometry in stream_geometries(connection, [], list(rows_of)):
        ends_of_pair = rows_of[geometry.pair_id]
        is_in_range = (geometry.inliers < found.images.num_keypoints[ends_of_pair]).all(axis=1)
        inliers = geometry.inliers[is_in_range]
        new = 0 if int(ends_of_pair[0]) in sees else 1
        old_row, new_row = int(ends_of_pair[1 - new]), int(ends_of_pair[new])
        if old_row not in with_point:
            with_point[old_row] = _with_point(registered[old_row])
        sees[new_row][inliers[with_point[old_row][inliers[:, 1 - new]], new]] = True
    return {row: int(np.count_nonzero(seen)) for row, seen in sees.items()}


def _with_point(image: pycolmap.Image) -> ArrayBool:
    """Return which keypoints of an image have a point in the model, bool (N,)."""
    has: npt.NDArray[np.bool_] = np.zeros(image.num_points2D(), np.bool_)
    has[image.get_observation_point2D_idxs()] = True
    return has


def refined_focals(found: Survey, model: pycolmap.Reconstruction) -> Mapping[int, float]:
    """Return the model's focal length over that of the database, by the id of its camera."""
    ratios = {}
    rows: ArrayInt = found.images.camera_ids
    for row, name in enumerate(found.images.names):
        image, camera = model.find_image_with_name(name), found.camera(row)
        if image is None or not image.has_pose or camera is None:
            continue
        if camera.focal_length_idxs():  # a panorama has none
            refined = model.cameras[image.camera_id].mean_focal_length()
            ratios[int(rows[row])] = refined / camera.mean_focal_length()
    return ratios


def _drifted(
    found: Survey,
    registered: Mapping[int, pycolmap.Image],
    model: pycolmap.Reconstruction,
    limits: Thresholds,
) -> Iterator[Finding]:
    """Yield the cameras whose guessed focal length ended far from where it began."""
    far = {
        camera_id: ratio
        for camera_id, ratio in refined_focals(found, model).items()
        if max(ratio, 1 / ratio) > limits.refined_ratio
        and not found.cameras[camera_id].has_prior_focal_length
    }
    if far:
        yield Finding(
            Severity.WARNING,
            "focal-drift",
            f"{count(len(far), 'camera')} with a focal length in the model that is far from the "
            f"guess: by a factor of {max(far.values(), key=lambda r: max(r, 1 / r)):.2f}",
            camera_places(found, {i: f"factor {ratio:.2f}" for i, ratio in far.items()}),
            "give the focal length (-o camera.params=...), or let the images share a camera "
            "(-o camera.mode=single or per_folder)",
        )


def camera_places(found: Survey, detail_of: Mapping[int, str]) -> tuple[Place, ...]:
    """Return the first image of each camera, with what is to be said of the camera."""
    ids = found.images.camera_ids
    return tuple(
        Place((found.images.names[np.flatnonzero(ids == camera_id)[0]],), detail)
        for camera_id, detail in detail_of.items()
    )
