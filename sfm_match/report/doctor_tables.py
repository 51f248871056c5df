"""Tables of what a COLMAP database holds: numbers, no keypoints or matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.types import ArrayBool, ArrayF64

ArrayInt = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images, in order of their ids.

    Attributes:
        names: of the N images.
        ids: int64 (N,), as in the database.
        camera_ids: int64 (N,).
        num_keypoints: int64 (N,), 0 where there is no row.
        num_columns: int64 (N,), of the keypoints; 0 where there are none.
        num_outside: int64 (N,), keypoints out of the image, or not finite.
        num_outside_turned: int64 (N,), keypoints out of the image with its sides exchanged.
        num_whole: int64 (N,), keypoints both coordinates of which are whole numbers.
    """

    names: tuple[str, ...]
    ids: ArrayInt
    camera_ids: ArrayInt
    num_keypoints: ArrayInt
    num_columns: ArrayInt
    num_outside: ArrayInt
    num_outside_turned: ArrayInt
    num_whole: ArrayInt

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class PairTable:
    """The pairs with matches or inliers, those of `BadPairs` apart.

    Attributes:
        ids: int64 (P,), the numbers of the pairs.
        images: int64 (P, 2), rows of the images, the smaller first.
        num_matches: int64 (P,).
        num_inliers: int64 (P,).
        config: int64 (P,), COLMAP's class of the geometry, 0 where there is none.
        has_matrix: bool (P,), whether E, F or H says something: it is neither zero nor identity.
        poses: float64 (P, 3, 4), `b_from_a`, not-a-number where there is none.
    """

    ids: ArrayInt
    images: ArrayInt
    num_matches: ArrayInt
    num_inliers: ArrayInt
    config: ArrayInt
    has_matrix: ArrayBool
    poses: ArrayF64

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class BadPairs:
    """Rows of pairs that say something impossible.

    Attributes:
        orphans: pairs of ids of which there is no such image, and whether it is a geometry's row.
        selves: images that are paired with themselves.
        duplicates: pairs of images with two rows in one table, and whether it is the geometries'.
        reversed: pairs of images stored under the number of the other order.
        out_of_range: the numbers of matches or inliers of a pair beyond the keypoints.
    """

    orphans: dict[tuple[int, int], bool] = field(default_factory=dict)
    selves: set[str] = field(default_factory=set)
    duplicates: dict[tuple[str, str], bool] = field(default_factory=dict)
    reversed: set[tuple[str, str]] = field(default_factory=set)
    out_of_range: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class Survey:
    """What a database holds.

    Attributes:
        cameras: by their id.
        images: the images.
        pairs: the pairs.
        bad: rows of pairs that say something impossible.
        damages: what is wrong with rows that cannot be read.
        num_seen_twice: how many keypoints are verified in two pairs or more.
    """

    cameras: Mapping[int, pycolmap.Camera]
    images: ImageTable
    pairs: PairTable
    bad: BadPairs
    damages: tuple[str, ...]
    num_seen_twice: int

    def camera(self, row: int) -> pycolmap.Camera | None:
        """Return the camera of an image, None where it is not there or damaged."""
        return self.cameras.get(int(self.images.camera_ids[row]))

    def names_of(self, pair: int) -> tuple[str, str]:
        """Return the names of the images of a pair."""
        a, b = self.pairs.images[pair]
        return self.images.names[a], self.images.names[b]


def says_something(matrix: ArrayF64) -> bool:
    """Return whether a matrix is more than what tools write where they have none."""
    if not np.isfinite(matrix).all() or not matrix.any():
        return False
    return not np.array_equal(matrix, np.eye(3).ravel())
