"""Dual softmax over the cosines of descriptors, exact, in blocks of bounded memory.

A match's score is its probability: that of its second keypoint among all candidates for the first,
times that of the first among all for the second (Rocco et al., "Neighbourhood Consensus Networks",
NeurIPS 2018; as a matcher of descriptors in Edstedt et al., "DeDoDe", 3DV 2024). It is large only
where a match is good and nothing else is nearly as good on either side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from sfm_match.models.assignment import mutual_maxima
from sfm_match.models.descriptors import finite_or_zero
from sfm_match.spec import Spec
from sfm_match.types import Matcher, Matches, View

VERSION = 1
NEEDS = frozenset({"features"})
CONCURRENT = True
LICENCE = "Apache-2.0"


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `dual_softmax`.

    Attributes:
        temperature: by how much two cosines differ where one counts e times as much as the other.
        min_score: the lowest score of a match; 0 keeps all that are each other's best.
    """

    temperature: Annotated[float, Field(ge=0.001, le=10)] = 0.05
    min_score: Annotated[float, Field(ge=0, lt=1)] = 0.01


@dataclass(frozen=True)
class _DualSoftmax:
    config: Config
    device: str

    def encode(self, view: View) -> Tensor:
        assert view.features is not None
        values = finite_or_zero(torch.from_numpy(view.features.descriptors).to(self.device))
        # So that products of two are cosines over the temperature.
        return torch.nn.functional.normalize(values, dim=1) / math.sqrt(self.config.temperature)

    @torch.inference_mode()
    def match(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Matches]:
        return [self._match_pair(a, b) for a, b in pairs]

    def _match_pair(self, a: Tensor, b: Tensor) -> Matches:
        indices, logs = mutual_maxima(a, b)
        scores = logs.exp()
        keep = scores >= self.config.min_score
        return Matches(indices[keep].int().cpu().numpy(), scores[keep].cpu().numpy())


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Matcher[Tensor, Matches]:
    """Return the matcher."""
    return _DualSoftmax(config, device)
