"""Evaluations of pairs with few features."""

from __future__ import annotations

from pathlib import Path

from sfm_match import Recipe
from sfm_match.stages.pair_results import PairsEvaluation


def recipe(images: Path, *settings: str, seed: int = 0) -> Recipe:
    """Return SIFT with few keypoints, on a folder of images."""
    return Recipe.load(
        "sift", "features.max_keypoints=600", *settings, seed=seed, images={"path": images}
    )


def errors_of(evaluation: PairsEvaluation) -> list[float]:
    """Return the pose errors of the pairs, in degrees, of the first run."""
    return [pose.error for pose in evaluation.runs[0].poses]
