"""R2D2 (Revaud et al., NeurIPS 2019) over a pyramid, with keypoints refined below the pixel.

The pyramid, the selection and the scores are those of the paper's published evaluation; the
refinement is added here. The network's grid has integer pixel centres.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor
from torch.nn import functional

from sfm_match import weights
from sfm_match.geometry.raster import shrink
from sfm_match.models.dense import DenseMaps, dense_of_blocks
from sfm_match.models.local_maxima import is_local_maximum, refine
from sfm_match.models.precision import best_precision
from sfm_match.models.r2d2 import PATCH_SIZE, Maps, load_network, normalised
from sfm_match.models.r2d2_folded import FoldedR2D2
from sfm_match.spec import Spec
from sfm_match.types import Extractor, Features, Image

VERSION = 1
CONCURRENT = True
RELEASES_GIL = True
LICENCE = "Apache-2.0; the published weights: CC-BY-NC-SA-3.0"

# How far (x, y) the published networks find keypoints from where they are, in pixels of the level.
# In an image turned by 180 degrees they lie as far off the other way: measured so on photographs of
# several cameras. With the cameras known, a model is turned against the truth by as much, too: for
# the first network this is the mean of the turned photographs (-0.56, 0.07), a scene of photographs
# (-0.44, 0.51) and a rendered one (-0.20, 0.16).
_OFFSETS = {
    "r2d2-wasf-n16": (-0.4, 0.25),
    "r2d2-wasf-n8-big": (0.66, -0.22),
    "r2d2-faster-wasf-n16": (1.23, -0.2),
}

_Share = Annotated[float, Field(ge=0, le=1)]


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `r2d2`.

    Attributes:
        weights: r2d2-wasf-n16, r2d2-wasf-n8-big, r2d2-faster-wasf-n16, or the path of a file.
        max_keypoints: the best so many over all levels of the pyramid.
        resize: shrink the image so that its long side has at most so many pixels; 0 for never.
        min_size: no level of the pyramid but the first has a shorter long side.
        max_size: levels with a longer long side are left out.
        scale_factor: ratio of the sizes of neighbouring levels.
        min_reliability: the lowest reliability of a keypoint.
        min_repeatability: the lowest repeatability of a keypoint.
        precision: of the network: fp32, or bf16, which is twice as fast where the processor has
            instructions for it; auto for bf16 where this machine's GPU, or else its CPU, has them.
        subpixel: refine keypoints below the pixel, and take off the constant offset that a
            published network has in x and y.
    """

    weights: str = "r2d2-wasf-n16"
    max_keypoints: PositiveInt = 5000
    resize: NonNegativeInt = 1024
    min_size: NonNegativeInt = 256
    max_size: PositiveInt = 1024
    scale_factor: Annotated[float, Field(gt=1)] = 2**0.25
    min_reliability: _Share = 0.7
    min_repeatability: _Share = 0.7
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    subpixel: bool = True


class _Found(NamedTuple):
    """Keypoints of one level or of several.

    Attributes:
        positions: float64 (N, 2), x and y in corner-origin pixels of the whole image.
        scores: float32 (N,).
        scales: float32 (N,), in pixels of the whole image.
        descriptors: float32 (N, 128), of length 1.
    """

    positions: Tensor
    scores: Tensor
    scales: Tensor
    descriptors: Tensor


def pyramid(image: Tensor, config: Config) -> Iterator[tuple[float, Tensor]]:
    """Yield the levels of images (N, 3, H, W) with their scales, each made from the one before.

    The first is the largest that `max_size` allows, also where it is below `min_size`.
    """
    height, width = image.shape[2:]
    longest = max(height, width)
    scale, num = 1.0, 0
    # A long side that ends on a limit does so up to rounding.
    while num == 0 or longest * scale > config.min_size - 0.5:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        if size != image.shape[2:]:
            image = functional.interpolate(image, size, mode="bilinear", align_corners=False)
        if longest * scale < config.max_size + 0.5:
            yield scale, image
            num += 1
        if max(size) == 1:
            return
        scale /= config.scale_factor


class _Network(Protocol):
    def blocks(self, images: Tensor) -> Iterator[Maps]: ...


def _blocks_of_each(blocks: Iterator[Maps], num: int) -> list[Iterable[Maps]]:
    """Return the blocks of each of so many images; those of a single one as they come."""
    if num == 1:
        return [blocks]
    kept = list(blocks)
    return [[Maps(*(maps[i : i + 1] for maps in block)) for block in kept] for i in range(num)]


def _detect(blocks: Iterable[Maps], config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions (N, 2) with integer pixel centres, scores (N,) and descriptors (N, 128)."""
    odds, reliabilities, selected, descriptors = [], [], [], []
    for block in blocks:
        repeatability = block.repeatability[0]
        candidate = is_local_maximum(repeatability)  # in its block, as far as it is known
        candidate &= repeatability >= config.min_repeatability
        candidate &= block.reliability[0] >= config.min_reliability
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
    positions = torch.stack([columns, rows], dim=1).double()
    if config.subpixel:
        positions += refine(logits, rows, columns)
    return positions, scores, functional.normalize(torch.cat(descriptors)[keep], dim=1)


@dataclass(frozen=True)
class _R2D2:
    config: Config
    network: _Network
    offset: tuple[float, float]
    device: str
    threads: ThreadPoolExecutor

    def __call__(self, image: Image) -> Features:
        return self.many([image])[0]

    @torch.inference_mode()
    def many(self, images: Sequence[Image]) -> list[Features]:
        """Return the features of each image; those of one size pass the network together."""
        small = [_colour(shrink(image, self.config.resize or None)) for image in images]
        found: dict[int, Features] = {}
        for shape in dict.fromkeys(image.shape for image in small):
            rows = [i for i, image in enumerate(small) if image.shape == shape]
            batch = self._of_one_size(np.stack([small[i] for i in rows]))
            for i, features in zip(rows, batch, strict=True):
                found[i] = features.resized(np.array(images[i].shape[1::-1], np.int32))
        return [found[i] for i in range(len(images))]

    @torch.inference_mode()
    def dense(self, image: Image) -> DenseMaps:
        """Return what the network says of all pixels of the first level of the pyramid."""
        small = _colour(shrink(image, self.config.resize or None))
        values = torch.from_numpy(np.ascontiguousarray(small)).to(self.device).float() / 255
        _, level = next(pyramid(normalised(values.movedim(2, 0)[None]), self.config))
        return dense_of_blocks(self.network.blocks(level))

    def _of_one_size(self, images: npt.NDArray[np.uint8]) -> list[Features]:
        """Return the features of images (N, H, W, 3)."""
        height, width = images.shape[1:3]
        values = torch.from_numpy(images).to(self.device).float() / 255
        levels = self.threads.submit(self._pyramid, values).result()
        found = self.threads.map(partial(self._of_level, width, height), levels)
        return [self._best(of_image, width, height) for of_image in zip(*found, strict=True)]

    @torch.inference_mode()
    def _pyramid(self, values: Tensor) -> list[tuple[float, Tensor]]:
        return list(pyramid(normalised(values.movedim(3, 1)), self.config))

    def _best(self, levels: Sequence[_Found], width: int, height: int) -> Features:
        """Return the best keypoints of all levels of an image."""
        positions, scores, scales, descriptors = map(torch.cat, zip(*levels, strict=True))
        order = scores.sort(descending=True, stable=True).indices[: self.config.max_keypoints]
        return Features(
            keypoints=positions[order].float().cpu().numpy(),
            scores=scores[order].cpu().numpy(),
            descriptors=descriptors[order].half().cpu().numpy(),
            image_size=np.array([width, height], np.int32),
            scales=scales[order].cpu().numpy(),
        )

    @torch.inference_mode()
    def _of_level(self, width: int, height: int, scaled: tuple[float, Tensor]) -> list[_Found]:
        """Return what is found in one level, its scale and (N, 3, H, W), of each image."""
        scale, level = scaled
        rows, columns = level.shape[2:]
        # Pooling needs two pixels; what is found on the ones added here is not inside.
        room = (0, max(0, 2 - columns), 0, max(0, 2 - rows))
        blocks = self.network.blocks(functional.pad(level, room, mode="replicate"))
        found = []
        for of_image in _blocks_of_each(blocks, len(level)):
            positions, scores, descriptors = _detect(of_image, self.config)
            positions += 0.5 - positions.new_tensor(self.offset)
            limit = positions.new_tensor([columns, rows])
            inside = ((positions >= 0) & (positions <= limit)).all(1)
            found.append(
                _Found(
                    positions=positions[inside] * (positions.new_tensor([width, height]) / limit),
                    scores=scores[inside],
                    scales=torch.full_like(scores[inside], PATCH_SIZE / scale),
                    descriptors=descriptors[inside],
                )
            )
        return found


def _colour(image: Image) -> Image:
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def resolve(config: Config, inputs: tuple[Spec, ...]) -> Config:
    """Return the config with the precision that this machine is best at in place of `auto`."""
    return replace(config, precision=best_precision()) if config.precision == "auto" else config


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Extractor:
    """Return the extractor, with its network on the device."""
    network = load_network(weights.find(config.weights)).to(device)
    # Whatever the file is called.
    offsets = {weights.digest(name): offset for name, offset in _OFFSETS.items()}
    offset = offsets.get(weights.digest(config.weights)) if config.subpixel else None
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    if device == "cpu":
        # Levels are shared out, not only images, so that the last image has all cores; each has one
        # core, also where it is made, so that the result does not depend on how many there are.
        threads = ThreadPoolExecutor(torch.get_num_threads(), initializer=_use_one_core)
        folded = FoldedR2D2(network, dtype=dtype)
    else:
        threads, folded = ThreadPoolExecutor(2), FoldedR2D2(network, sys.maxsize, dtype)
    return _R2D2(config, folded, offset or (0.0, 0.0), device, threads)


def _use_one_core() -> None:
    torch.set_num_threads(1)
