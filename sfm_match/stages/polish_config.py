"""The settings of the second pass over a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

from sfm_match.spec import Spec, config_dict, library_versions, parse_config

VERSION = 1


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """The table `[polish]`.

    Attributes:
        rounds: how often keypoints are moved and the model is adjusted to them; 0 leaves the
            mapper's model as it is.
        search: how far a keypoint may be moved in a round, in full-size pixels.
        radius: patches have 2 radius + 1 pixels a side.
        min_similarity: smallest normalised cross-correlation of aligned patches, from -1 to 1.
        loss_scale: observations that are off by more than so many pixels count less and less in
            the adjustment (Cauchy's loss).
    """

    rounds: NonNegativeInt = 0
    search: PositiveFloat = 2.0
    radius: PositiveInt = 8
    min_similarity: Annotated[float, Field(ge=-1, le=1)] = 0.8
    loss_scale: PositiveFloat = 0.1


def polish_spec(options: Mapping[str, Any], mapper: Spec) -> Spec | None:
    """Return the spec of the table `[polish]`, after a mapper; None where there are no rounds.

    Raises:
        ConfigError: there is no such option, or an option is wrong.
    """
    config = parse_config(Config, options, "polish")
    if not config.rounds:
        return None
    libraries = library_versions(["pycolmap"])
    return Spec("stages", "polish", VERSION, config_dict(config), (mapper,), libraries=libraries)
