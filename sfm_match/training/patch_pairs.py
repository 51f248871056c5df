"""Pairs of patches that show the same, cut at keypoints that were found in two pictures.

What counts as the same follows Winder and Brown ("Learning Local Image Descriptors", CVPR 2007),
whose patches MatchNet was trained on: keypoints of which one, carried to the other's picture, lies
within 5 / 64 of the patch, a quarter of an octave and an eighth of pi. What counts as different is
twice as far away or farther.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree

from sfm_match.geometry.raster import to_grey
from sfm_match.models.matchnet import PATCH_SIZE
from sfm_match.models.patches import cut_patches
from sfm_match.training.pairs import DensePair, Source
from sfm_match.training.reservoir import Reservoir
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Extractor, Features, Image

PatchPairs = npt.NDArray[np.void]
"""One record for each pair, with the fields

- `patches`: uint8 (2, 64, 64), grey;
- `places`: float32 (2, 2), the keypoints, x and y in corner-origin pixels of their crops;
- `sides`: float32 (2,), of the patches, in pixels of their crops;
- `pictures`: int64, the number of the pair of pictures that both are from;
- `descriptors`: float16 (2, D), what the detector itself makes of the keypoints.
"""

DIFFERENT = 10 / 64
"""Keypoints of a picture are different if they are farther apart, in sides of the larger patch."""

_SAME = 5 / 64
_OCTAVES = 0.25
_ANGLE = np.pi / 8
# Of so many pixels whose flow is known it is taken how the surroundings are scaled and turned.
_SURROUNDINGS = 12
_PARTNERS = 8

Integers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Cut:
    """How patches are cut, and which keypoints are the same.

    Attributes:
        magnification: side of a patch in scales of its keypoint.
        side: of a patch, in pixels, where the detector's keypoints have no scale.
        max_error: keypoints are the same within so many pixels at most, however large the patch.
        max_gap: the flow at a keypoint is that of the nearest pixel where it is known, which is no
            farther away.
    """

    magnification: float = 12.0
    side: float = 64.0
    max_error: float = 3.0
    max_gap: float = 1.5


class _Carried(NamedTuple):
    """Where keypoints lie in the other picture: NaN where that is not known.

    Attributes:
        points: float64 (N, 2).
        zoom: float64 (N,), what lengths are multiplied by.
        turn: float64 (N,), what is added to angles, in radians.
    """

    points: ArrayF64
    zoom: ArrayF64
    turn: ArrayF64


def record_type(descriptor_size: int) -> np.dtype[np.void]:
    """Return the type of a record of `PatchPairs`."""
    return np.dtype(
        [
            ("patches", np.uint8, (2, PATCH_SIZE, PATCH_SIZE)),
            ("places", np.float32, (2, 2)),
            ("sides", np.float32, (2,)),
            ("pictures", np.int64),
            ("descriptors", np.float16, (2, descriptor_size)),
        ]
    )


def gather(
    make_pair: Source,
    detector: Extractor,
    cut: Cut,
    num_pictures: int,
    reservoir: int,
    seeds: tuple[int, ...],
    progress: Callable[[int], object] = lambda _: None,
) -> PatchPairs:
    """Return pairs of patches from pairs of pictures, at most as many as a reservoir holds.

    Each pair of patches of the whole stream is kept with the same chance. They are sorted by the
    pictures they are from.

    Args:
        make_pair: makes pairs of pictures.
        detector: of keypoints.
        cut: how patches are cut.
        num_pictures: how many pairs of pictures are streamed.
        reservoir: how many pairs of patches are kept.
        seeds: all random numbers follow from them.
        progress: is called with 1 after each pair of pictures.
    """
    kept = Reservoir(reservoir, np.random.default_rng(seeds))
    for number in range(num_pictures):
        pair = make_pair(np.random.default_rng([*seeds, number]))
        kept.add(patch_pairs(pair, detector, cut, number))
        progress(1)
    return kept.items[np.argsort(kept.items["pictures"], kind="stable")]


def patch_pairs(pair: DensePair, detector: Extractor, cut: Cut, number: int = 0) -> PatchPairs:
    """Return the patches of all keypoints that are found in both pictures of a pair.

    Patches that reach beyond a picture are left out.

    Args:
        pair: of pictures.
        detector: of keypoints.
        cut: how patches are cut.
        number: what is written in the field `pictures`.
    """
    images = pair.image0, pair.image1
    found = [_whole(detector(image), image, cut) for image in images]
    rows = corresponding(found[0], found[1], pair.flow, cut)
    chosen = [features.take(side) for features, side in zip(found, rows, strict=True)]
    records = np.empty(len(rows[0]), record_type(chosen[0].descriptors.shape[1]))
    for side, (features, image) in enumerate(zip(chosen, images, strict=True)):
        records["patches"][:, side] = _patches(image, features, cut)
        records["places"][:, side] = features.keypoints
        records["sides"][:, side] = _sides(features, cut)
        records["descriptors"][:, side] = features.descriptors
    records["pictures"] = number
    return records


def corresponding(a: Features, b: Features, flow: ArrayF32, cut: Cut) -> tuple[Integers, Integers]:
    """Return the rows of a and of b, (M,) each, of keypoints that are the same; each row is once.

    Args:
        a: of the first picture.
        b: of the second picture.
        flow: float32 (H, W, 2), as in `DensePair`.
        cut: which keypoints are the same.
    """
    none = np.zeros(0, np.intp)
    if len(a) == 0 or len(b) == 0:
        return none, none
    carried = _carried(a.keypoints.astype(np.float64), flow, cut.max_gap)
    known = np.flatnonzero(np.isfinite(carried.points[:, 0]))
    num = min(_PARTNERS, len(b))
    distances, columns = cKDTree(b.keypoints).query(carried.points[known], k=range(1, num + 1))
    rows = np.repeat(known, num)
    distances, columns = np.ravel(distances), np.ravel(columns)
    fits = distances <= np.minimum(cut.max_error, _SAME * _sides(b, cut)[columns])
    if a.scales is not None and b.scales is not None:
        ratio = b.scales[columns] / (a.scales[rows] * carried.zoom[rows])
        fits &= np.abs(np.log2(ratio)) <= _OCTAVES
    if a.orientations is not None and b.orientations is not None:
        turn = b.orientations[columns] - a.orientations[rows] - carried.turn[rows]
        fits &= np.abs((turn + np.pi) % (2 * np.pi) - np.pi) <= _ANGLE
    rows, columns, distances = rows[fits], columns[fits], distances[fits]
    order = np.argsort(distances, kind="stable")
    rows, columns = rows[order], columns[order]
    # Of the pairs that fit, those that are the nearest of either keypoint.
    keep = _is_first(rows) & _is_first(columns)
    return rows[keep], columns[keep]


def _is_first(values: Integers) -> ArrayBool:
    first = np.zeros(len(values), np.bool_)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _carried(points: ArrayF64, flow: ArrayF32, max_gap: float) -> _Carried:
    """Carry points (N, 2) by the similarity that fits the flow around them best."""
    rows, columns = np.nonzero(~np.isnan(flow[..., 0]))
    if len(rows) < _SURROUNDINGS:
        nothing = np.full(len(points), np.nan)
        return _Carried(np.full(points.shape, np.nan), nothing, nothing)
    pixels = np.stack([columns, rows], axis=1) + 0.5
    gaps, near = cKDTree(pixels).query(points, k=range(1, _SURROUNDINGS + 1))
    # As complex numbers, a similarity is a multiplication: least squares over the surroundings.
    there, here = _complex(flow[rows, columns])[near], _complex(pixels)[near]
    from_middle = here - here.mean(axis=1, keepdims=True)
    factor = (from_middle.conj() * there).sum(axis=1) / (np.abs(from_middle) ** 2).sum(axis=1)
    moved = there[:, 0] + factor * (_complex(points) - here[:, 0])
    moved[np.asarray(gaps)[:, 0] > max_gap] = np.nan
    return _Carried(np.stack([moved.real, moved.imag], axis=1), np.abs(factor), np.angle(factor))


def _complex(points: npt.NDArray[np.floating]) -> npt.NDArray[np.complex128]:
    return np.asarray(points[:, 0] + 1j * points[:, 1], np.complex128)


def _sides(features: Features, cut: Cut) -> ArrayF32:
    if features.scales is None:
        return np.full(len(features), cut.side, np.float32)
    return np.asarray(features.scales * np.float32(cut.magnification), np.float32)


def _whole(features: Features, image: Image, cut: Cut) -> Features:
    """Return the features whose patches, if upright, lie inside the picture."""
    half = _sides(features, cut)[:, None] / 2
    low, high = features.keypoints - half, features.keypoints + half
    inside = np.asarray(((low >= 0) & (high <= image.shape[1::-1])).all(axis=1))
    return features.take(inside)


@torch.inference_mode()
def _patches(image: Image, features: Features, cut: Cut) -> npt.NDArray[np.uint8]:
    if len(features) == 0:
        return np.zeros((0, PATCH_SIZE, PATCH_SIZE), np.uint8)
    angles = features.orientations
    if angles is None:
        angles = np.zeros(len(features), np.float32)
    keypoints, sides, turns = map(
        torch.from_numpy, (features.keypoints, _sides(features, cut), angles)
    )
    grey = torch.from_numpy(np.ascontiguousarray(to_grey(image))).float()
    patches = cut_patches(grey, keypoints, sides, turns, PATCH_SIZE)
    return np.asarray(patches[:, 0].round().clamp(0, 255).to(torch.uint8))
