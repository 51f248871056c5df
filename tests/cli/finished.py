"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tests.scenes import (
    Outcome,
    results,
)

ROOT = Path(__file__).parents[2]


FIXED = ("--seed", "0", "--threads", "1", "-q")


class Scene(NamedTuple):
    images: Path
    truth: Path
    out: Path
    outcome: Outcome


def num_keypoints(out: Path) -> int:
    return int(results(out)["stages"]["import"]["counts"]["keypoints"])
