"""An extractor of another distribution, as tests register one: SIFT whose weights are a number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.extractors import sift
from sfm_match.spec import Spec
from sfm_match.types import Extractor, Features, Image

VERSION = 1
CONCURRENT = False
LICENCE = "Apache-2.0"


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of this extractor.

    Attributes:
        weights: a file with the number of keypoints to keep.
    """

    weights: str


@dataclass(frozen=True)
class _Numbered:
    number: int
    extractor: Extractor

    def __call__(self, image: Image) -> Features:
        return (found := self.extractor(image)).take(np.arange(min(self.number, len(found))))


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Extractor:
    """Return the extractor."""
    number = int(Path(config.weights).read_text())
    return _Numbered(number, sift.build(sift.Config(), device, inputs))
