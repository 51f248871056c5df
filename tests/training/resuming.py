"""A training that is broken off and taken up again, beside one that is not."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sfm_match.training.loop import LOSSES, run_training
from sfm_match.training.optimization import Step


class BrokenOffError(Exception):
    """Ends a training in the middle of a step."""


def curve(out: Path) -> list[dict[str, float]]:
    """Return the rows of the losses of a training."""
    with (out / LOSSES).open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def assert_resumes(
    trainer: Callable[[], Any],
    batch_of: Callable[[int], Any],
    steps: int,
    folder: Path,
    broken_off: int,
) -> Any:
    """Check that a training broken off in a step has the same curve and result in the end.

    Returns the trainer that was taken up again; its checkpoint is in `folder / "parts"`.
    """
    for name in ("whole", "parts"):
        (folder / name).mkdir()
    whole = trainer()
    run_training(whole, batch_of, steps, folder / "whole", save_every=0)

    def break_off(step: Step) -> None:
        if step.number == broken_off:
            raise BrokenOffError

    with pytest.raises(BrokenOffError):
        run_training(trainer(), batch_of, steps, folder / "parts", save_every=0, progress=break_off)
    assert len(curve(folder / "parts")) == broken_off  # the last step was not kept
    resumed = trainer()
    torch.manual_seed(5)  # no step depends on it
    run_training(resumed, batch_of, steps, folder / "parts", save_every=0)
    assert curve(folder / "parts") == curve(folder / "whole")
    for name, value in whole.averaged.state_dict().items():
        assert torch.equal(value, resumed.averaged.state_dict()[name]), name
    return resumed
