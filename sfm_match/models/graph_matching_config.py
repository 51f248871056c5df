"""The constants of graph matching, in one place. Lengths are in keypoint spacings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

_Share = Annotated[float, Field(ge=0, lt=1)]


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of `graph`.

    Lengths are in keypoint spacings: the mean distance of neighbouring keypoints if those of the
    image were spread evenly over the area that they take up.

    Attributes:
        solver: `cascade`, the spectral stage and the mean field after it, or `spectral` alone:
            faster, more matches, and more wrong ones among them.
        candidates: `knn`, or the name of a matcher of features, with its default options: its
            matches are the candidates, and what is wrong among them is taken out.
        num_candidates: for `knn`, the nearest so many neighbours by descriptor of each keypoint,
            in both directions.
        best_ratio: for a matcher's name, what its highest score stands for as a ratio of
            distances; the lowest stands for 1.
        fallback_below: where fewer matches are found, the mutual nearest neighbours (or the
            matcher's matches) that contradict none of them are appended, with probability 0;
            0 for never.
        prior_neighbours: seeds near a seed that vote for the scale and rotation of the pair.
        prior_max_log_scale: votes for a larger logarithm of the scale do not count.
        prior_min_length: votes of seeds nearer than this do not count.
        prior_scale_bins: bins of the histogram of votes, along the logarithm of the scale.
        prior_angle_bins: bins of the histogram along the rotation.
        prior_scale_window: the prior is the median of the votes this near to the highest bin.
        prior_angle_window: the same for the rotation, in degrees.
        spectral_neighbours: seeds that a candidate is compared with, in each image.
        spectral_tolerance: standard deviation of a neighbour's place, as a part of its distance.
        spectral_noise: the part of this deviation that does not depend on the distance.
        spectral_cutoff: neighbours displaced by more than this part of their distance do not
            vote.
        spectral_unary: weight of a candidate's own descriptors beside its neighbours' votes.
        spectral_ratio: ratio of distances at which the descriptors say neither yes nor no.
        spectral_iterations: power iterations.
        spectral_floor: candidates below this part of a high score are not matched.
        iterations: of the mean field. 1 goes to `last_tolerance` at once: faster, with somewhat
            more wrong matches.
        neighbours: seeds that a candidate is compared with, in each image.
        first_tolerance: standard deviation of a neighbour's place in the first iteration, as a
            part of its distance.
        last_tolerance: the same in the last iteration; in between geometrically.
        noise: the part of this deviation that does not depend on the distance.
        reach: distance at which a neighbour counts half.
        softening: added to distances where neighbours are weighted for the affine fit.
        prior_weight: weight of the prior in the affine fit.
        disagreement: how much a neighbour's probability counts against a candidate, agree or not.
        max_evidence: bound of the evidence of all neighbours, in log odds.
        bias: against a match, in log odds.
        ratio_weight: log odds per unit of the ratio of distances below 1.
        max_unary: bound of the descriptors' evidence, in log odds.
        scale_deviation: standard deviation of the logarithm of the ratio of two matched
            keypoints' scales, from the prior's.
        orientation_deviation: standard deviation of the difference of their orientations from the
            prior's, in radians.
        max_penalty: bound of what scales and orientations count against a candidate, in log odds.
        start_probability: the least probability of a spectral match at the start.
        seed_probability: mutual best candidates above it are the next iteration's seeds.
        min_probability: the least probability of a match. Between near duplicates of a keypoint
            it is split; higher values give fewer matches and fewer wrong ones among them.
    """

    solver: Literal["cascade", "spectral"] = "cascade"
    candidates: Literal["knn", "nearest", "lightglue"] | str = "knn"
    num_candidates: PositiveInt = 2
    best_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    fallback_below: NonNegativeInt = 0
    prior_neighbours: PositiveInt = 8
    prior_max_log_scale: PositiveFloat = 1.6
    prior_min_length: PositiveFloat = 0.3
    prior_scale_bins: PositiveInt = 16
    prior_angle_bins: PositiveInt = 36
    prior_scale_window: PositiveFloat = 0.3
    prior_angle_window: PositiveFloat = 25.0
    spectral_neighbours: PositiveInt = 12
    spectral_tolerance: PositiveFloat = 0.35
    spectral_noise: PositiveFloat = 0.15
    spectral_cutoff: PositiveFloat = 0.6
    spectral_unary: NonNegativeFloat = 1.2
    spectral_ratio: PositiveFloat = 0.95
    spectral_iterations: PositiveInt = 10
    spectral_floor: _Share = 0.01
    iterations: PositiveInt = 2
    neighbours: PositiveInt = 10
    first_tolerance: PositiveFloat = 0.5
    last_tolerance: PositiveFloat = 0.2
    noise: PositiveFloat = 0.12
    reach: PositiveFloat = 8.0
    softening: PositiveFloat = 0.6
    prior_weight: PositiveFloat = 0.25
    disagreement: NonNegativeFloat = 0.4
    max_evidence: PositiveFloat = 8.0
    bias: float = 1.0
    ratio_weight: PositiveFloat = 4.0
    max_unary: PositiveFloat = 6.0
    scale_deviation: PositiveFloat = 0.7
    orientation_deviation: PositiveFloat = 0.5
    max_penalty: NonNegativeFloat = 6.0
    start_probability: _Share = 0.5
    seed_probability: _Share = 0.1
    min_probability: _Share = 0.3
