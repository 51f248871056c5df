"""What a COLMAP database says of its pairs: how many matches, how many inliers, and which.

Only the counts of all pairs are read, and the points of single ones: a page needs no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.io.database_access import Connection, array_of, ids_of_pair
from sfm_match.io.database_reading import read_images, reading
from sfm_match.types import ArrayBool, ArrayF32

ArrayInt = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MatchGraph:
    """The images of a database and the pairs that have matches or a verified geometry.

    Attributes:
        names: of all images, sorted.
        num_keypoints: int64 (N,), of each image.
        pairs: int64 (P, 2), rows of `names`, the smaller one first; in sorted order.
        num_matches: int64 (P,), of each pair.
        num_inliers: int64 (P,), of each pair; 0 where it has no verified geometry.
    """

    names: tuple[str, ...]
    num_keypoints: ArrayInt
    pairs: ArrayInt
    num_matches: ArrayInt
    num_inliers: ArrayInt


@dataclass(frozen=True, eq=False)
class PairPoints:
    """The matches of a pair.

    Attributes:
        points0: float32 (M, 2), in pixels of the first image's file raster.
        points1: float32 (M, 2), the same in the second image.
        inliers: bool (M,), which of them the verified geometry keeps.
    """

    points0: ArrayF32
    points1: ArrayF32
    inliers: ArrayBool


def read_match_graph(path: Path) -> MatchGraph:
    """Read the counts of all images and pairs; the matches themselves are not read.

    Raises:
        DatabaseError: as `sfm_match.io.database_reading.reading`.
    """
    with reading(path) as connection:
        ids = {name: image.image_id for name, image in read_images(connection).items()}
        keypoints = dict(connection.execute("SELECT image_id, rows FROM keypoints"))
        matches = dict(connection.execute("SELECT pair_id, rows FROM matches"))
        inliers = dict(connection.execute("SELECT pair_id, rows FROM two_view_geometries"))
    names = sorted(ids)
    row_of = {ids[name]: row for row, name in enumerate(names)}
    found = []
    for pair_id in matches.keys() | inliers.keys():
        a, b = (row_of.get(image_id) for image_id in ids_of_pair(pair_id))
        if a is not None and b is not None:
            counts = matches.get(pair_id) or 0, inliers.get(pair_id) or 0
            found.append((min(a, b), max(a, b), *counts))
    table = np.array(sorted(found), np.int64).reshape(-1, 4)
    return MatchGraph(
        names=tuple(names),
        num_keypoints=np.array([keypoints.get(ids[name]) or 0 for name in names], np.int64),
        pairs=table[:, :2],
        num_matches=table[:, 2],
        num_inliers=table[:, 3],
    )


def read_pair_points(path: Path, a: str, b: str) -> PairPoints:
    """Read where the matches of a pair lie; inliers that are not among the matches count too.

    Raises:
        DatabaseError: as `read_match_graph`, or the rows of the pair are damaged.
        KeyError: there is no such image.
    """
    with reading(path) as connection:
        ids = (_id_of(connection, a), _id_of(connection, b))
        points = [_points(connection, image_id) for image_id in ids]
        pair_id = pycolmap.image_pair_to_pair_id(*ids)
        matches, inliers = (
            _rows(connection, table, pair_id) for table in ("matches", "two_view_geometries")
        )
    kept = {tuple(row) for row in inliers.tolist()}
    rest = [row for row in matches.tolist() if tuple(row) not in kept]
    indices = np.array([*inliers.tolist(), *rest], np.int64).reshape(-1, 2)
    if ids[0] > ids[1]:
        indices = indices[:, ::-1]
    inside = (indices < [len(points[0]), len(points[1])]).all(axis=1)
    return PairPoints(
        points0=points[0][indices[inside, 0]],
        points1=points[1][indices[inside, 1]],
        inliers=(np.arange(len(indices)) < len(inliers))[inside],
    )


def read_image_points(path: Path, name: str) -> ArrayF32:
    """Read the keypoints of an image: float32 (N, 2), in pixels of its file raster.

    Raises:
        DatabaseError: as `read_match_graph`, or the keypoints are damaged.
        KeyError: there is no such image.
    """
    with reading(path) as connection:
        return _points(connection, _id_of(connection, name))


def _id_of(connection: Connection, name: str) -> int:
    row = connection.execute("SELECT image_id FROM images WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise KeyError(f"no image {name!r} in the database")
    return int(row[0])


def _points(connection: Connection, image_id: int) -> ArrayF32:
    row = connection.execute(
        "SELECT rows, cols, data FROM keypoints WHERE image_id = ?", (image_id,)
    ).fetchone()
    points = array_of(row or (0, 2, None), "<f4", f"the keypoints of image {image_id}")
    return np.asarray(points[:, :2], np.float32)


def _rows(connection: Connection, table: str, pair_id: int) -> npt.NDArray[np.uint32]:
    row = connection.execute(
        f"SELECT rows, cols, data FROM {table} WHERE pair_id = ?", (pair_id,)
    ).fetchone()
    what = f"the {table} of images {' and '.join(map(str, ids_of_pair(pair_id)))}"
    return np.asarray(array_of(row or (0, 2, None), "<u4", what), np.uint32)
