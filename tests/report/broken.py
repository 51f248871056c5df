"""Sound databases, and ways to break them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sfm_match.geometry.cameras import Cameras
from sfm_match.report.doctor import CODES
from sfm_match.report.findings import Finding
from sfm_match.types import ArrayF64, Pair
from tests.colmap_scene import FOCAL, Scene, camera, project, same_rows
from tests.databases import FACTOR, Change, Connection


def the_only(findings: list[Finding]) -> Finding:
    """Return the one finding that there is."""
    assert [finding.code for finding in findings] == [findings[0].code], findings
    assert findings[0].code in CODES
    return findings[0]


def without_pairs(keep: Callable[[int, int], bool]) -> Change:
    """Delete the rows of the pairs of ids that are not to be kept."""

    def change(connection: Connection) -> None:
        for table in ("matches", "two_view_geometries"):
            for (pair,) in connection.execute(f"SELECT pair_id FROM {table}").fetchall():
                if not keep(*divmod(pair, FACTOR)):
                    connection.execute(f"DELETE FROM {table} WHERE pair_id = ?", (pair,))

    return change


def fewer_inliers(num: int, where: Callable[[int, int], bool]) -> Change:
    """Keep the first inliers only of some pairs of ids."""

    def change(connection: Connection) -> None:
        for (pair,) in connection.execute("SELECT pair_id FROM two_view_geometries").fetchall():
            if where(*divmod(pair, FACTOR)):
                connection.execute(
                    "UPDATE two_view_geometries SET rows = ?, data = substr(data, 1, ?) "
                    "WHERE pair_id = ?",
                    (num, num * 8, pair),
                )

    return change


def changed_keypoints(image_id: int, change: Callable[[npt.NDArray[np.float32]], object]) -> Change:
    """Replace the keypoints (N, 2) of an image by what a function makes of a copy."""

    def apply(connection: Connection) -> None:
        ((data,),) = connection.execute(
            "SELECT data FROM keypoints WHERE image_id = ?", (image_id,)
        ).fetchall()
        points = np.frombuffer(data, np.float32).reshape(-1, 2).copy()
        new = np.asarray(change(points), np.float32)
        connection.execute(
            "UPDATE keypoints SET rows = ?, cols = ?, data = ? WHERE image_id = ?",
            (*new.shape, new.tobytes(), image_id),
        )

    return apply


def copied_row(table: str, source: int, target: int) -> str:
    """Return the statement that copies the row of one pair to another."""
    names = "rows, cols, data" + (", config, F, E, H" if table == "two_view_geometries" else "")
    return (
        f"INSERT INTO {table} (pair_id, {names}) SELECT {target}, {names} FROM {table} "
        f"WHERE pair_id = {source}"
    )


def scene_of(
    points: ArrayF64, poses: list[ArrayF64], *, focal: float = FOCAL, prior: bool = True
) -> Scene:
    """Return the images of points (N, 3), all of which are in all images, in given poses.

    Args:
        points: the points.
        poses: `cam_from_world` (3, 4) of each image.
        focal: the focal length that the camera claims; it is 600 pixels.
        prior: whether it counts as known.
    """
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(len(poses))]
    keypoints = {
        name: project(points, pose) + rng.normal(0, 0.2, (len(points), 2)).astype(np.float32)
        for name, pose in zip(names, poses, strict=True)
    }
    pairs = [Pair(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    cameras = Cameras({1: camera(focal=focal, prior=prior)}, dict.fromkeys(names, 1), False)
    return Scene(None, cameras, keypoints, {pair: same_rows(len(points)) for pair in pairs})  # type: ignore[arg-type]
