"""The loop around every training: batches ahead, losses to a file, checkpoints, going on."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from sfm_match.io.files import write_text
from sfm_match.training.checkpoint import load_state, save_state
from sfm_match.training.optimization import Step

BatchT = TypeVar("BatchT")
TakenBatch_contra = TypeVar("TakenBatch_contra", contravariant=True)

CHECKPOINT = "checkpoint.safetensors"
LOSSES = "losses.csv"


class Trainer(Protocol, Generic[TakenBatch_contra]):
    """A network in training; its state says all that the next steps depend on."""

    number: int

    def step(self, batch: TakenBatch_contra) -> Step:
        """Learn from a batch."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""


def run_training(
    trainer: Trainer[BatchT],
    make_batch: Callable[[int], BatchT],
    steps: int,
    out: Path,
    *,
    save_every: float = 60.0,
    progress: Callable[[Step], object] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Take the steps that are left; killed at any moment, the same call goes on.

    The losses of the curve are those of an undisturbed training: `losses.csv` is cut back to the
    checkpoint that the training goes on from.

    Args:
        trainer: the network, as it begins.
        make_batch: returns the batch of a step, which depends on the step's number only.
        steps: how many there are in all.
        out: folder of the checkpoint and the losses; it exists.
        save_every: seconds between checkpoints.
        progress: is called after every step.
        stop: is asked after every step whether to end here; what is done is saved before.

    Raises:
        KeyboardInterrupt: it was stopped.
        FileError: the checkpoint cannot be read or written.
    """
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        trainer.load_state_dict(load_state(checkpoint))
    rows = _rows_before(out / LOSSES, trainer.number)
    saved = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(make_batch, trainer.number)
        while trainer.number < steps:
            batch = following.result()
            if trainer.number + 1 < steps:
                following = pool.submit(make_batch, trainer.number + 1)
            step = trainer.step(batch)
            rows.append({"step": step.number, "loss": step.loss, **step.terms})
            rows[-1]["gradient"] = step.gradient
            progress(step)
            stopped = stop()
            if stopped or time.monotonic() - saved > save_every or trainer.number == steps:
                # In this order: a curve may be longer than its checkpoint, not shorter.
                write_text(out / LOSSES, _csv(rows))
                save_state(checkpoint, trainer.state_dict())
                saved = time.monotonic()
            if stopped:
                following.cancel()
                raise KeyboardInterrupt


def _rows_before(path: Path, number: int) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) < number]


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
