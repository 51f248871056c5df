"""Training of IPCA-GM and its CNN: for the matcher `pygm` with `solver = "ipca_gm"`."""

from __future__ import annotations

from sfm_match.training.data import Progress
from sfm_match.training.pygm_task import Config, prepare_solver
from sfm_match.training.task import Task

__all__ = ["DESCRIPTION", "Config", "prepare"]

DESCRIPTION = "IPCA-GM: PCA-GM whose matches are refined by iteration, for `pygm`"


def prepare(config: Config, data: str, seed: int, progress: Progress) -> Task:
    """Return the training."""
    return prepare_solver("ipca_gm", config, data, seed, progress)
