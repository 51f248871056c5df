"""AdaLAM (Cavalli et al., ECCV 2020), as kornia computes it: locally affine outlier rejection.

Nearest neighbours are verified by many small RANSACs, each around a seed. No weights. It is the
peer of `graph`; where no seed is supported it falls back to a ratio test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from kornia.feature.adalam.adalam import AdalamFilter, get_adalam_default_config
from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match.logs import log
from sfm_match.spec import Spec
from sfm_match.types import Features, Matcher, Matches, View

VERSION = 1
NEEDS = frozenset({"features"})
CONCURRENT = True
LICENCE = "Apache-2.0; AdaLAM itself: BSD-3-Clause"
LIBRARIES = ("kornia",)


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `adalam`; the defaults are kornia's.

    Attributes:
        area_ratio: the image's area over that of the circle in which only one seed is kept.
        search_expansion: radius of a seed's neighbourhood over that of this circle.
        ransac_iters: samples of each RANSAC.
        min_inliers: a seed with fewer is dropped.
        min_confidence: the least number of inliers over that expected by chance.
        orientation_threshold: largest difference of rotations within a neighbourhood, in degrees,
            where features have orientations; 180 for no test.
        scale_threshold: largest ratio of scale changes within a neighbourhood, where features
            have scales; 10 for no test.
        refit: fit the affine map again to all its inliers.
        mutual_seeds: only mutual nearest neighbours are seeds.
    """

    area_ratio: PositiveInt = 100
    search_expansion: PositiveInt = 4
    ransac_iters: PositiveInt = 128
    min_inliers: PositiveInt = 6
    min_confidence: PositiveFloat = 200.0
    orientation_threshold: Annotated[float, Field(gt=0, le=180)] = 30.0
    scale_threshold: Annotated[float, Field(gt=1, le=10)] = 1.5
    refit: bool = True
    mutual_seeds: bool = True


@dataclass(frozen=True)
class Encoded:
    """The features of one image on the device, without those whose descriptors are not finite.

    Attributes:
        rows: int64 (N,), the rows of the features that they are.
        points: float32 (N, 2).
        descriptors: float32 (N, D), of length 1.
        orientations: float32 (N,) in degrees, or None.
        scales: float32 (N,), or None.
        size: width and height of the image.
    """

    rows: Tensor
    points: Tensor
    descriptors: Tensor
    orientations: Tensor | None
    scales: Tensor | None
    size: tuple[int, int]


def _encode(features: Features, device: str) -> Encoded:
    finite = np.flatnonzero(np.isfinite(features.descriptors).all(axis=1))
    if len(finite) < len(features):
        bad = len(features) - len(finite)
        log.warning("adalam: %d of %d descriptors are not finite: ignored", bad, len(features))
        features = features.take(finite)
    orientations, scales = features.orientations, features.scales
    width, height = features.image_size.tolist()
    return Encoded(
        rows=torch.from_numpy(finite).to(device),
        points=torch.tensor(features.keypoints, device=device),
        descriptors=torch.nn.functional.normalize(
            torch.tensor(features.descriptors, device=device).float(), dim=1
        ),
        orientations=None
        if orientations is None
        else torch.tensor(np.degrees(orientations), device=device),
        scales=None
        if scales is None or (scales <= 0).any()
        else torch.tensor(scales, device=device),
        size=(width, height),
    )


@dataclass(frozen=True)
class _Adalam:
    config: Config
    device: str

    def encode(self, view: View) -> Encoded:
        assert view.features is not None
        return _encode(view.features, self.device)

    @torch.inference_mode()
    def match(self, pairs: Sequence[tuple[Encoded, Encoded]]) -> list[Matches]:
        return [self._match_pair(a, b) for a, b in pairs]

    def _match_pair(self, a: Encoded, b: Encoded) -> Matches:
        if len(a.rows) < 2 or len(b.rows) < 2:  # the ratio test needs a second neighbour
            return Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
        with_orientations = a.orientations is not None and b.orientations is not None
        with_scales = a.scales is not None and b.scales is not None
        indices, inverse_confidence = self._filter(with_orientations, with_scales).match_and_filter(
            a.points,
            b.points,
            a.descriptors,
            b.descriptors,
            a.size,
            b.size,
            a.orientations if with_orientations else None,
            b.orientations if with_orientations else None,
            a.scales if with_scales else None,
            b.scales if with_scales else None,
            return_dist=True,
        )
        scores = 1 - inverse_confidence[:, 0].float()
        kept = _one_to_one(indices, (a.descriptors[indices[:, 0]] * b.descriptors[indices[:, 1]]))
        indices, scores = indices[kept], scores[kept]
        rows = torch.stack([a.rows[indices[:, 0]], b.rows[indices[:, 1]]], dim=1)
        return Matches(rows.cpu().numpy().astype(np.int32), scores.cpu().numpy())

    def _filter(self, with_orientations: bool, with_scales: bool) -> Any:
        config = self.config
        options: Any = get_adalam_default_config()
        options.update(
            area_ratio=config.area_ratio,
            search_expansion=config.search_expansion,
            ransac_iters=config.ransac_iters,
            min_inliers=config.min_inliers,
            min_confidence=config.min_confidence,
            orientation_difference_threshold=(
                config.orientation_threshold if with_orientations else None
            ),
            scale_rate_threshold=config.scale_threshold if with_scales else None,
            refit=config.refit,
            force_seed_mnn=config.mutual_seeds,
            device=torch.device(self.device),
        )
        return AdalamFilter(options)


def _one_to_one(indices: Tensor, products: Tensor) -> Tensor:
    """Return the rows of the matches (M, 2) that have their second keypoint's highest cosine.

    Each keypoint of the first image is there once: kornia matches it to its nearest neighbour.
    """
    by_cosine = products.sum(dim=1).argsort(descending=True, stable=True).cpu().numpy()
    _, first = np.unique(indices[:, 1].cpu().numpy()[by_cosine], return_index=True)
    return torch.from_numpy(np.sort(by_cosine[first])).to(indices.device)


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Matcher[Encoded, Matches]:
    """Return the matcher."""
    return _Adalam(config, device)
