"""LoFTR, a matcher that needs no keypoints: kornia's network, each image encoded once.

Sun, Shen, Wang, Bao, Zhou: "LoFTR: Detector-Free Local Feature Matching with Transformers",
CVPR 2021.

The cross layers of the transformer update one image before the other, so the order of the images
matters a little. Pairs are sorted by name, which fixes it; `symmetric` removes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match import weights
from sfm_match.geometry.raster import to_grey
from sfm_match.models.loftr import (
    CellMatches,
    Features,
    Refine,
    Transport,
    TwoPhaseLoFTR,
    merge_orders,
)
from sfm_match.models.loftr_network import has_fine_stage, load_network
from sfm_match.models.loftr_tiles import (
    Points,
    cut,
    full_size,
    resize_to_multiples,
    tiles,
    window_pairs,
    within,
)
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import ArrayF64, Correspondences, Image, Matcher, View

VERSION = 1
NEEDS = frozenset({"image"})
GIVES = "correspondences"
CONCURRENT = True
LICENCE = "Apache-2.0"
LIBRARIES = ("kornia",)

_NAMES = {"outdoor": "loftr-outdoor", "indoor_new": "loftr-indoor-new"}
# The only published weights that were trained with the corrected position encoding.
_CORRECTED = weights.CHECKPOINTS["loftr-indoor-new"].sha256
_BIN_SCORE = 1.0  # where the authors' training starts


def _checkpoint_name(value: Any) -> Any:
    if value == "indoor":
        raise ValueError(
            "no digest is published for the older indoor weights: fetch "
            "https://huggingface.co/kornia/loftr/resolve/main/loftr_indoor.ckpt "
            "and give the path of the file, or use indoor_new"
        )
    return _NAMES.get(value, value)


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `loftr`.

    Attributes:
        weights: outdoor, indoor_new, coarse-16 (a small network without a fine stage, on a grid of
            16 pixels; its matches need a refiner), coarse-16-fine (the same with a fine stage,
            which comes with this package), or a file in kornia's or the authors' layout, such as
            `sfm-match train coarse-16-fine` makes.
        position_encoding: auto is what the published weights were trained with: corrected for
            indoor_new, original for all others.
        resize: shrink images so that their long side has about so many pixels; 0 for never. Sides
            are then rounded to what the network needs, without cropping.
        tile: side of the tiles in which larger images are matched again at full size, where the
            first pass at the size of `resize` finds matches; 0 for the first pass only.
        assignment: dual_softmax, or sinkhorn: optimal transport with dustbins.
        sinkhorn_iterations: of the optimal transport.
        threshold: smallest score of a match, from 0 to 1.
        border: how many cells along the border of an image (or tile) are never matched.
        max_matches: keep so many matches of the highest score; 0 for all.
        refine: which points the fine stage moves off the grid: second, as published; both, which
            runs it in both directions; or none.
        symmetric: match in both orders of the images and merge: twice the time of a pair, and the
            result does not depend on the order.
        precision: of all computations and of the encoded images.
        batch_size: how many pairs are matched at once on a GPU.
    """

    weights: Annotated[str, BeforeValidator(_checkpoint_name)] = "loftr-outdoor"
    position_encoding: Literal["auto", "original", "corrected"] = "auto"
    resize: NonNegativeInt = 1024
    tile: Annotated[int, Field(ge=0)] = 0
    assignment: Literal["dual_softmax", "sinkhorn"] = "dual_softmax"
    sinkhorn_iterations: PositiveInt = 3
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.2
    border: NonNegativeInt = 2
    max_matches: NonNegativeInt = 0
    refine: Refine = "second"
    symmetric: bool = False
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    batch_size: PositiveInt = 4


@dataclass(frozen=True)
class Encoded:
    """One image.

    Attributes:
        features: of the whole image at the size that the network sees.
        scale: float64 (2,), full-size pixels for each of the network's, in x and y.
        size: width and height at full size.
        image: the grey image at full size where it may be matched in tiles, else None.
        shrunk: whether the first pass saw it smaller than it is.
        blank: whether all its pixels are equal.
    """

    features: Features
    scale: ArrayF64
    size: tuple[int, int]
    image: Image | None
    shrunk: bool
    blank: bool


class _LoFTR:
    def __init__(self, config: Config, network: TwoPhaseLoFTR, device: str) -> None:
        self._config = config
        self._network = network
        self._batch_size = config.batch_size if device.startswith("cuda") else 1

    def encode(self, view: View) -> Encoded:
        if view.image is None:
            raise ValueError("loftr matches images, and this view has none")
        image, limit = to_grey(view.image), self._config.resize
        height, width = image.shape
        features, scale = self._features(image, limit)
        return Encoded(
            features=features,
            scale=scale,
            size=(width, height),
            image=image if self._config.tile else None,
            shrunk=0 < limit < max(width, height),
            blank=bool(image.min() == image.max()),
        )

    def _features(self, image: Image, limit: int) -> tuple[Features, ArrayF64]:
        """Return the features of a grey image, and its pixels for each of the network's."""
        resized = resize_to_multiples(image, limit, self._network.stride)
        scale = np.array(image.shape[::-1], np.float64) / resized.shape[::-1]
        try:
            return self._network.encode(torch.from_numpy(resized)), scale
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            raise _too_large(resized.shape[::-1]) from error

    def match(self, pairs: Sequence[tuple[Encoded, Encoded]]) -> list[Correspondences]:
        parts: list[list[Points]] = [[] for _ in pairs]
        rows = [i for i, (a, b) in enumerate(pairs) if not (a.blank or b.blank)]
        whole = self._match([(pairs[i][0].features, pairs[i][1].features) for i in rows])
        for i, matches in zip(rows, whole, strict=True):
            a, b = pairs[i]
            first = full_size(matches, a.scale, b.scale)
            tiled = self._config.tile > 0 and (a.shrunk or b.shrunk)
            parts[i] = self._match_tiles(a, b, first) if tiled else [first]
        return [
            _correspondences(found, a.size, b.size, self._config.max_matches)
            for found, (a, b) in zip(parts, pairs, strict=True)
        ]

    def _match_tiles(self, a: Encoded, b: Encoded, first: Points) -> list[Points]:
        """Match at full size the parts of a pair that correspond by the first pass.

        Tiles are encoded when their turn comes: those of a large image would fill the memory.
        """
        assert a.image is not None
        assert b.image is not None
        cell, tile = self._network.stride, self._config.tile
        overlap = 2 * self._config.border * cell  # what two neighbours leave out at their borders
        tiles0 = tiles(*a.size, max(tile, overlap + cell), overlap)
        margin = cell * float(max(*a.scale, *b.scale)) + overlap / 2
        parts = []
        for tile0, window1 in window_pairs(first.points0, first.points1, tiles0, b.size, margin):
            features0, scale0 = self._features(cut(a.image, tile0.window), tile)
            features1, scale1 = self._features(cut(b.image, window1), tile)
            (matches,) = self._match([(features0, features1)])
            found = full_size(matches, scale0, scale1, tile0.window, window1)
            core = within(found.points0, tile0.core)
            parts.append(Points(*(values[core] for values in found)))
        return parts

    def _match(self, pairs: Sequence[tuple[Features, Features]]) -> list[CellMatches]:
        found = self._match_in_batches(pairs)
        if not self._config.symmetric:
            return found
        swapped = self._match_in_batches([(b, a) for a, b in pairs])
        return [merge_orders(*both) for both in zip(found, swapped, strict=True)]

    def _match_in_batches(self, pairs: Sequence[tuple[Features, Features]]) -> list[CellMatches]:
        """Match pairs; those at once have images of the same sizes."""
        found: dict[int, CellMatches] = {}

        def grids(row: int) -> tuple[tuple[int, int], tuple[int, int]]:
            return pairs[row][0].grid, pairs[row][1].grid

        for _, group in groupby(sorted(range(len(pairs)), key=grids), key=grids):
            rows = list(group)
            for start in range(0, len(rows), self._batch_size):
                batch = rows[start : start + self._batch_size]
                found.update(zip(batch, self._match_batch([pairs[i] for i in batch]), strict=True))
        return [found[i] for i in range(len(pairs))]

    def _match_batch(self, batch: list[tuple[Features, Features]]) -> list[CellMatches]:
        """Match a batch at once, or in halves where the memory does not hold it."""
        try:
            return self._network.match(batch)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            if len(batch) == 1:
                rows, columns = batch[0][0].grid
                stride = self._network.stride
                raise _too_large((columns * stride, rows * stride)) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = len(batch) // 2
        return self._match_batch(batch[:half]) + self._match_batch(batch[half:])


def _correspondences(
    parts: list[Points], size0: tuple[int, int], size1: tuple[int, int], max_matches: int
) -> Correspondences:
    """Return the matches of all parts that lie in both images, the best if there are too many."""
    nothing = Points(*(np.zeros((0, *shape), np.float32) for shape in ((2,), (2,), ())))
    points0, points1, scores = map(np.concatenate, zip(nothing, *parts, strict=True))
    inside = np.ones(len(scores), np.bool_)
    for points, size in ((points0, size0), (points1, size1)):
        inside &= ((points >= 0) & (points <= np.array(size, np.float32))).all(axis=1)
    rows = np.flatnonzero(inside)
    if 0 < max_matches < len(rows):
        rows = np.sort(rows[np.argsort(-scores[rows], kind="stable")[:max_matches]])
    return Correspondences(points0=points0[rows], points1=points1[rows], scores=scores[rows])


def _is_out_of_memory(error: BaseException) -> bool:
    # On a CPU, torch has no class of its own for it.
    kinds = (torch.cuda.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def _too_large(size: tuple[int, ...]) -> ConfigError:
    return ConfigError(
        f"loftr: out of memory with one pair of images of {size[0]} x {size[1]} pixels: set "
        "matcher.resize to a smaller size, and matcher.tile to the same to see full-size detail"
    )


def build(
    config: Config, device: str, inputs: tuple[Spec, ...]
) -> Matcher[Encoded, Correspondences]:
    """Return the matcher, with its network on a torch device.

    Raises:
        WeightsError: the weights are not to be had, or not those of LoFTR; the keys are named.
        ConfigError: `refine` is both for weights without a fine stage.
    """
    path = weights.find(config.weights)
    encoding = config.position_encoding
    if encoding == "auto":
        encoding = "corrected" if weights.digest(config.weights) == _CORRECTED else "original"
    network, bin_score = load_network(path, encoding, config.threshold, config.border)
    if config.refine == "both" and not has_fine_stage(network):
        raise ConfigError(
            f"loftr.refine: the weights {config.weights} have no fine stage to run in both "
            "directions; leave the option out, and use a refiner"
        )
    network = network.to(device=device, dtype=getattr(torch, config.precision))
    transport = None
    if config.assignment == "sinkhorn":
        score = _BIN_SCORE if bin_score is None else bin_score
        transport = Transport(bin_score=score, iterations=config.sinkhorn_iterations)
    return _LoFTR(config, TwoPhaseLoFTR(network, config.refine, transport), device)
