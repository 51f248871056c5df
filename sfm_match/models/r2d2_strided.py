"""R2D2 on a strided trunk: descriptors for every fourth pixel, a detector at full resolution.

The heads, their losses and what they mean are those of R2D2 (Revaud et al., NeurIPS 2019). The
published network keeps full resolution through all its layers, by dilation; here the trunk works at
a quarter of it, at about a fourteenth of the time. The detector sees the picture itself beside what
trunk and stem make of it: from a coarse map alone it would find one position for every cell.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from sfm_match.weights import WeightsError

STRIDE = 4
"""Pixels of the image for one descriptor."""

DESCRIPTOR_SIZE = 128
_STEM, _CUES, _FINE = 32, 4, 16


class StridedMaps(NamedTuple):
    """What the network says of images.

    Attributes:
        descriptors: (N, 128, h, w), of length 1, of every fourth pixel: the first belongs to
            (2, 2) in corner-origin pixels.
        reliability: (N, h, w), from 0 to 1.
        logits: float32 (N, H, W), of the repeatability of every pixel.
    """

    descriptors: Tensor
    reliability: Tensor
    logits: Tensor

    @property
    def repeatability(self) -> Tensor:
        """(N, H, W), from 0 to 1."""
        return self.logits.sigmoid()


def _layer(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> list[nn.Module]:
    padding = 0 if stride > 1 else (kernel - 1) * dilation // 2
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class StridedR2D2(nn.Module):
    """The network, 482,000 parameters.

    Attributes:
        trunk_dtype: what the trunk computes in, where it is not what the stem does.
    """

    def __init__(self) -> None:
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2), *_layer(12, _STEM), relu, *_layer(_STEM, _STEM), relu
        )
        self.trunk = nn.Sequential(
            *_layer(_STEM, 64, kernel=2, stride=2),
            relu,
            *_layer(64, 64),
            relu,
            *_layer(64, 128),
            relu,
            *_layer(128, 128),
            relu,
            # As in R2D2, nothing but batch norm follows the 2 x 2 layers.
            *_layer(128, 128, kernel=2, dilation=2),
            *_layer(128, 128, kernel=2, dilation=2),
            nn.Conv2d(128, DESCRIPTOR_SIZE, 2, padding=2, dilation=4),
        )
        self.trunk_dtype: torch.dtype | None = None
        self.reliable = nn.Conv2d(DESCRIPTOR_SIZE, 1, 1)
        self.deep_cue = nn.Conv2d(DESCRIPTOR_SIZE, _CUES, 1)
        self.stem_cue = nn.Conv2d(_STEM, _CUES, 1)
        self.fine = nn.Sequential(
            nn.Conv2d(3, _FINE, 3, padding=1), relu, nn.Conv2d(_FINE, _FINE, 3, padding=1), relu
        )
        self.detector = nn.Sequential(nn.Conv2d(2 * _CUES + _FINE, 8, 3, padding=1), relu)
        self.repeatable = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, image: Tensor) -> StridedMaps:
        """Return the maps of images (N, 3, H, W), `normalised`, whose sides are multiples of 4."""
        # 1. Half resolution: (N, 32, H / 2, W / 2).
        low = self.stem(image)
        # 2. A quarter: (N, 128, h, w).
        x = self.trunk(low.to(self.trunk_dtype or low.dtype)).to(low.dtype)
        # 3. Reliability sees the squares, as in R2D2: (N, h, w).
        reliability = self.reliable(x**2)[:, 0].sigmoid()
        # 4. Cues of both resolutions, enlarged without steps, beside the full one: (N, 24, H, W).
        cues = [
            functional.interpolate(cue, image.shape[2:], mode="bilinear", align_corners=False)
            for cue in (self.deep_cue(x), self.stem_cue(low))
        ]
        seen = self.detector(torch.cat([*cues, self.fine(image)], dim=1))
        # 5. Repeatability, of which small differences matter: (N, H, W).
        with torch.autocast(image.device.type, enabled=False):
            logits = self.repeatable(seen.float())[:, 0]
        return StridedMaps(functional.normalize(x, dim=1), reliability, logits)


def load_strided(path: os.PathLike[str] | str) -> StridedR2D2:
    """Return the network of a safetensors file, of any precision, in float32.

    Raises:
        WeightsError: the file is damaged, or one of another network.
    """
    network = StridedR2D2()
    try:
        state = load_file(path)
        network.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{path}: not weights of the strided R2D2: {error}") from error
    return network.eval()
