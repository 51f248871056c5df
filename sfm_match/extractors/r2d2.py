"""R2D2 (Revaud et al., NeurIPS 2019) over a pyramid, with keypoints refined below the pixel.

The pyramid, the selection and the scores are those of the paper's published evaluation; the
refinement is added here. The network's grid has integer pixel centres.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor
from torch.nn import functional

from sfm_match import weights
from sfm_match.geometry.raster import shrink
from sfm_match.models.dense import DenseMaps
from sfm_match.models.precision import best_precision
from sfm_match.models.r2d2 import PATCH_SIZE, load_network, normalised
from sfm_match.models.r2d2_detection import Detector, PixelDetector, Selection, StridedDetector
from sfm_match.models.r2d2_folded import FoldedR2D2
from sfm_match.models.r2d2_strided import load_strided
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
_Threshold = _Share | Literal["auto"]
# The authors' evaluation has 0.7 for both. Of a network that is trained with this package, only the
# order of the values counts, and all that are asked for are taken.
_PUBLISHED_THRESHOLD, _OWN_THRESHOLD = 0.7, 0.0


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `r2d2`.

    Attributes:
        weights: r2d2-wasf-n16, r2d2-wasf-n8-big, r2d2-faster-wasf-n16, r2d2-open, which comes with
            the package, or the path of a file, such as `sfm-match train r2d2` makes.
        max_keypoints: the best so many over all levels of the pyramid.
        resize: shrink the image so that its long side has at most so many pixels; 0 for never.
        min_size: no level of the pyramid but the first has a shorter long side.
        max_size: levels with a longer long side are left out.
        scale_factor: ratio of the sizes of neighbouring levels.
        min_reliability: the lowest reliability of a keypoint, from 0 to 1; auto for 0.7 with a
            published network, and 0 with one of `sfm-match train r2d2`.
        min_repeatability: the lowest repeatability of a keypoint, in the same way.
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
    min_reliability: _Threshold = "auto"
    min_repeatability: _Threshold = "auto"
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


@dataclass(frozen=True)
class _R2D2:
    config: Config
    detector: Detector
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
        return self.detector.dense(level)

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
        config = self.config
        selection = Selection(
            config.max_keypoints,
            _threshold(config.min_reliability, config.weights),
            _threshold(config.min_repeatability, config.weights),
            config.subpixel,
        )
        found = []
        for raw, scores, descriptors in self.detector.detect(level, selection):
            positions = raw - raw.new_tensor(self.offset)
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
    """Return the config without `auto`: the weights' thresholds, and this machine's precision."""
    return replace(
        config,
        precision=best_precision() if config.precision == "auto" else config.precision,
        min_reliability=_threshold(config.min_reliability, config.weights),
        min_repeatability=_threshold(config.min_repeatability, config.weights),
    )


def _threshold(value: float | Literal["auto"], name_or_path: str) -> float:
    if value != "auto":
        return value
    return _OWN_THRESHOLD if _is_strided(name_or_path) else _PUBLISHED_THRESHOLD


def _is_strided(name_or_path: str) -> bool:
    """Return whether a file of weights is one of `sfm-match train r2d2`, which are safetensors."""
    checkpoint = weights.CHECKPOINTS.get(name_or_path)
    return (checkpoint.filename if checkpoint else name_or_path).endswith(".safetensors")


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Extractor:
    """Return the extractor, with its network on the device."""
    # Whatever the file is called.
    offsets = {weights.digest(name): offset for name, offset in _OFFSETS.items()}
    offset = offsets.get(weights.digest(config.weights)) if config.subpixel else None
    # Levels are shared out between cores, not only images, so that the last image has all of them;
    # each has one, also where it is made, so that the result does not depend on how many there are.
    # A GPU has enough to do when one level is sorted while another is in the network.
    threads = ThreadPoolExecutor(
        torch.get_num_threads() if device == "cpu" else 2, initializer=_use_one_core
    )
    return _R2D2(config, _detector(config, device), offset or (0.0, 0.0), device, threads)


def _detector(config: Config, device: str) -> Detector:
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    path = weights.find(config.weights)
    if _is_strided(config.weights):
        return StridedDetector(load_strided(path).to(device), dtype)
    network = load_network(path).to(device)
    return PixelDetector(
        FoldedR2D2(network, dtype=dtype)
        if device == "cpu"
        else FoldedR2D2(network, sys.maxsize, dtype)
    )


def _use_one_core() -> None:
    torch.set_num_threads(1)
