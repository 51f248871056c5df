"""Reads what a COLMAP database holds into tables, in one pass over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pycolmap
from scipy.spatial.transform import Rotation

from sfm_match.io.database_access import Connection, ids_of_pair
from sfm_match.io.database_reading import (
    GeometryRow,
    Indices,
    read_cameras,
    read_images,
    stream_geometries,
    stream_keypoints,
    stream_matches,
)
from sfm_match.report.doctor_tables import (
    ArrayInt,
    BadPairs,
    ImageTable,
    PairTable,
    Survey,
    says_something,
)
from sfm_match.types import ArrayF32, ArrayF64

BOUNDS_MARGIN = 1.0
"""Pixels: refinement may move a keypoint this far out of the image."""
_MAX_KEYPOINTS = 10_000_000


def survey(connection: Connection) -> Survey:
    """Read a database once, table by table and row by row."""
    damages: list[str] = []
    cameras = read_cameras(connection, damages)
    rows = read_images(connection)
    names = tuple(rows)
    camera_ids = np.array([image.camera_id for image in rows.values()], np.int64)
    there = {camera_id for (camera_id,) in connection.execute("SELECT camera_id FROM cameras")}
    damages += [
        f"the camera of image {name}, id {image.camera_id}, is not there"
        for name, image in rows.items()
        if image.camera_id not in there
    ]
    row_of = {image.image_id: row for row, image in enumerate(rows.values())}
    counts = np.zeros((len(names), 5), np.int64)
    for image_id, num, points in stream_keypoints(connection, damages):
        if (row := row_of.get(image_id)) is not None:
            camera = cameras.get(int(camera_ids[row]))
            counts[row, 0] = np.clip(num, 0, _MAX_KEYPOINTS)  # it may be that of a damaged row
            if points is not None:
                counts[row, 1:] = _counts(points, camera)
    ids = np.array([image.image_id for image in rows.values()], np.int64)
    images = ImageTable(names, ids, camera_ids, *counts.T)
    fold = _PairFold(names, row_of, images.num_keypoints)
    for pair_id, matches in stream_matches(connection, damages):
        fold.add_matches(pair_id, matches)
    for geometry in stream_geometries(connection, damages):
        fold.add_geometry(geometry)
    return Survey(cameras, images, fold.table(), fold.bad, tuple(damages), fold.num_seen_twice())


def _counts(points: ArrayF32, camera: pycolmap.Camera | None) -> tuple[int, int, int, int]:
    """Return the numbers of columns, outside, outside of the turned image, and on whole numbers."""
    num_columns = points.shape[1]
    if num_columns < 2:
        return num_columns, 0, 0, 0
    xy = points[:, :2]
    sides = (np.inf, np.inf) if camera is None else (camera.width, camera.height)
    return (
        num_columns,
        _num_outside(xy, sides),
        _num_outside(xy, sides[::-1]),
        int(np.count_nonzero((xy == np.round(xy)).all(axis=1))),
    )


def _num_outside(xy: ArrayF32, sides: tuple[float, float]) -> int:
    # So that values that are not numbers count too.
    inside = (xy >= -BOUNDS_MARGIN) & (xy <= np.add(sides, BOUNDS_MARGIN)) & np.isfinite(xy)
    return int(np.count_nonzero(~inside.all(axis=1)))


class _PairFold:
    """The rows of pairs, taken one after the other."""

    def __init__(self, names: tuple[str, ...], row_of: Mapping[int, int], num: ArrayInt) -> None:
        self.bad = BadPairs()
        self._names = names
        self._row_of = row_of
        self._num_keypoints = num
        self._degrees = [np.zeros(n, np.uint16) for n in num]
        self._ids_seen: dict[bool, set[int]] = {False: set(), True: set()}
        self._pairs: dict[int, _Pair] = {}

    def add_matches(self, pair_id: int, matches: Indices) -> None:
        pair = self._pair(pair_id, is_geometry=False)
        if pair is not None and len(matches):
            pair.num_matches = len(matches)
            self._in_range(pair.rows, matches)

    def add_geometry(self, row: GeometryRow) -> None:
        pair = self._pair(row.pair_id, is_geometry=True)
        if pair is None or not len(row.inliers):
            return
        pair.num_inliers, pair.config = len(row.inliers), row.config
        pair.has_matrix = any(
            says_something(matrix) for name, matrix in row.matrices.items() if name in "EFH"
        )
        pair.pose = _pose(row.matrices)
        for image, of_image in zip(
            pair.rows, self._in_range(pair.rows, row.inliers).T, strict=True
        ):
            self._degrees[image][of_image] += 1  # once, though it be there twice

    def _pair(self, pair_id: int, is_geometry: bool) -> _Pair | None:
        """Return the pair of a row, None where the row is one of `bad`."""
        ids = ids_of_pair(pair_id)
        rows = [self._row_of.get(image_id) for image_id in ids]
        if rows[0] is None or rows[1] is None:
            self.bad.orphans[ids] = self.bad.orphans.get(ids, False) or is_geometry
            return None
        if rows[0] == rows[1]:
            self.bad.selves.add(self._names[rows[0]])
            return None
        a, b = sorted((rows[0], rows[1]))
        names = self._names[a], self._names[b]
        number = a * len(self._names) + b
        seen = self._ids_seen[is_geometry]
        if number in seen:
            self.bad.reversed.discard(names)
            self.bad.duplicates[names] = self.bad.duplicates.get(names, False) or is_geometry
            return None
        seen.add(number)
        if rows[0] != a:
            self.bad.reversed.add(names)
            return None
        return self._pairs.setdefault(pair_id, _Pair((a, b)))

    def _in_range(self, rows: tuple[int, int], indices: Indices) -> Indices:
        """Return those of the indices that there are keypoints of; count the others."""
        num = self._num_keypoints[list(rows)]
        if (indices.max(axis=0) < num).all():
            return indices
        inside = (indices < num).all(axis=1)
        names = self._names[rows[0]], self._names[rows[1]]
        self.bad.out_of_range[names] += int(np.count_nonzero(~inside))
        return indices[inside]

    def num_seen_twice(self) -> int:
        """Return how many keypoints are in two pairs or more."""
        return sum(int(np.count_nonzero(degrees > 1)) for degrees in self._degrees)

    def table(self) -> PairTable:
        found = {i: p for i, p in self._pairs.items() if p.num_matches or p.num_inliers}
        pairs = found.values()
        return PairTable(
            ids=np.array(list(found), np.int64),
            images=np.array([p.rows for p in pairs], np.int64).reshape(-1, 2),
            num_matches=np.array([p.num_matches for p in pairs], np.int64),
            num_inliers=np.array([p.num_inliers for p in pairs], np.int64),
            config=np.array([p.config for p in pairs], np.int64),
            has_matrix=np.array([p.has_matrix for p in pairs], np.bool_),
            poses=np.array([p.pose for p in pairs], np.float64).reshape(-1, 3, 4),
        )


@dataclass
class _Pair:
    """A pair whose rows are sound."""

    rows: tuple[int, int]
    num_matches: int = 0
    num_inliers: int = 0
    config: int = 0
    has_matrix: bool = False
    pose: ArrayF64 = field(default_factory=lambda: np.full((3, 4), np.nan))


def _pose(matrices: Mapping[str, ArrayF64]) -> ArrayF64:
    """Return the pose (3, 4), not-a-number where there is none or only COLMAP's initial value."""
    pose = np.full((3, 4), np.nan)
    quaternion, translation = matrices.get("qvec"), matrices.get("tvec")
    if quaternion is None or translation is None:
        return pose
    is_initial = not translation.any() and not quaternion[1:].any()
    if is_initial or not np.isfinite([*quaternion, *translation]).all() or not quaternion.any():
        return pose
    pose[:, :3] = Rotation.from_quat(np.roll(quaternion, -1)).as_matrix()
    pose[:, 3] = translation
    return pose
