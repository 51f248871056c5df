"""COLMAP databases: written as a whole from arrays."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.io.files import FileError, publish, room, writing
from sfm_match.types import ArrayF32, Matches, Pair, TwoView

_INFO_TABLE = "sfm_match"
_DISK_ERRORS = ("SQLITE_CANTOPEN", "SQLITE_FULL", "SQLITE_IOERR")


@dataclass
class DatabaseCounts:
    """What a database holds.

    Attributes:
        images: number of images.
        keypoints: number of keypoints of all images.
        matched_pairs: pairs with matches.
        matches: number of matches of all pairs.
        verified_pairs: pairs with a two-view geometry.
        inliers: number of inlier matches of all pairs.
    """

    images: int = 0
    keypoints: int = 0
    matched_pairs: int = 0
    matches: int = 0
    verified_pairs: int = 0
    inliers: int = 0


def write_database(
    path: Path,
    cameras: Mapping[int, pycolmap.Camera],
    camera_of_image: Mapping[str, int],
    keypoints: Iterable[tuple[str, ArrayF32]],
    pairs: Iterable[tuple[Pair, Matches, TwoView]],
    info: Mapping[str, str],
) -> DatabaseCounts:
    """Write a COLMAP database; it replaces an older one only once it is complete.

    One at a time: the caller holds a lock.

    Each camera is a rig of its own and each image a frame. Ids of images count from 1 in order of
    their names. Keypoints are written as they are: corner-origin pixels are COLMAP's own.

    Args:
        path: the file.
        cameras: camera id -> camera.
        camera_of_image: image name -> camera id.
        keypoints: image name and float32 (N, 2), or (N, 4) with scale and orientation.
        pairs: matches and verified geometry of each pair.
        info: what the database was made from (see `read_info`).

    Raises:
        FileError: it could not be written; an older one is as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)  # of a run that was killed
    # What is written is sound, so what goes wrong in SQLite, pycolmap's or Python's, is the disk.
    with writing(path, RuntimeError, sqlite3.OperationalError):
        return _write_partial(path, partial, cameras, camera_of_image, keypoints, pairs, info)


def _write_partial(
    path: Path,
    partial: Path,
    cameras: Mapping[int, pycolmap.Camera],
    camera_of_image: Mapping[str, int],
    keypoints: Iterable[tuple[str, ArrayF32]],
    pairs: Iterable[tuple[Pair, Matches, TwoView]],
    info: Mapping[str, str],
) -> DatabaseCounts:
    """Write the database under the name `partial`, then rename it."""
    try:
        # In no transaction: pycolmap ends the process where the disk is too full for its commit,
        # and has no rollback. A partial file is thrown away in any case, and its log stays small.
        with pycolmap.Database.open(partial) as database:
            ids = _write_images(database, cameras, camera_of_image)
            counts = DatabaseCounts(images=len(ids))
            for name, points in keypoints:
                database.write_keypoints(ids[name], points)
                counts.keypoints += len(points)
            for pair, matches, two_view in pairs:
                _write_pair(database, (ids[pair.a], ids[pair.b]), matches, two_view, counts)
        _write_info(partial, info)
        # A killed reader leaves a write-ahead log behind, which would be applied to the new file.
        _remove_logs(path)
        publish(partial, path)
    finally:
        _remove(partial)
    return counts


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _remove_logs(path)


def _remove_logs(path: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _write_images(
    database: pycolmap.Database,
    cameras: Mapping[int, pycolmap.Camera],
    camera_of_image: Mapping[str, int],
) -> dict[str, int]:
    for camera_id, camera in cameras.items():
        camera.camera_id = camera_id
        database.write_camera(camera, use_camera_id=True)
        rig = pycolmap.Rig()
        rig.rig_id = camera_id
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig, use_rig_id=True)
    ids = {name: image_id for image_id, name in enumerate(sorted(camera_of_image), start=1)}
    for name, image_id in ids.items():
        image = pycolmap.Image(name=name, camera_id=camera_of_image[name], image_id=image_id)
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame()
        frame.frame_id = image_id
        frame.rig_id = camera_of_image[name]
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)
    return ids


def _write_pair(
    database: pycolmap.Database,
    ids: tuple[int, int],
    matches: Matches,
    two_view: TwoView,
    counts: DatabaseCounts,
) -> None:
    if len(matches) == 0:
        return
    indices = matches.indices.astype(np.uint32)
    database.write_matches(*ids, indices)
    counts.matched_pairs += 1
    counts.matches += len(matches)
    if two_view.inliers.any():
        database.write_two_view_geometry(*ids, colmap_two_view(two_view, indices[two_view.inliers]))
        counts.verified_pairs += 1
        counts.inliers += two_view.num_inliers


def colmap_two_view(
    two_view: TwoView, inliers: np.typing.NDArray[np.uint32]
) -> pycolmap.TwoViewGeometry:
    """Return pycolmap's form of a geometry, with its inlier matches, uint32 (M, 2)."""
    geometry = pycolmap.TwoViewGeometry()
    geometry.config = int(two_view.config)
    geometry.inlier_matches = inliers
    if two_view.cam1_from_cam0 is not None:
        geometry.cam2_from_cam1 = pycolmap.Rigid3d(two_view.cam1_from_cam0)
    for name in ("E", "F", "H"):
        matrix = getattr(two_view, name)
        if matrix is not None:
            setattr(geometry, name, matrix)
    return geometry


def _write_info(path: Path, info: Mapping[str, str]) -> None:
    # Only after pycolmap closed the file: two copies of SQLite in a process do not see each
    # other's locks.
    connection = sqlite3.connect(path)
    try:
        # Everything in the one file that is renamed; pycolmap turns the log on again by itself.
        connection.execute("PRAGMA journal_mode = DELETE")
        with connection:
            connection.execute(f"CREATE TABLE {_INFO_TABLE} (key TEXT PRIMARY KEY, value TEXT)")
            connection.executemany(f"INSERT INTO {_INFO_TABLE} VALUES (?, ?)", info.items())
    finally:
        connection.close()


def read_info(path: Path) -> dict[str, str]:
    """Return what a database was made from; nothing for a file that was not made here.

    Raises:
        FileError: the disk is too full, or too broken, to open it.
    """
    if not path.is_file():
        return {}
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return dict(connection.execute(f"SELECT key, value FROM {_INFO_TABLE}").fetchall())
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith(_DISK_ERRORS):
            raise FileError(f"{path}: cannot be opened: {error}{room(path)}") from error
        return {}
    finally:
        connection.close()


def read_counts(path: Path) -> DatabaseCounts:
    """Count what a database holds."""
    with pycolmap.Database.open(path) as database:
        return DatabaseCounts(
            images=database.num_images(),
            keypoints=database.num_keypoints(),
            matched_pairs=database.num_matched_image_pairs(),
            matches=database.num_matches(),
            verified_pairs=database.num_verified_image_pairs(),
            inliers=database.num_inlier_matches(),
        )


def content_digest(parts: Iterable[bytes]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of some bytes in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]
