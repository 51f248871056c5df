"""LightGlue (Lindenberger et al., ICCV 2023): a transformer that matches two sets of keypoints.

Its weights belong to one kind of features: which, follows from the extractor that feeds it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from kornia.feature import LightGlue
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match import weights
from sfm_match.models import lightglue
from sfm_match.models.descriptors import finite_or_zero
from sfm_match.models.lightglue import EncodedImage
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import Features, Matcher, Matches, View

VERSION = 1
NEEDS = frozenset({"features"})
CONCURRENT = True
LICENCE = "Apache-2.0"
LIBRARIES = ("kornia",)

# Those of SIFT were trained on RootSIFT descriptors, those of ALIKED on aliked-n16's.
_WEIGHTS = {
    "aliked": "lightglue-aliked",
    "colmap_sift": "lightglue-sift",
    "disk": "lightglue-disk",
    "sift": "lightglue-sift",
}

_Share = Annotated[float, Field(gt=0, le=1)]


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `lightglue`.

    Attributes:
        weights: lightglue-aliked, lightglue-disk, lightglue-sift, or the path of a file; empty for
            those that belong to the extractor.
        min_score: the score that a match has to exceed.
        depth_confidence: the share of keypoints that have to be confident for the remaining layers
            to be left out; 1 for never.
        width_confidence: how confident a keypoint must be to have no match to be left out of the
            remaining layers; 1 for never.
    """

    weights: str = ""
    min_score: Annotated[float, Field(ge=0, lt=1)] = 0.1
    depth_confidence: _Share = 0.95
    width_confidence: _Share = 0.99


def resolve(config: Config, inputs: tuple[Spec, ...]) -> Config:
    """Return the settings with the weights that belong to the extractor, unless some are named.

    Raises:
        ConfigError: no weights are published for the extractor's features.
    """
    if config.weights or not inputs:
        return config
    extractor = inputs[0].name
    if extractor not in _WEIGHTS:
        raise ConfigError(
            f"lightglue has no published weights for the features of {extractor!r}, only for "
            f"those of {', '.join(sorted(_WEIGHTS))}; choose another matcher, or name a file of "
            "weights that were trained on them: matcher.weights=FILE"
        )
    return dataclasses.replace(config, weights=_WEIGHTS[extractor])


@dataclass(frozen=True)
class _LightGlue:
    config: Config
    network: LightGlue
    device: str

    @torch.inference_mode()
    def encode(self, view: View) -> EncodedImage:
        assert view.features is not None
        features = view.features
        self._check(features)
        return lightglue.encode(
            self.network,
            torch.from_numpy(features.keypoints).to(self.device),
            torch.from_numpy(features.image_size).to(self.device),
            finite_or_zero(torch.from_numpy(features.descriptors).to(self.device)),
            self._scales_and_orientations(features),
        )

    def _check(self, features: Features) -> None:
        expected = self.network.conf.input_dim
        if features.descriptors.shape[1] != expected:
            raise ConfigError(
                f"the weights {self.config.weights} of lightglue are for descriptors of "
                f"{expected} numbers, these have {features.descriptors.shape[1]}"
            )
        if self.network.conf.add_scale_ori and features.orientations is None:
            raise ConfigError(
                f"the weights {self.config.weights} of lightglue are for keypoints with scales and "
                "orientations, these have none"
            )

    def _scales_and_orientations(self, features: Features) -> torch.Tensor | None:
        if features.scales is None or features.orientations is None:
            return None
        both = np.stack([features.scales, features.orientations], axis=1)
        return torch.from_numpy(both).to(self.device)

    @torch.inference_mode()
    def match(self, pairs: Sequence[tuple[EncodedImage, EncodedImage]]) -> list[Matches]:
        return [self._match_pair(a, b) for a, b in pairs]

    def _match_pair(self, a: EncodedImage, b: EncodedImage) -> Matches:
        indices, scores = lightglue.match(self.network, a, b, self.config.min_score)
        order = indices[:, 0].argsort()
        return Matches(indices[order].int().cpu().numpy(), scores[order].cpu().numpy())


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Matcher[EncodedImage, Matches]:
    """Return the matcher.

    Raises:
        ConfigError: no weights are published for the features of the input.
        WeightsError: the weights are not to be had.
    """
    config = resolve(config, inputs)
    if not config.weights:
        raise ConfigError("lightglue needs to know which extractor feeds it, or a file of weights")
    path = weights.find(config.weights)
    network = lightglue.load_network(path, config.depth_confidence, config.width_confidence)
    return _LightGlue(config, network.to(device), device)
