"""Keypoints from what R2D2's networks say of images, published or strided."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sfm_match.models.dense import DenseMaps, dense_maps, dense_of_blocks
from sfm_match.models.local_maxima import is_local_maximum, refine
from sfm_match.models.r2d2 import Maps
from sfm_match.models.r2d2_samplers import corners
from sfm_match.models.r2d2_strided import STRIDE, StridedMaps, StridedR2D2


@dataclass(frozen=True)
class Selection:
    """Which pixels become keypoints.

    Attributes:
        max_keypoints: the best so many.
        min_reliability: the lowest reliability, from 0 to 1.
        min_repeatability: the lowest repeatability, from 0 to 1.
        subpixel: refine positions below the pixel.
    """

    max_keypoints: int
    min_reliability: float
    min_repeatability: float
    subpixel: bool


class Detected(NamedTuple):
    """Keypoints of one image.

    Attributes:
        positions: float64 (N, 2), x and y in corner-origin pixels.
        scores: (N,), repeatability times reliability.
        descriptors: float32 (N, 128), of length 1.
    """

    positions: Tensor
    scores: Tensor
    descriptors: Tensor


class Detector(Protocol):
    """A network with what comes behind it."""

    def detect(self, images: Tensor, selection: Selection) -> list[Detected]:
        """Return the keypoints of each of the images (N, 3, H, W), `normalised`."""

    def dense(self, image: Tensor) -> DenseMaps:
        """Return what the network says of all pixels of an image (1, 3, H, W), `normalised`."""


class _Blocks(Protocol):
    def blocks(self, images: Tensor) -> Iterator[Maps]:
        """Yield the maps of images in blocks of rows."""


@dataclass(frozen=True)
class PixelDetector:
    """The published network, which describes every pixel."""

    network: _Blocks

    def detect(self, images: Tensor, selection: Selection) -> list[Detected]:
        """Return the keypoints of each image."""
        rows, columns = images.shape[2:]
        # Pooling needs two pixels; what is found on the ones added here is not inside.
        room = (0, max(0, 2 - columns), 0, max(0, 2 - rows))
        blocks = self.network.blocks(functional.pad(images, room, mode="replicate"))
        return [_of_blocks(of_image, selection) for of_image in _of_each(blocks, len(images))]

    def dense(self, image: Tensor) -> DenseMaps:
        """Return the maps of an image."""
        return dense_of_blocks(self.network.blocks(image))


def _of_each(blocks: Iterator[Maps], num: int) -> list[Iterable[Maps]]:
    """Return the blocks of each of so many images; those of a single one as they come."""
    if num == 1:
        return [blocks]
    kept = list(blocks)
    return [[Maps(*(maps[i : i + 1] for maps in block)) for block in kept] for i in range(num)]


def _of_blocks(blocks: Iterable[Maps], selection: Selection) -> Detected:
    odds, reliabilities, selected, descriptors = [], [], [], []
    for block in blocks:
        repeatability = block.repeatability[0]
        candidate = is_local_maximum(repeatability)  # in its block, as far as it is known
        candidate &= repeatability >= selection.min_repeatability
        candidate &= block.reliability[0] >= selection.min_reliability
        odds.append(block.odds[0])
        reliabilities.append(block.reliability[0])
        selected.append(candidate)
        descriptors.append(block.descriptors[0].movedim(0, 2)[candidate].float())
    logits = torch.cat(odds).log()
    repeatability = torch.cat(odds) / (1 + torch.cat(odds))
    rows, columns = torch.cat(selected).nonzero().unbind(dim=1)
    keep = is_local_maximum(repeatability)[rows, columns]
    rows, columns = rows[keep], columns[keep]
    scores = repeatability[rows, columns] * torch.cat(reliabilities)[rows, columns]
    positions = _positions(logits, rows, columns, selection.subpixel)
    return Detected(positions, scores, functional.normalize(torch.cat(descriptors)[keep], dim=1))


def _positions(logits: Tensor, rows: Tensor, columns: Tensor, subpixel: bool) -> Tensor:
    positions = torch.stack([columns, rows], dim=1).double() + 0.5
    return positions + refine(logits, rows, columns) if subpixel else positions


class StridedDetector:
    """The strided network; batch norm becomes part of the convolutions.

    Args:
        network: the network; later changes of it have no effect.
        dtype: of the trunk, float32 or bfloat16. Stem and detector, where positions come from,
            are always float32.
    """

    def __init__(self, network: StridedR2D2, dtype: torch.dtype = torch.float32) -> None:
        self._network = copy.deepcopy(network).eval()
        self._network.stem = _fused(self._network.stem)
        self._network.trunk = _fused(self._network.trunk).to(dtype)
        self._network.trunk_dtype = dtype
        for parameter in self._network.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def detect(self, images: Tensor, selection: Selection) -> list[Detected]:
        """Return the keypoints of each image."""
        maps = self._maps(images)
        return [self._of_image(maps, i, selection) for i in range(len(images))]

    def dense(self, image: Tensor) -> DenseMaps:
        """Return the maps of an image."""
        maps = self._maps(image)
        size = maps.logits.shape[1:]
        larger = [
            functional.interpolate(values, size, mode="bilinear", align_corners=False)[0]
            for values in (maps.descriptors, maps.reliability[:, None])
        ]
        return dense_maps(
            larger[0][:, ::2, ::2].movedim(0, 2),
            reliability=larger[1][0],
            repeatability=maps.repeatability[0],
        )

    @torch.inference_mode()
    def _maps(self, images: Tensor) -> StridedMaps:
        rows, columns = images.shape[2:]
        padded = functional.pad(images, (0, -columns % STRIDE, 0, -rows % STRIDE), mode="replicate")
        maps: StridedMaps = self._network(padded.contiguous(memory_format=torch.channels_last))
        return maps._replace(logits=maps.logits[:, :rows, :columns])

    @torch.inference_mode()
    def _of_image(self, maps: StridedMaps, i: int, selection: Selection) -> Detected:
        logits = maps.logits[i]
        repeatability = logits.sigmoid()
        candidate = is_local_maximum(logits) & (repeatability >= selection.min_repeatability)
        rows, columns = candidate.nonzero().unbind(dim=1)
        positions = _positions(logits, rows, columns, selection.subpixel)
        # Bilinear: of reliability all of them, of descriptors only what is kept.
        height, width = maps.reliability.shape[1:]
        first = torch.zeros_like(rows)
        at, shares = corners(first, positions.float(), (height, width), STRIDE)
        reliability = (maps.reliability[i].flatten()[at] * shares).sum(dim=1)
        scores = repeatability[rows, columns] * reliability
        scores = scores.where(reliability >= selection.min_reliability, -1.0)
        best = scores.sort(descending=True, stable=True).indices[: selection.max_keypoints]
        best = best[scores[best] >= 0]
        # A view, channels being last in memory; faster than gathering and summing.
        table = maps.descriptors[i].movedim(0, 2).flatten(0, 1)
        descriptors = functional.embedding_bag(
            at[best], table, per_sample_weights=shares[best], mode="sum"
        )
        return Detected(positions[best], scores[best], functional.normalize(descriptors, dim=1))


def _fused(layers: nn.Sequential) -> nn.Sequential:
    fused: list[nn.Module] = []
    for layer in layers:
        before = fused[-1] if fused else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            fused[-1] = fuse_conv_bn_eval(before, layer)
        else:
            fused.append(layer)
    return nn.Sequential(*fused)
