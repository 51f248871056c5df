"""Sub-pixel refinement by correlation of local descriptors around each correspondence.

The descriptor at one point is compared with all descriptors around the other: the expectation over
the heat map is where it belongs, the heat map's spread is the uncertainty. Both points take part
alike: each is looked for around the other, and each moves half of the way.

The feature maps are those of networks that are here anyway: R2D2's descriptors, one for each pixel
(Revaud et al., NeurIPS 2019), the features that ALIKED's descriptors are made from (Zhao et al.,
IEEE TIM 2023), or LoFTR's fine map (Sun et al., CVPR 2021), that of the small network included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match import weights
from sfm_match.geometry.raster import shrink, to_grey
from sfm_match.models import aliked, loftr_network, r2d2
from sfm_match.models.correlation import DescriptorMap, Peak, at, descriptor_map, find
from sfm_match.models.loftr_tiles import resize_to_multiples
from sfm_match.models.r2d2_folded import FoldedR2D2
from sfm_match.spec import Spec
from sfm_match.types import ArrayF32, Correspondences, Image, Refiner, View

VERSION = 1
NEEDS = frozenset({"image"})
CONCURRENT = True
LICENCE = "Apache-2.0; ALIKED's weights: BSD-3-Clause, R2D2's: CC-BY-NC-SA-3.0"
LIBRARIES = ("kornia",)

# First a coarse heat map over the whole search range, then a fine one around its peak.
_COARSE_RADIUS = 6
_FINE_RADIUS = 2


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `correlation`.

    Attributes:
        network: whose feature maps: loftr, r2d2 or aliked.
        weights: of that network.
        resize: shrink images so that their long side has about so many pixels; 0 for never.
        search: how far points may be off, in pixels of the image so resized.
        temperature: of the heat map: the lower, the more its highest peak counts.
        max_spread: drop what is less certain: standard deviation of the heat map, in pixels of
            the map.
        max_inconsistency: how far, in pixels of the map, the two points may disagree on the way
            that they should go.
        keep_failed: keep what is dropped for these reasons as it was, with score 0.
    """

    network: Literal["loftr", "r2d2", "aliked"] = "loftr"
    weights: str = "coarse-16"
    resize: NonNegativeInt = 1024
    search: PositiveFloat = 8.0
    temperature: Annotated[float, Field(gt=0)] = 0.02
    max_spread: PositiveFloat = 1.5
    max_inconsistency: PositiveFloat = 1.0
    keep_failed: bool = False


@dataclass(frozen=True)
class Encoded:
    """One image.

    Attributes:
        map: its descriptors.
        step: float32 (2,), full-size pixels between neighbouring descriptors, in x and y.
        first: float32 (2,), where the first descriptor lies, in full-size pixels.
        size: width and height at full size.
    """

    map: DescriptorMap
    step: Tensor
    first: Tensor
    size: tuple[int, int]


_Encoder = Callable[[Image], tuple[Tensor, tuple[int, int], int]]
"""Image -> vectors (C, h, w), width and height of the image that was seen, pixels per vector."""


class _Correlation:
    def __init__(self, config: Config, encoder: _Encoder, device: str) -> None:
        self._config = config
        self._encoder = encoder
        self._device = device

    @torch.inference_mode()
    def encode(self, view: View) -> Encoded:
        if view.image is None:
            raise ValueError("correlation compares images, and this view has none")
        vectors, seen, stride = self._encoder(view.image)
        height, width = view.image.shape[:2]
        scale = torch.tensor([width / seen[0], height / seen[1]], device=self._device)
        # The first vector is that of the first pixel, whose centre is at (0.5, 0.5).
        return Encoded(descriptor_map(vectors), stride * scale, 0.5 * scale, (width, height))

    @torch.inference_mode()
    def refine(
        self, pairs: Sequence[tuple[Encoded, Encoded, Correspondences]]
    ) -> list[Correspondences]:
        return [self._refine(*pair) for pair in pairs]

    def _refine(self, a: Encoded, b: Encoded, given: Correspondences) -> Correspondences:
        points0 = torch.tensor(given.points0, device=self._device)
        points1 = torch.tensor(given.points1, device=self._device)
        in0, in1 = (points0 - a.first) / a.step, (points1 - b.first) / b.step
        peak1 = self._look(at(a.map, in0), b, in1)
        peak0 = self._look(at(b.map, in1), a, in0)
        move0, move1 = peak0.positions - in0, peak1.positions - in1
        spread = torch.maximum(peak0.spread, peak1.spread)
        # Images of one scale: what one point should do, the other should do the other way.
        good = (move0 + move1).norm(dim=1) <= self._config.max_inconsistency
        good &= spread <= self._config.max_spread
        moved0 = (in0 + move0 / 2) * a.step + a.first
        moved1 = (in1 + move1 / 2) * b.step + b.first
        for moved, encoded in ((moved0, a), (moved1, b)):
            good &= ((moved >= 0) & (moved <= moved.new_tensor(encoded.size))).all(dim=1)
        scores = 1 / (1 + spread**2)
        if self._config.keep_failed:
            points0 = torch.where(good[:, None], moved0, points0)
            points1 = torch.where(good[:, None], moved1, points1)
            scores = torch.where(good, scores, 0.0)
        else:
            points0, points1, scores = moved0[good], moved1[good], scores[good]
        return Correspondences(_array(points0), _array(points1), _array(scores))

    def _look(self, descriptors: Tensor, encoded: Encoded, around: Tensor) -> Peak:
        """Find descriptors (M, C) near positions (M, 2) of a map, first roughly."""
        search = self._config.search * self._pixels_per_step(encoded)
        step = max(1, round(search / _COARSE_RADIUS))
        radius = max(1, round(search / step))
        temperature = self._config.temperature
        rough = find(descriptors, encoded.map, around, radius, step, temperature)
        return find(descriptors, encoded.map, rough.positions, _FINE_RADIUS, 1, temperature)

    def _pixels_per_step(self, encoded: Encoded) -> float:
        longest = max(encoded.size)
        shrink = self._config.resize / longest if 0 < self._config.resize < longest else 1.0
        return 1.0 / (float(encoded.step.mean()) * shrink)


def _array(values: Tensor) -> ArrayF32:
    return np.asarray(values.float().cpu().numpy(), np.float32)


def _loftr_encoder(config: Config, device: str) -> _Encoder:
    network, _ = loftr_network.load_network(weights.find(config.weights))
    network = network.to(device)
    stride, fine_stride = network.config["resolution"]

    def encode(image: Image) -> tuple[Tensor, tuple[int, int], int]:
        grey = resize_to_multiples(to_grey(image), config.resize, stride)
        x = torch.from_numpy(grey).to(device).float()[None, None] / 255
        _, fine = network.backbone(x)
        return fine[0], (grey.shape[1], grey.shape[0]), fine_stride

    return encode


def _r2d2_encoder(config: Config, device: str) -> _Encoder:
    network = FoldedR2D2(r2d2.load_network(weights.find(config.weights)).to(device))

    def encode(image: Image) -> tuple[Tensor, tuple[int, int], int]:
        rgb = _small(image, config.resize, device)
        x = rgb.movedim(2, 0).float()[None] / 255
        rows = [maps.descriptors[0].float() for maps in network.blocks(r2d2.normalised(x))]
        return torch.cat(rows, dim=1), (rgb.shape[1], rgb.shape[0]), 1

    return encode


def _aliked_encoder(config: Config, device: str) -> _Encoder:
    network = aliked.load_network(weights.find(config.weights)).to(device)
    folded, stride = aliked.FoldedAliked(network), 2

    def encode(image: Image) -> tuple[Tensor, tuple[int, int], int]:
        rgb = _small(image, config.resize, device)
        dense = folded.dense(rgb)
        height, width = dense.scores.shape
        columns = torch.arange(0, width, stride, device=device)
        rows = torch.arange(0, height, stride, device=device)
        vectors = [folded.features_at(dense, row.expand(len(columns)), columns) for row in rows]
        maps = torch.stack(vectors).movedim(2, 0)
        # What all have in common would hide how they differ.
        return maps - maps.mean(dim=(1, 2), keepdim=True), (width, height), stride

    return encode


def _small(image: Image, resize: int, device: str) -> Tensor:
    """Return an image in colour, uint8 (H, W, 3), no larger than it may be."""
    small = shrink(image, resize or None)
    rgb = small if small.ndim == 3 else np.repeat(small[..., None], 3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(rgb)).to(device)


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Refiner[Encoded]:
    """Return the refiner, with its network on a torch device.

    Raises:
        WeightsError: the weights are not to be had, or not those of the network.
    """
    make = {"loftr": _loftr_encoder, "r2d2": _r2d2_encoder, "aliked": _aliked_encoder}[
        config.network
    ]
    return _Correlation(config, make(config, device), device)
