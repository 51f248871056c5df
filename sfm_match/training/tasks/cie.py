"""Training of CIE and its CNN: for the matcher `pygm` with `solver = "cie"`."""

from __future__ import annotations

from sfm_match.training.data import Progress
from sfm_match.training.pygm_task import Config, prepare_solver
from sfm_match.training.task import Task

__all__ = ["DESCRIPTION", "Config", "prepare"]

DESCRIPTION = "CIE: graph convolutions of keypoints and of edges, for `pygm`"


def prepare(config: Config, data: str, seed: int, progress: Progress) -> Task:
    """Return the training."""
    return prepare_solver("cie", config, data, seed, progress)
