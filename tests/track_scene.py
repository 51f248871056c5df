"""Correspondences as a detector-free matcher finds them, from a known model; the score of tracks.

Points of a scene are seen by cameras on an arc. In each pair some of those that both images show
are found, each a little elsewhere every time; some correspondences are wrong on one side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Correspondences, Matches, Pair

SIZE = (640, 480)
FOCAL = 1000.0


@dataclass(frozen=True, eq=False)
class TrackScene:
    """Correspondences, and the truth about them.

    Attributes:
        places: float64 (images, points, 2), where each point really is in each image.
        found: the correspondences of each pair; images are named 000, 001, ...
        truth: int64 (M,) of each pair: the point that a correspondence is of, -1 for a wrong one.
    """

    places: ArrayF64
    found: dict[Pair, Correspondences]
    truth: dict[Pair, npt.NDArray[np.int64]]


def make_scene(
    num_images: int = 8,
    num_points: int = 1000,
    num_found: int = 400,
    noise: float = 0.5,
    outliers: float = 0.2,
    seed: int = 0,
) -> TrackScene:
    """Return a scene; noise is a standard deviation in pixels, outliers a share."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (num_points, 3))
    angles = np.linspace(-0.6, 0.6, num_images)
    places = np.stack([_project(points, angle) for angle in angles])
    inside: ArrayBool = np.all((places > 4) & (places < np.array(SIZE) - 4), axis=2)
    found, truth = {}, {}
    for a, b in combinations(range(num_images), 2):
        both = np.flatnonzero(inside[a] & inside[b])
        rows = rng.choice(both, min(num_found, len(both)), replace=False)
        wrong = rng.uniform(size=len(rows)) < outliers
        sides = [places[i, rows] + rng.normal(size=(len(rows), 2)) * noise for i in (a, b)]
        anywhere = rng.uniform(0, SIZE, (len(rows), 2))
        sides[1] = np.where(np.stack([wrong, wrong], axis=1), anywhere, sides[1])
        scores = np.where(wrong, rng.beta(2, 3, len(rows)), rng.beta(3, 2, len(rows)))
        pair = Pair(f"{a:03}", f"{b:03}")
        found[pair] = Correspondences(*(v.astype(np.float32) for v in (*sides, scores)))
        truth[pair] = np.where(wrong, -1, rows)
    return TrackScene(places, found, truth)


def _project(points: ArrayF64, angle: float) -> ArrayF64:
    cos, sin = np.cos(angle), np.sin(angle)
    seen = points @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T + [0, 0, 4]
    places: ArrayF64 = FOCAL * seen[:, :2] / seen[:, 2:] + np.array(SIZE) / 2
    return places


@dataclass(frozen=True)
class Score:
    """How right the matches of tracks are.

    Attributes:
        precision: the share of matches whose keypoints lie on one point in both images.
        recall: the share of the right correspondences whose points are matched in their pair.
        offset: root of the mean square distance in pixels of a right match's keypoints from it.
    """

    precision: float
    recall: float
    offset: float


def score_matches(
    scene: TrackScene,
    keypoints: Mapping[str, ArrayF32],
    matches: Mapping[Pair, Matches],
    tolerance: float,
) -> Score:
    """Compare matches with the truth; a keypoint lies on a point within the tolerance (pixels)."""
    num_right = num_matches = num_recalled = num_true = 0
    squares = []
    for pair, found in matches.items():
        ends = [keypoints[n][r] for n, r in zip((pair.a, pair.b), found.indices.T, strict=True)]
        places = [scene.places[int(name)] for name in (pair.a, pair.b)]
        point, squared = _common_point(ends, places, tolerance)
        squares.append(squared[point >= 0])
        true = scene.truth[pair][scene.truth[pair] >= 0]
        num_right += int(np.count_nonzero(point >= 0))
        num_matches += len(point)
        num_recalled += int(np.count_nonzero(np.isin(true, point)))
        num_true += len(true)
    offset = float(np.sqrt(np.concatenate(squares).mean() / 2))
    return Score(num_right / num_matches, num_recalled / num_true, offset)


def _common_point(
    ends: list[ArrayF32], places: list[ArrayF64], tolerance: float
) -> tuple[npt.NDArray[np.int64], ArrayF64]:
    """Return the point nearest to both ends of each match, or -1, and the sum of the squares."""
    # Twelve are more than lie within the tolerance of a keypoint.
    _, near = cKDTree(places[0]).query(ends[0], k=12)
    squares = [np.square(p[near] - e[:, None]).sum(2) for p, e in zip(places, ends, strict=True)]
    total = np.where(np.maximum(*squares) <= tolerance**2, squares[0] + squares[1], np.inf)
    every, best = np.arange(len(total)), total.argmin(axis=1)
    least = total[every, best]
    return np.where(np.isfinite(least), np.asarray(near)[every, best], -1), least
