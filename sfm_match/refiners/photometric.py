"""Sub-pixel refinement by the grey values around each correspondence.

Patches are aligned by Lucas and Kanade's method from coarse to fine, with gain and bias (see
`sfm_match.models.photometric`), starting from the correspondence itself or from what its
neighbours say, whichever looks more alike. Then they are aligned back: what does not return is
wrong, and half of the way that it misses is taken off.

Points of a matcher on a grid lie anywhere, also where there is nothing to align, and elsewhere in
each pair. With `corners` they give way to corners near them, in both images in turn: these can be
aligned, and lie at the same places in all pairs, so that tracks grow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match.geometry.raster import to_grey
from sfm_match.models.photometric import Motion, Pyramid, Settings, align, pyramid, similarity
from sfm_match.models.photometric_start import anchors, corners, motion_around
from sfm_match.spec import Spec
from sfm_match.types import ArrayF32, Correspondences, Refiner, View

VERSION = 1
NEEDS = frozenset({"image"})
CONCURRENT = True
LICENCE = "Apache-2.0"

# The coarsest level is that on which points are off by so many pixels at most.
_START_PIXELS = 2.0
# Two corners that came from both images are one correspondence within so many pixels.
_SAME = 1.5
# Flat patches are said to be as unlike as can be, and are never aligned.
_NOTHING = -0.99


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `photometric`.

    Attributes:
        search: how far points may be off, in full-size pixels: about half a cell of the grid of
            the matcher, at full size.
        motion: affine, or translation only (faster, for images from nearly one direction).
        radius: patches have 2 radius + 1 pixels a side.
        iterations: at most so many on each level of the pyramid.
        corners: replace each point by up to so many corners around it; 0 keeps the points.
        reach: how far from a point its corners may be, in pixels along an axis.
        corner_distance: corners are farther apart than so many pixels.
        neighbours: whether the start may also come from neighbouring correspondences.
        min_similarity: smallest normalised cross-correlation of aligned patches, from -1 to 1.
        max_inconsistency: how far, in pixels, the alignment back may miss the point it came from.
        keep_failed: keep what could not be aligned as it was, instead of dropping it; corners that
            could not be aligned are dropped in any case.
    """

    search: PositiveFloat = 8.0
    motion: Literal["affine", "translation"] = "affine"
    radius: PositiveInt = 6
    iterations: PositiveInt = 12
    corners: NonNegativeInt = 0
    reach: PositiveFloat = 12.0
    corner_distance: PositiveInt = 4
    neighbours: bool = True
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.8
    max_inconsistency: PositiveFloat = 1.0
    keep_failed: bool = False


@dataclass(frozen=True)
class Encoded:
    """One image.

    Attributes:
        pyramid: of grey values.
        corners: float32 (N, 2), strongest first; none where they are not asked for.
        size: width and height.
    """

    pyramid: Pyramid
    corners: Tensor
    size: tuple[int, int]


@dataclass(frozen=True)
class _Found:
    """Refined points: (M, 2) twice, similarity (M,), and which of them are to be trusted (M,)."""

    points0: Tensor
    points1: Tensor
    similarity: Tensor
    good: Tensor

    def take(self, rows: Tensor) -> _Found:
        return _Found(
            self.points0[rows], self.points1[rows], self.similarity[rows], self.good[rows]
        )


class _Photometric:
    def __init__(self, config: Config, device: str) -> None:
        self._config = config
        self._device = device
        self._settings = Settings(config.radius, config.motion == "affine", config.iterations)
        # The linear part is known by then.
        self._back = Settings(config.radius, affine=False, iterations=config.iterations)
        depth = max(0, math.ceil(math.log2(config.search / _START_PIXELS)))
        self._levels = list(range(depth, -1, -1))

    @torch.inference_mode()
    def encode(self, view: View) -> Encoded:
        if view.image is None:
            raise ValueError("photometric aligns images, and this view has none")
        grey = torch.from_numpy(to_grey(view.image)).to(self._device)
        levels = pyramid(grey, len(self._levels))
        found = grey.new_zeros(0, 2, dtype=torch.float32)
        if self._config.corners:
            found, _ = corners(levels.levels[0], self._config.corner_distance)
        return Encoded(levels, found, (grey.shape[1], grey.shape[0]))

    @torch.inference_mode()
    def refine(
        self, pairs: Sequence[tuple[Encoded, Encoded, Correspondences]]
    ) -> list[Correspondences]:
        return [self._refine(*pair) for pair in pairs]

    def _refine(self, a: Encoded, b: Encoded, given: Correspondences) -> Correspondences:
        if not len(given):
            return given
        points0 = torch.tensor(given.points0, device=self._device)
        points1 = torch.tensor(given.points1, device=self._device)
        if self._config.corners:
            there = self._track_corners(a, b, points0, points1)
            back = self._track_corners(b, a, points1, points0)
            found = _united(there, back)
        else:
            found = self._track(a, b, points0, points0, points1)
            if self._config.keep_failed:
                found = _with_failed(found, points0, points1)
        found = found.take(found.good & _inside(found.points0, a) & _inside(found.points1, b))
        return Correspondences(
            points0=_array(found.points0),
            points1=_array(found.points1),
            scores=_array(found.similarity.clamp(0, 1)),
        )

    def _track_corners(self, a: Encoded, b: Encoded, points0: Tensor, points1: Tensor) -> _Found:
        """Find the corners of one image near correspondences in the other image."""
        rows, owners = anchors(points0, a.corners, self._config.reach, self._config.corners)
        found = self._track(a, b, a.corners[rows], points0, points1, owners)
        return found.take(found.good)

    def _track(
        self,
        a: Encoded,
        b: Encoded,
        at: Tensor,
        points0: Tensor,
        points1: Tensor,
        owners: Tensor | None = None,
    ) -> _Found:
        """Find places (K, 2) of one image in the other, from correspondences around them.

        Without `owners`, the place of each row is its correspondence's own.
        """
        if not len(at):
            return _Found(at, at, at[:, 0], at[:, 0] > 0)
        rows = slice(None) if owners is None else owners
        around = motion_around(points0, points1, at, self._config.search / 2)
        away = (around.linear @ (at - points0[rows])[..., None])[..., 0]
        linear = around.linear
        if not self._settings.affine:
            linear = torch.eye(2, device=at.device).expand_as(linear).contiguous()
        own = Motion(points1[rows] + away, linear)
        around = Motion(around.points1, linear)
        radius, levels = self._config.radius, self._levels
        start = own
        if self._config.neighbours:
            # Compared where they are off by little, in pixels.
            likeness = [
                similarity(a.pyramid, b.pyramid, at, motion, radius, levels[0])
                for motion in (own, around)
            ]
            better = (likeness[1] > likeness[0])[:, None]
            start = Motion(torch.where(better, around.points1, own.points1), linear)
        there = align(a.pyramid, b.pyramid, at, start, self._settings, levels)
        before = similarity(a.pyramid, b.pyramid, at, own, radius)
        # Back again, from where it has arrived.
        inverse = torch.linalg.inv_ex(there.motion.linear).inverse
        arrived, way_back = there.motion.points1, Motion(at, inverse)
        back = align(b.pyramid, a.pyramid, arrived, way_back, self._back, [0])
        missed = back.motion.points1 - at
        half = (there.motion.linear @ missed[..., None])[..., 0] / 2
        good = there.converged & back.converged
        good &= missed.norm(dim=1) <= self._config.max_inconsistency
        good &= there.similarity >= max(self._config.min_similarity, _NOTHING)
        good &= there.similarity >= before
        # From where the neighbours say, a point may have to go as far again.
        good &= (there.motion.points1 - start.points1).abs().amax(dim=1) <= 2 * self._config.search
        return _Found(at, there.motion.points1 - half, there.similarity, good)


def _array(values: Tensor) -> ArrayF32:
    return np.asarray(values.float().cpu().numpy(), np.float32)


def _inside(points: Tensor, encoded: Encoded) -> Tensor:
    return ((points >= 0) & (points <= points.new_tensor(encoded.size))).all(dim=1)


def _with_failed(found: _Found, points0: Tensor, points1: Tensor) -> _Found:
    """Return all correspondences: those that could not be refined as they were, with score 0."""
    good = found.good[:, None]
    return _Found(
        points0=torch.where(good, found.points0, points0),
        points1=torch.where(good, found.points1, points1),
        similarity=torch.where(found.good, found.similarity, 0.0),
        good=torch.ones_like(found.good),
    )


def _united(there: _Found, back: _Found) -> _Found:
    """Return what was found from either image; what was found from both is averaged.

    `back` has the images exchanged.
    """
    points0, points1 = back.points1, back.points0
    if not len(there.points0) or not len(points0):
        return _Found(
            torch.cat([there.points0, points0]),
            torch.cat([there.points1, points1]),
            torch.cat([there.similarity, back.similarity]),
            torch.cat([there.good, back.good]),
        )
    # Nearest in both images at once, and each the other's nearest.
    distances = torch.maximum(
        torch.cdist(there.points0, points0), torch.cdist(there.points1, points1)
    )
    nearest, other = distances.min(dim=1)
    mutual = distances.argmin(dim=0)[other] == torch.arange(len(other), device=other.device)
    rows = (mutual & (nearest <= _SAME)).nonzero()[:, 0]
    alone = torch.ones(len(points0), dtype=torch.bool, device=points0.device)
    alone[other[rows]] = False
    merged = [there.points0.clone(), there.points1.clone(), there.similarity.clone()]
    for mine, others in zip(merged, (points0, points1, back.similarity), strict=True):
        mine[rows] = (mine[rows] + others[other[rows]]) / 2
    return _Found(
        torch.cat([merged[0], points0[alone]]),
        torch.cat([merged[1], points1[alone]]),
        torch.cat([merged[2], back.similarity[alone]]),
        torch.cat([there.good, back.good[alone]]),
    )


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Refiner[Encoded]:
    """Return the refiner, which runs on a torch device."""
    return _Photometric(config, device)
