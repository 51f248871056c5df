"""MatchNet's feature network (Han et al., CVPR 2015) on patches around another's keypoints.

Any extractor of features is the detector: its keypoints, scores, scales and orientations are kept,
and each is described by what the network makes of a grey patch of 64 x 64 cells around it. The
matcher of the same name compares the descriptors; distances between them say less.

Descriptors are float16: in 3136 numbers a keypoint takes 6 kilobytes so, and what is rounded off is
far below what a patch changes by when its keypoint moves by a tenth of a pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from sfm_match import weights
from sfm_match.geometry.raster import to_grey
from sfm_match.models.matchnet import PATCH_SIZE, Tower, load_network, normalised
from sfm_match.models.patches import cut_patches
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import Extractor, Features, Image

VERSION = 1
CONCURRENT = True
LICENCE = "Apache-2.0"
LIBRARIES = ("kornia",)

# Patches of so many keypoints are held at once: 32 MB of them.
_CUT_AT_ONCE = 2048
# What the tower sees at once should fit in a core's cache.
_DESCRIBED_AT_ONCE = 32
_DESCRIBED_AT_ONCE_ON_GPU = 1024

_MAGNIFICATION = 12.0  # of standard deviations: as wide as SIFT's own 4 bins of 3
# R2D2's scales are the sides of its patches.
_MAGNIFICATIONS = {"r2d2": 2.0}
_MAX_FLOAT16 = torch.finfo(torch.float16).max


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `matchnet`.

    Attributes:
        weights: matchnet-open, which comes with this package, or the path of a file, safetensors
            or of torch, such as `sfm-match train matchnet` makes.
        detector: whose keypoints are described: the name of an extractor, or a table with its name
            (sift unless given) and its options.
        magnification: side of a patch in scales of its keypoint; 0 for 12, where scales are
            standard deviations as SIFT's are, and 2 for R2D2, where they are sides of patches.
        side: of a patch, in pixels of the image, where the detector's keypoints have no scale.
    """

    weights: str = "matchnet-open"
    detector: str | dict[str, Any] = "sift"
    magnification: NonNegativeFloat = 0.0
    side: PositiveFloat = 64.0


@dataclass(frozen=True)
class _MatchNet:
    config: Config
    detector: Extractor
    tower: Tower
    size: int
    device: str

    @torch.inference_mode()
    def __call__(self, image: Image) -> Features:
        found = self.detector(image)
        grey = torch.from_numpy(np.ascontiguousarray(to_grey(image))).to(self.device).float()
        descriptors = np.empty((len(found), self.size), np.float16)
        for start in range(0, len(found), _CUT_AT_ONCE):
            block = found.take(np.arange(start, min(start + _CUT_AT_ONCE, len(found))))
            described = self._described(self._patches(grey, block))
            descriptors[start : start + _CUT_AT_ONCE] = described.cpu().numpy()
        return replace(found, descriptors=descriptors)

    def _patches(self, grey: Tensor, features: Features) -> Tensor:
        keypoints = torch.from_numpy(features.keypoints).to(self.device)
        angles = keypoints.new_zeros(len(keypoints))
        sides = angles + self.config.side
        if features.orientations is not None:
            angles = torch.from_numpy(features.orientations).to(self.device)
        if features.scales is not None:
            sides = torch.from_numpy(features.scales).to(self.device) * self.config.magnification
        return normalised(cut_patches(grey, keypoints, sides, angles, PATCH_SIZE))

    def _described(self, patches: Tensor) -> Tensor:
        num = _DESCRIBED_AT_ONCE if self.device == "cpu" else _DESCRIBED_AT_ONCE_ON_GPU
        described = [
            self.tower(block.contiguous(memory_format=torch.channels_last)).clamp(
                -_MAX_FLOAT16, _MAX_FLOAT16
            )
            for block in torch.split(patches, num)
        ]
        return torch.cat(described).half()


def _detector_spec(detector: str | Mapping[str, Any]) -> Spec:
    """Return the spec of the detector.

    Raises:
        ConfigError: there is no such extractor, it is this one, or an option of it is wrong.
    """
    given = {"name": detector} if isinstance(detector, str) else detector
    options = {"name": "sift", **given}
    options.pop("fingerprint", None)
    name = options.pop("name")
    if not isinstance(name, str):
        raise ConfigError(f"detector.name: must be a name, got {name!r}")
    if name == "matchnet":
        raise ConfigError("detector.name: must be another extractor, got 'matchnet' itself")
    return Spec.parse("extractors", name, options, where="detector")


def resolve(config: Config, inputs: tuple[Spec, ...]) -> Config:
    """Return the config with all of the detector's options, and with its magnification.

    The detector's fingerprint is one of them: it follows its version, weights and libraries too.

    Raises:
        ConfigError: there is no such detector.
    """
    detector = _detector_spec(config.detector)
    options = {"name": detector.name, **detector.config, "fingerprint": detector.fingerprint}
    auto = _MAGNIFICATIONS.get(detector.name, _MAGNIFICATION)
    return replace(config, detector=options, magnification=config.magnification or auto)


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Extractor:
    """Return the extractor, with its network on the device.

    Raises:
        ConfigError: there is no such detector.
        WeightsError: the weights are not to be had, or are another network's.
    """
    config = resolve(config, inputs)
    network = load_network(weights.find(config.weights)).to(device)
    convert_conv2d_weight_memory_format(network.tower, torch.channels_last)
    detector = _detector_spec(config.detector).build(device)
    return _MatchNet(config, detector, network.tower, network.config.descriptor_size, device)
