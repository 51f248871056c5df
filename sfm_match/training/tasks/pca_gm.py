"""Training of PCA-GM and its CNN: for the matcher `pygm` with `solver = "pca_gm"`."""

from __future__ import annotations

from sfm_match.training.data import Progress
from sfm_match.training.pygm_task import Config, prepare_solver
from sfm_match.training.task import Task

__all__ = ["DESCRIPTION", "Config", "prepare"]

DESCRIPTION = "PCA-GM: graph convolutions within and between two images, for `pygm`"


def prepare(config: Config, data: str, seed: int, progress: Progress) -> Task:
    """Return the training."""
    return prepare_solver("pca_gm", config, data, seed, progress)
