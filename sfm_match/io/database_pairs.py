"""Matches and two-view geometries of a COLMAP database: its rows, read, compared and added.

The tables are those of COLMAP's documentation (https://colmap.github.io/database.html); rows refer
to the image with the smaller id first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.io.database import colmap_two_view
from sfm_match.io.database_access import (
    Connection,
    array_of,
    columns,
    ids_of_pair,
    shape_and_blob,
    values_of,
)
from sfm_match.types import ArrayF64, Matches, TwoView

Indices = npt.NDArray[np.uint32]

_EMPTY = (0, 2, None)


@dataclass(frozen=True, eq=False)
class PairRows:
    """The matches and the two-view geometry of a pair, as COLMAP stores them.

    Attributes:
        pair_id: the number of the pair.
        has_matches: whether there is a row of matches.
        has_geometry: whether there is a row of the geometry.
        matches: uint32 (M, 2), rows of keypoints.
        inliers: uint32 (N, 2), rows of keypoints.
        config: COLMAP's class of the geometry.
        matrices: float64, by column: those there are of `F`, `E` and `H` (row by row), `qvec`
            (w, x, y, z) and `tvec`.
    """

    pair_id: int
    has_matches: bool
    has_geometry: bool
    matches: Indices
    inliers: Indices
    config: int
    matrices: Mapping[str, ArrayF64]


def pair_rows(
    ids: tuple[int, int],
    matches: Matches,
    two_view: TwoView | None,
    matrix_columns: Collection[str],
) -> PairRows:
    """Return the rows that a pair should have; one without matches or without inliers has none.

    Args:
        ids: of the two images, in the order of the pair.
        matches: of the pair.
        two_view: its geometry, where it is known.
        matrix_columns: the columns that the database has for matrices.
    """
    geometry = pycolmap.TwoViewGeometry()
    indices = matches.indices.astype(np.uint32)
    if two_view is not None:
        geometry = colmap_two_view(two_view, indices[two_view.inliers])
    if pycolmap.should_swap_image_pair(*ids):
        geometry.invert()
        indices = indices[:, ::-1]
    matrices = _matrices(geometry)
    return PairRows(
        pair_id=pycolmap.image_pair_to_pair_id(*ids),
        has_matches=len(indices) > 0,
        has_geometry=len(geometry.inlier_matches) > 0,
        matches=indices,
        inliers=geometry.inlier_matches,
        config=int(geometry.config),
        matrices={name: matrices[name] for name in matrix_columns if name in matrices},
    )


def _matrices(geometry: pycolmap.TwoViewGeometry) -> dict[str, ArrayF64]:
    matrices = {"F": geometry.F, "E": geometry.E, "H": geometry.H}
    pose = geometry.cam2_from_cam1
    if pose is not None:
        matrices["qvec"] = np.roll(pose.rotation.quat, 1)
        matrices["tvec"] = pose.translation
    return {name: np.ravel(matrix) for name, matrix in matrices.items() if matrix is not None}


def same_matches(a: Indices, b: Indices) -> bool:
    """Return whether two sets of matches (M, 2) are the same, in any order."""
    if a.shape != b.shape or np.array_equal(a, b):
        return a.shape == b.shape
    return np.array_equal(a[np.lexsort(a.T)], b[np.lexsort(b.T)])


def same_two_view(a: PairRows, b: PairRows) -> bool:
    """Return whether two geometries are the same, the order of inliers and rounding apart.

    One without inliers is none.
    """
    if not len(a.inliers) and not len(b.inliers):
        return True
    return (
        a.config == b.config
        and same_matches(a.inliers, b.inliers)
        and a.matrices.keys() == b.matrices.keys()
        and all(
            np.allclose(matrix, b.matrices[name], rtol=1e-9, atol=1e-12)
            for name, matrix in a.matrices.items()
        )
    )


def matrix_columns(connection: Connection) -> list[str]:
    """Return the columns that a database has for matrices; older ones have none for poses."""
    there = columns(connection, "two_view_geometries")
    return [name for name in ("F", "E", "H", "qvec", "tvec") if name in there]


def read_pair(connection: Connection, pair_id: int, matrix_columns: Sequence[str]) -> PairRows:
    """Return the rows of a pair.

    Raises:
        ContentError: one of them is damaged.
    """
    matches_row = connection.execute(
        "SELECT rows, cols, data FROM matches WHERE pair_id = ?", (pair_id,)
    ).fetchone()
    geometry_row = connection.execute(
        f"SELECT rows, cols, data, config, {', '.join(matrix_columns)} FROM two_view_geometries "
        "WHERE pair_id = ?",
        (pair_id,),
    ).fetchone()
    where = f"of images {' and '.join(map(str, ids_of_pair(pair_id)))}"
    matches = matches_row or _EMPTY
    rows, cols, data, config, *blobs = geometry_row or (*_EMPTY, 0)
    return PairRows(
        pair_id=pair_id,
        has_matches=matches_row is not None,
        has_geometry=geometry_row is not None,
        matches=array_of(matches, "<u4", f"the matches {where}"),
        inliers=array_of((rows, cols, data), "<u4", f"the inliers {where}"),
        config=config,
        matrices={
            name: values_of(blob, "<f8", f"the matrices {where}")
            for name, blob in zip(matrix_columns, blobs, strict=False)
            if blob
        },
    )


def add_matches(connection: Connection, rows: PairRows) -> None:
    """Add the matches of a pair."""
    connection.execute(
        "INSERT INTO matches (pair_id, rows, cols, data) VALUES (?, ?, ?, ?)",
        (rows.pair_id, *shape_and_blob(rows.matches, "<u4")),
    )


def add_two_view(connection: Connection, rows: PairRows) -> None:
    """Add the two-view geometry of a pair."""
    values = {
        "config": rows.config,
        **{name: matrix.astype("<f8").tobytes() for name, matrix in rows.matrices.items()},
    }
    connection.execute(
        f"INSERT INTO two_view_geometries (pair_id, rows, cols, data, {', '.join(values)}) "
        f"VALUES (?, ?, ?, ?{', ?' * len(values)})",
        (rows.pair_id, *shape_and_blob(rows.inliers, "<u4"), *values.values()),
    )
