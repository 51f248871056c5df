"""MatchNet's metric network (Han et al., CVPR 2015): a network says which two patches match.

Both orders of a pair are averaged, so that neither image plays a special part. The network is asked
about each keypoint's nearest neighbours by descriptor, or about all pairs. It takes the descriptors
of the extractor of the same name, and by default the weights that made them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match import weights
from sfm_match.logs import log
from sfm_match.models.descriptors import Descriptors, encode_descriptors
from sfm_match.models.matchnet import MatchNet, load_network
from sfm_match.models.matchnet_metric import (
    Projections,
    is_best,
    match_odds,
    nearest_pairs,
    project,
    reduced,
)
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import Matcher, Matches, View

VERSION = 1
NEEDS = frozenset({"features"})
CONCURRENT = True
LICENCE = "Apache-2.0"

# Of all pairs so many are held at once.
_PAIRS_AT_ONCE = 1 << 18


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `matchnet`.

    Attributes:
        weights: matchnet-open, or the path of a file, safetensors or of torch; empty for those
            that the extractor has.
        num_candidates: the network is asked about the nearest so many neighbours by descriptor of
            each keypoint, in both directions.
        candidate_size: longer descriptors are projected to so many numbers to find neighbours; 0
            for never.
        exhaustive: ask the network about all pairs instead. Without a GPU that takes minutes for
            two images.
        min_probability: the probability that a match has to reach.
        mutual: keep a match only where each keypoint is the other's most probable partner.
    """

    weights: str = ""
    num_candidates: PositiveInt = 10
    candidate_size: NonNegativeInt = 256
    exhaustive: bool = False
    min_probability: Annotated[float, Field(ge=0, le=1)] = 0.97
    mutual: bool = True


@dataclass(frozen=True)
class Encoded:
    """What depends on one image.

    Attributes:
        rows: int64 (N,), the rows of the features, without those of no finite descriptor.
        projections: the metric network's first layer.
        descriptors: to find candidates with; None where all pairs are.
    """

    rows: Tensor
    projections: Projections
    descriptors: Descriptors | None


@dataclass(frozen=True)
class _MatchNet:
    config: Config
    network: MatchNet
    device: str

    @torch.inference_mode()
    def encode(self, view: View) -> Encoded:
        assert view.features is not None
        values = view.features.descriptors
        expected = self.network.config.descriptor_size
        if values.shape[1] != expected:
            raise ConfigError(
                f"the weights {self.config.weights} of matchnet are for descriptors of {expected} "
                f"numbers, these have {values.shape[1]}: extract with the same weights"
            )
        finite = np.flatnonzero(np.isfinite(values).all(axis=1))
        if len(finite) < len(values):
            bad = len(values) - len(finite)
            log.warning("matchnet: %d of %d descriptors are not finite: ignored", bad, len(values))
        descriptors = torch.from_numpy(values[finite]).to(self.device).float()
        return Encoded(
            torch.from_numpy(finite).to(self.device),
            project(self.network.metric, descriptors),
            None if self.config.exhaustive else self._to_compare(descriptors),
        )

    def _to_compare(self, descriptors: Tensor) -> Descriptors:
        size = self.config.candidate_size or descriptors.shape[1]
        return encode_descriptors(reduced(descriptors, size))

    @torch.inference_mode()
    def match(self, pairs: Sequence[tuple[Encoded, Encoded]]) -> list[Matches]:
        return [self._match_pair(a, b) for a, b in pairs]

    def _match_pair(self, a: Encoded, b: Encoded) -> Matches:
        if len(a.rows) == 0 or len(b.rows) == 0:
            return Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
        found, odds = self._best(a, b)
        of_row, of_column = is_best(found[:, 0], odds), is_best(found[:, 1], odds)
        probabilities = odds.sigmoid()
        keep = of_row & (probabilities >= self.config.min_probability)
        if self.config.mutual:
            keep &= of_column
        indices = torch.stack([a.rows[found[keep, 0]], b.rows[found[keep, 1]]], dim=1)
        return Matches(indices.cpu().numpy().astype(np.int32), probabilities[keep].cpu().numpy())

    def _best(self, a: Encoded, b: Encoded) -> tuple[Tensor, Tensor]:
        """Return the pairs (K, 2) that may be the best of their row or column, and their odds."""
        kept = []
        for pairs in self._candidates(a, b):
            odds = match_odds(self.network.metric, a.projections, b.projections, pairs)
            keep = is_best(pairs[:, 0], odds) | is_best(pairs[:, 1], odds)
            kept.append((pairs[keep], odds[keep]))
        pairs, odds = map(torch.cat, zip(*kept, strict=True))
        return pairs, odds

    def _candidates(self, a: Encoded, b: Encoded) -> Iterator[Tensor]:
        """Yield pairs (K, 2) to ask the network about, sorted."""
        if a.descriptors is not None and b.descriptors is not None:
            yield nearest_pairs(a.descriptors, b.descriptors, self.config.num_candidates)
            return
        rows, columns = (torch.arange(len(side.rows), device=self.device) for side in (a, b))
        for block in torch.split(rows, max(1, _PAIRS_AT_ONCE // len(columns))):
            yield torch.cartesian_prod(block, columns)


def resolve(config: Config, inputs: tuple[Spec, ...]) -> Config:
    """Return the settings with the extractor's weights, unless some are named.

    Raises:
        ConfigError: the features are not those of `matchnet`.
    """
    if not inputs:
        return config
    if inputs[0].name != "matchnet":
        raise ConfigError(
            f"matchnet compares the descriptors of the extractor 'matchnet', not those of "
            f"{inputs[0].name!r}: choose another matcher, or features.name=matchnet with "
            f"features.detector.name={inputs[0].name}"
        )
    return replace(config, weights=config.weights or inputs[0].config["weights"])


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Matcher[Encoded, Matches]:
    """Return the matcher, with its network on the device.

    Raises:
        ConfigError: the features are not those of `matchnet`, or nothing says which weights.
        WeightsError: the weights are not to be had, or are another network's.
    """
    config = resolve(config, inputs)
    if not config.weights:
        raise ConfigError(
            "matchnet needs to know which extractor feeds it, or a file of weights: weights=FILE"
        )
    network = load_network(weights.find(config.weights)).to(device)
    return _MatchNet(config, network, device)
