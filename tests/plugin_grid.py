"""An extractor of another distribution: keypoints on a grid, without scales and orientations."""

from __future__ import annotations

import numpy as np
from pydantic import ConfigDict, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.spec import Spec
from sfm_match.types import Extractor, Features, Image

VERSION = 1
CONCURRENT = True
LICENCE = "Apache-2.0"


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of this extractor.

    Attributes:
        step: between keypoints, in pixels; the first is in the image's corner.
    """

    step: PositiveInt = 20


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> Extractor:
    """Return the extractor."""

    def extract(image: Image) -> Features:
        height, width = image.shape[:2]
        x, y = np.meshgrid(*(np.arange(0, side + 1, config.step) for side in (width, height)))
        keypoints = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
        num = len(keypoints)
        return Features(
            keypoints=keypoints,
            scores=np.ones(num, np.float32),
            descriptors=np.zeros((num, 1), np.float32),
            image_size=np.array([width, height], np.int32),
        )

    return extract
