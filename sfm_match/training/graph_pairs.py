"""Pairs of keypoint sets with known partners, which the generative graph matcher is trained on.

Two sources: keypoints that are detected in both pictures of a `DensePair`, and those of one picture
of which each side loses some. Truth knows nodes that are on both sides, on one, and of which it
cannot be told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from sfm_match.models.generative_graph_losses import UNKNOWN, UNMATCHED
from sfm_match.training.pairs import DensePair
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Extractor, Features

Partners = npt.NDArray[np.int64]
Descriptors = npt.NDArray[np.float32] | npt.NDArray[np.float16]

_NEAR, _FAR = 3.0, 6.0
"""Pixels within which a keypoint is found again, and beyond which it is not."""
_LANDED = 2.0
"""Pixels from where the nearest pixel of the first picture lands, if there is one at all."""


@dataclass(frozen=True, eq=False)
class GraphPair:
    """Two sets of keypoints and the truth about them.

    Attributes:
        features0: of the first image.
        features1: of the second image.
        partners0: int64 (N,), the row in the second image, or `UNMATCHED`, or `UNKNOWN`.
        partners1: int64 (M,), the same the other way round.
    """

    features0: Features
    features1: Features
    partners0: Partners
    partners1: Partners

    def take(self, rows0: Partners, rows1: Partners) -> GraphPair:
        """Return the pair with some of its keypoints; who loses a partner is unmatched."""
        return GraphPair(
            self.features0.take(rows0),
            self.features1.take(rows1),
            _renumbered(self.partners0[rows0], rows1, len(self.features1)),
            _renumbered(self.partners1[rows1], rows0, len(self.features0)),
        )


def _renumbered(partners: Partners, kept: Partners, num: int) -> Partners:
    """Return partners (N,) as positions in the kept ones of `num` rows."""
    places = np.full(num, UNMATCHED, np.int64)
    places[kept] = np.arange(len(kept))
    return np.where(partners >= 0, places[np.maximum(partners, 0)], partners)


def thinned_pair(rng: np.random.Generator, pair: GraphPair, drop: float) -> GraphPair:
    """Drop a share of the keypoints of each side, the rest in random order."""
    rows = []
    for features in (pair.features0, pair.features1):
        left = max(1, round((1 - drop) * len(features)))
        rows.append(rng.permutation(len(features))[:left])
    return pair.take(rows[0], rows[1])


def strongest_pair(pair: GraphPair, num0: int, num1: int) -> GraphPair:
    """Return the pair with the strongest keypoints of each side, so many if there are."""
    rows = [
        np.argsort(-features.scores, kind="stable")[:num]
        for features, num in ((pair.features0, num0), (pair.features1, num1))
    ]
    return pair.take(rows[0], rows[1])


def swapped_pair(pair: GraphPair) -> GraphPair:
    """Return the pair with its sides exchanged."""
    return GraphPair(pair.features1, pair.features0, pair.partners1, pair.partners0)


def moved_pair(
    rng: np.random.Generator, pair: GraphPair, *, turn: float = 40.0, stretch: float = 0.3
) -> GraphPair:
    """Move the keypoints of the second image by a random affine map; nothing else changes.

    Against learning where partners lie in the pictures of the training, instead of what they have
    in common. Keypoints may leave the image.

    Args:
        rng: source of all choices.
        pair: the pair.
        turn: standard deviation of the rotation, in degrees.
        stretch: standard deviation of the logarithms of the scales along two directions.
    """
    angles = np.radians([rng.normal(0, turn), rng.uniform(0, 180)])
    turns = [np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) for a in angles]
    linear = turns[0] @ turns[1] @ np.diag(np.exp(rng.normal(0, stretch, 2))) @ turns[1].T
    side = pair.features1
    centre = side.image_size / 2
    orientations, scales = side.orientations, side.scales
    if orientations is not None:
        arrows = linear @ np.stack([np.cos(orientations), np.sin(orientations)])
        orientations = np.arctan2(arrows[1], arrows[0]).astype(np.float32)
    if scales is not None:
        scales = (scales * np.sqrt(np.linalg.det(linear))).astype(np.float32)
    moved = replace(
        side,
        keypoints=((side.keypoints - centre) @ linear.T + centre).astype(np.float32),
        scales=scales,
        orientations=orientations,
    )
    return replace(pair, features1=moved)


def dropped_pair(
    rng: np.random.Generator,
    features: Features,
    rate: float,
    *,
    jitter: float = 1.0,
    noise: float = 0.1,
) -> GraphPair:
    """Drop keypoints of one image at a rate, on each side others, and disturb the second side.

    Args:
        rng: source of all choices.
        features: of the image.
        rate: the chance of each keypoint to be dropped, on each side.
        jitter: standard deviation of the second side's positions, in pixels.
        noise: of its descriptors, relative to their length.

    Raises:
        ValueError: the rate is not within 0 and 1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be from 0 to below 1, got {rate}")
    num = len(features)
    everyone = np.arange(num)
    shape = features.descriptors.shape
    lengths = np.linalg.norm(features.descriptors.astype(np.float32), axis=1, keepdims=True)
    grain = rng.standard_normal(shape) * noise / np.sqrt(shape[1])
    moved = replace(
        features,
        keypoints=(features.keypoints + jitter * rng.standard_normal((num, 2))).astype(np.float32),
        descriptors=(features.descriptors + lengths * grain).astype(np.float32),
    )
    kept0 = np.flatnonzero(rng.random(num) >= rate)
    kept1 = rng.permutation(np.flatnonzero(rng.random(num) >= rate))
    return GraphPair(features, moved, everyone, everyone).take(kept0, kept1)


def partners_by_position(
    features0: Features,
    features1: Features,
    forth: ArrayF64,
    seen0: ArrayBool,
    back: ArrayF64,
    seen1: ArrayBool,
) -> GraphPair:
    """Find who is partner of whom from where keypoints lie in the other image.

    Partners lie within 3 px of each other, in both images, and of all that do so each has the
    descriptor most similar to the other's: detectors find several keypoints at one place, of other
    scales and orientations. Unmatched is who is not seen in the other image, or has no keypoint
    within 6 px there. Others are unknown.

    Args:
        features0: N keypoints.
        features1: M keypoints.
        forth: float64 (N, 2), the first image's keypoints in the second image.
        seen0: bool (N,), where they are visible in it.
        back: float64 (M, 2), the second image's keypoints in the first image.
        seen1: bool (M,), the same.
    """
    miss0 = _misses(forth, seen0, features1)
    miss1 = _misses(back, seen1, features0).T
    near = (miss0 <= _NEAR) & (miss1 <= _NEAR)
    alike = np.where(near, _unit(features0.descriptors) @ _unit(features1.descriptors).T, -np.inf)
    partners0 = _unmatched_or_unknown(miss0)
    partners1 = _unmatched_or_unknown(miss1.T)
    rows = np.flatnonzero(near.any(axis=1))
    if len(rows):
        best = alike[rows].argmax(axis=1)
        mutual = alike[:, best].argmax(axis=0) == rows
        partners0[rows[mutual]] = best[mutual]
        partners1[best[mutual]] = rows[mutual]
    return GraphPair(features0, features1, partners0, partners1)


def _misses(points: ArrayF64, seen: ArrayBool, features: Features) -> ArrayF64:
    """Return the distances (N, M) of points to keypoints; infinite where a point is not seen."""
    distances = cdist(np.where(seen[:, None], points, 0.0), features.keypoints)
    return np.where(seen[:, None], distances, np.inf)


def _unit(descriptors: Descriptors) -> ArrayF32:
    lengths = np.linalg.norm(descriptors.astype(np.float32), axis=1, keepdims=True)
    return np.asarray(descriptors / np.maximum(lengths, 1e-12), np.float32)


def _unmatched_or_unknown(misses: ArrayF64) -> Partners:
    far = misses.min(axis=1, initial=np.inf) > _FAR
    return np.where(far, UNMATCHED, UNKNOWN).astype(np.int64)


def redetected_pair(pair: DensePair, extractor: Extractor) -> GraphPair:
    """Detect keypoints in two pictures; their flow says who is whose partner.

    Args:
        pair: the pictures; where there is no flow, nothing may be seen of the second one.
        extractor: what finds the keypoints.
    """
    features0, features1 = extractor(pair.image0), extractor(pair.image1)
    forth, seen0 = _carried(features0.keypoints, pair.flow)
    back, seen1 = _carried_back(features1.keypoints, pair.flow)
    return partners_by_position(features0, features1, forth, seen0, back, seen1)


def _carried(points: ArrayF32, flow: ArrayF32) -> tuple[ArrayF64, ArrayBool]:
    """Return where points (N, 2) lie in the other picture, and whether they are seen there."""
    height, width = flow.shape[:2]
    columns = np.clip(points[:, 0].astype(np.int64), 0, width - 1)
    rows = np.clip(points[:, 1].astype(np.int64), 0, height - 1)
    # The rest of a pixel moves as the pixel does.
    inside = points - (np.stack([columns, rows], axis=1) + 0.5)
    carried = (flow[rows, columns] + inside).astype(np.float64)
    return carried, np.asarray(~np.isnan(carried[:, 0]), np.bool_)


def _carried_back(points: ArrayF32, flow: ArrayF32) -> tuple[ArrayF64, ArrayBool]:
    """Return the pixels of the first picture that land nearest to points (N, 2) of the second."""
    rows, columns = np.nonzero(~np.isnan(flow[..., 0]))
    if len(rows) == 0:
        return np.zeros((len(points), 2)), np.zeros(len(points), np.bool_)
    distances, nearest = cKDTree(flow[rows, columns]).query(points)
    pixels = np.stack([columns[nearest], rows[nearest]], axis=1) + 0.5
    return pixels, np.asarray(distances <= _LANDED, np.bool_)
