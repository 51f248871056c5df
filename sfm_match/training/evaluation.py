"""How good a detector and its descriptors are on pairs with dense truth.

The measures are those of Mikolajczyk and Schmid (PAMI 2005) and of Dusmanu et al. (D2-Net, CVPR
2019), for any flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sfm_match.training.pairs import DensePair
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Features, Image


def evaluate_features(
    extractor: Callable[[Image], Features], pairs: Sequence[DensePair], radius: float = 3.0
) -> dict[str, float]:
    """Return figures, each the mean over the pairs.

    Args:
        extractor: what finds and describes keypoints.
        pairs: what it is tried on.
        radius: how near a keypoint has to be found again, in pixels.

    Returns:
        `repeatability`: share of the first picture's keypoints, of those that the second one
        shows, that are found there within the radius. `matching_score`: share of these that
        mutual nearest descriptors match within the radius. `accuracy_1` and `accuracy_3`: share
        of the mutual nearest, of those whose truth is known, that are right within 1 and 3
        pixels.
    """
    found = [_evaluate(extractor, pair, radius) for pair in pairs]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _evaluate(
    extractor: Callable[[Image], Features], pair: DensePair, radius: float
) -> dict[str, float]:
    a, b = extractor(pair.image0), extractor(pair.image1)
    true, known = _carried(a.keypoints, pair.flow)
    errors = np.full(len(a.keypoints), np.inf)
    rows, columns = _mutual_nearest(a, b)
    errors[rows] = np.linalg.norm(true[rows] - b.keypoints[columns], axis=1)
    matched = np.isfinite(errors) & known
    nearest = (
        np.linalg.norm(true[:, None] - b.keypoints[None], axis=2).min(axis=1)
        if len(b.keypoints)
        else np.full(len(true), np.inf)
    )
    num_known, num_matched = max(1, int(known.sum())), max(1, int(matched.sum()))
    return {
        "repeatability": float((nearest[known] <= radius).sum() / num_known),
        "matching_score": float((errors[known] <= radius).sum() / num_known),
        "accuracy_1": float((errors[matched] <= 1).sum() / num_matched),
        "accuracy_3": float((errors[matched] <= 3).sum() / num_matched),
    }


def _carried(points: ArrayF32, flow: ArrayF32) -> tuple[ArrayF64, ArrayBool]:
    """Return where points (N, 2) lie in the other picture by their pixel's flow, if it is known."""
    height, width = flow.shape[:2]
    columns = np.clip(points[:, 0].astype(np.int64), 0, width - 1)
    rows = np.clip(points[:, 1].astype(np.int64), 0, height - 1)
    inside = points - (np.stack([columns, rows], axis=1) + 0.5)
    carried = (flow[rows, columns] + inside).astype(np.float64)
    known: ArrayBool = ~np.isnan(carried[:, 0])
    return np.where(known[:, None], carried, np.inf), known


def _mutual_nearest(a: Features, b: Features) -> tuple[np.ndarray, np.ndarray]:
    if not len(a.keypoints) or not len(b.keypoints):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    similarities = a.descriptors.astype(np.float32) @ b.descriptors.astype(np.float32).T
    best1 = similarities.argmax(axis=1)
    rows = np.arange(len(best1))
    mutual = similarities.argmax(axis=0)[best1] == rows
    return rows[mutual], best1[mutual]
