"""Keypoints, matches and geometries of single pairs of a database, read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.io.database_access import Connection, ids_of_pair
from sfm_match.io.database_images import read_image_keypoints
from sfm_match.io.database_reading import Indices, read_pair_matches, stream_geometries
from sfm_match.report.doctor_tables import Survey, says_something
from sfm_match.types import ArrayBool, ArrayF64

_NUM_KEPT = 64


class PairReader:
    """Reads pairs of a database by their row in the survey's table.

    Attributes:
        readable: bool (P,), of which pairs the keypoints and cameras of both images can be read.
    """

    def __init__(self, connection: Connection, found: Survey) -> None:
        self._connection = connection
        self._found = found
        has_camera = [found.camera(row) is not None for row in range(len(found.images))]
        sound = (found.images.num_columns >= 2) & np.array(has_camera, np.bool_)
        self.readable: ArrayBool = np.all(sound[found.pairs.images], axis=1)
        self._keypoints = lru_cache(_NUM_KEPT)(self._read_keypoints)

    def _read_keypoints(self, image_id: int) -> ArrayF64:
        found = read_image_keypoints(self._connection, image_id)
        assert found is not None
        return found[:, :2].astype(np.float64)

    def keypoints(self, pair: int) -> tuple[ArrayF64, ArrayF64]:
        """Return the keypoints, float64 (N, 2), of both images of a pair."""
        a, b = ids_of_pair(int(self._found.pairs.ids[pair]))
        return self._keypoints(a), self._keypoints(b)

    def cameras(self, pair: int) -> tuple[pycolmap.Camera, pycolmap.Camera]:
        """Return the cameras of both images of a pair."""
        a, b = (self._found.camera(int(row)) for row in self._found.pairs.images[pair])
        assert a is not None
        assert b is not None
        return a, b

    def matched(self, pair: int) -> tuple[ArrayF64, ArrayF64]:
        """Return the matched points, float64 (M, 2), of both images of a pair."""
        points = self.keypoints(pair)
        indices = _in_range(
            read_pair_matches(self._connection, int(self._found.pairs.ids[pair])), points
        )
        return points[0][indices[:, 0]], points[1][indices[:, 1]]

    def geometries(
        self, pairs: Sequence[int] | npt.NDArray[np.int64], max_inliers: int | None = None
    ) -> Iterator[tuple[int, pycolmap.TwoViewGeometry]]:
        """Yield the geometries of pairs, with their first so many inliers."""
        row_of = {int(self._found.pairs.ids[pair]): int(pair) for pair in pairs}
        for row in stream_geometries(self._connection, [], list(row_of)):
            pair = row_of[row.pair_id]
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = row.config
            for name in "EFH":
                matrix = row.matrices.get(name)
                if matrix is not None and says_something(matrix):
                    setattr(geometry, name, matrix.reshape(3, 3))
            inliers = row.inliers[:max_inliers]
            geometry.inlier_matches = _in_range(inliers, self.keypoints(pair))
            yield pair, geometry


def _in_range(indices: Indices, points: tuple[ArrayF64, ArrayF64]) -> Indices:
    return indices[(indices < [len(points[0]), len(points[1])]).all(axis=1)]
