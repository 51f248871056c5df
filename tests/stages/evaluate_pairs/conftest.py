"""A small scene, and an evaluation of its pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfm_match import evaluate_pairs
from sfm_match.stages.pair_results import PairsEvaluation
from tests.pair_evaluation import recipe
from tests.scenes import make_images, make_truth


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, their truth, and an evaluation's stores in `out`."""
    folder = tmp_path_factory.mktemp("gallery")
    make_images(folder)
    make_truth(folder)
    return folder


@pytest.fixture(scope="session")
def result(gallery: Path) -> PairsEvaluation:
    """What an evaluation of the gallery gives."""
    return evaluate_pairs(
        gallery / "truth",
        recipe(gallery / "images"),
        gallery / "out",
        estimators=("poselib", "opencv"),
        thresholds=(0.5, 1.0),
        threads=2,
    )
