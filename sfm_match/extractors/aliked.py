"""ALIKED (Zhao et al., IEEE TIM 2023), its keypoints below the pixel as the paper has them.

They are the maxima of the score in 5 x 5 pixels, moved to the centre of mass of the window
(softargmax) and scored there. The network's grid has integer pixel centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor
from torch.nn import functional

from sfm_match import weights
from sfm_match.geometry.raster import shrink
from sfm_match.models.aliked import FoldedAliked, load_network
from sfm_match.models.dense import STEP, DenseMaps, dense_maps
from sfm_match.models.sampling import corners
from sfm_match.spec import Spec
from sfm_match.types import Extractor, Features, Image

VERSION = 1
CONCURRENT = True
RELEASES_GIL = True
LICENCE = "Apache-2.0; the published weights: BSD-3-Clause"

# How far (x, y) a published network finds keypoints from where they are, in pixels. With the
# cameras known, models from photographs and from rendered views are turned against the truth by as
# much (SIFT's by less than 0.1): 0.5 and 1.0 to the right.
_OFFSETS = {"aliked-n16": (0.75, 0.0)}

_RADIUS = 2
_TEMPERATURE = 0.1


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `aliked`.

    Attributes:
        weights: aliked-n16, or the path of a file: any of the published variants.
        max_keypoints: the best so many.
        resize: shrink the image so that its long side has at most so many pixels; 0 for never.
        min_score: the score that a keypoint has to exceed; in an image where none does, the mean
            score of all its pixels.
        centred: take off the constant offset that a published network has in x and y.
    """

    weights: str = "aliked-n16"
    max_keypoints: PositiveInt = 5000
    resize: NonNegativeInt = 1024
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.2
    centred: bool = True


def _windows(scores: Tensor, pixels: Tensor) -> Tensor:
    """Return the scores (N, 25) around pixels (N, 2), x and y, row by row."""
    steps = torch.arange(-_RADIUS, _RADIUS + 1, device=scores.device)
    columns, rows = pixels[:, :1] + steps, pixels[:, 1:] + steps
    return scores[rows[:, :, None], columns[:, None]].flatten(1)


def maxima(scores: Tensor, min_score: float, max_num: int) -> Tensor:
    """Return the pixels (N, 2), x and y, that have the highest score in their 5 x 5, best first.

    None is nearer to the border than two pixels, and none has an equal in its window.

    Args:
        scores: (H, W).
        min_score: what a score has to exceed; where none does, the mean of all.
        max_num: how many to return at most.
    """
    size = 2 * _RADIUS + 1
    if min(scores.shape) < size:
        return torch.zeros(0, 2, dtype=torch.long, device=scores.device)
    inner = scores[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    # First along columns, then along rows.
    best = functional.max_pool2d(scores[None], (size, 1), stride=1)
    best = functional.max_pool2d(best, (1, size), stride=1)[0]
    found = (inner == best) & (inner > scores.mean().clamp(max=min_score))
    rows, columns = found.nonzero().unbind(1)
    pixels = torch.stack([columns, rows], dim=1) + _RADIUS
    values = inner[rows, columns]
    alone = (_windows(scores, pixels) >= values[:, None]).sum(dim=1) == 1
    pixels, values = pixels[alone], values[alone]
    if (values > min_score).any():
        pixels, values = pixels[values > min_score], values[values > min_score]
    return pixels[values.sort(descending=True, stable=True).indices[:max_num]]


def refine(scores: Tensor, pixels: Tensor) -> Tensor:
    """Return where keypoints (N, 2) are, x and y, by the softargmax of their 5 x 5 pixels."""
    windows = _windows(scores, pixels)
    # What falls off the highest by the temperature counts less by e.
    shares = ((windows - windows.amax(dim=1, keepdim=True)) / _TEMPERATURE).exp()
    shares = shares / shares.sum(dim=1, keepdim=True)
    steps = torch.arange(-_RADIUS, _RADIUS + 1, device=scores.device, dtype=scores.dtype)
    by_row = shares.reshape(-1, len(steps), len(steps))
    across, down = by_row.sum(dim=1) @ steps, by_row.sum(dim=2) @ steps
    return pixels + torch.stack([across, down], dim=1)


def _sampled(scores: Tensor, positions: Tensor) -> Tensor:
    """Return the scores (N,) at positions (N, 2), bilinearly."""
    height, width = scores.shape
    columns, rows, shares = corners(positions[:, 0], positions[:, 1], width, height)
    return (scores[rows, columns] * shares).sum(dim=1)


@dataclass(frozen=True)
class _Aliked:
    config: Config
    network: FoldedAliked
    offset: tuple[float, float]
    device: str

    @torch.inference_mode()
    def __call__(self, image: Image) -> Features:
        full_size = np.array(image.shape[1::-1], np.int32)
        small = self._small(image)
        dense = self.network.dense(small)
        pixels = maxima(dense.scores, self.config.min_score, self.config.max_keypoints)
        positions = refine(dense.scores, pixels)
        # Of what float16 rounds off, cosines of descriptors lose 1e-4 or so.
        descriptors = self.network.describe(dense, positions).half()
        height, width = dense.scores.shape
        centres = positions + 0.5 - positions.new_tensor(self.offset)
        return Features(
            keypoints=centres.clamp(positions.new_zeros(2), positions.new_tensor([width, height]))
            .cpu()
            .numpy(),
            scores=_sampled(dense.scores, positions).cpu().numpy(),
            descriptors=descriptors.cpu().numpy(),
            image_size=np.array([width, height], np.int32),
        ).resized(full_size)

    @torch.inference_mode()
    def dense(self, image: Image) -> DenseMaps:
        """Return the scores of all pixels, and the features that descriptors are made from."""
        dense = self.network.dense(self._small(image))
        height, width = dense.scores.shape
        rows = torch.arange(0, height, STEP, device=self.device)
        columns = torch.arange(0, width, STEP, device=self.device)
        features = [
            self.network.features_at(dense, row.expand(len(columns)), columns) for row in rows
        ]
        return dense_maps(torch.stack(features), score=dense.scores)

    def _small(self, image: Image) -> Tensor:
        """Return the image in colour, in the size that the network sees it in, (H, W, 3)."""
        small = shrink(image, self.config.resize or None)
        if small.ndim == 2:
            small = np.repeat(small[:, :, None], 3, axis=2)
        return torch.from_numpy(np.ascontiguousarray(small)).to(self.device)


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Extractor:
    """Return the extractor, with its network on the device."""
    network = load_network(weights.find(config.weights)).to(device)
    # Whatever the file is called.
    offsets = {weights.digest(name): offset for name, offset in _OFFSETS.items()}
    offset = offsets.get(weights.digest(config.weights)) if config.centred else None
    return _Aliked(config, FoldedAliked(network), offset or (0.0, 0.0), device)
