from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sfm_match.models.r2d2_strided import StridedR2D2
from sfm_match.training.light import Light
from sfm_match.training.loop import CHECKPOINT, run_training
from sfm_match.training.pairs import Batch, make_batch
from sfm_match.training.r2d2 import R2D2Trainer, R2D2Training
from sfm_match.training.warps import Warps, warping
from tests.training.resuming import assert_resumes, curve
from tests.training.test_warps import picture

SMALL = R2D2Training(steps=6, warm_up=2, batch=1, border=8, precision="fp32")


def batch_of(number: int) -> Batch:
    return make_batch([(SOURCE, 1.0)], 1, number, SMALL.batch)


SOURCE = warping([picture(0), picture(1)], Warps(size=64), Light())


def trainer(config: R2D2Training = SMALL) -> R2D2Trainer:
    torch.manual_seed(0)
    return R2D2Trainer(StridedR2D2(), config)


def test_the_losses_fall() -> None:
    torch.set_num_threads(1)
    learning = trainer(R2D2Training(steps=40, warm_up=5, batch=1, border=8))
    steps = [learning.step(batch_of(0)) for _ in range(40)]
    assert [step.number for step in steps] == list(range(40))
    first, last = (np.mean([step.loss for step in part]) for part in (steps[:5], steps[-5:]))
    assert last < 0.8 * first
    assert steps[-1].terms["precision"] > steps[0].terms["precision"] + 0.1
    assert all(np.isfinite(step.gradient) for step in steps)
    # The averaged network follows.
    a, b = learning.network.state_dict(), learning.averaged.state_dict()
    distance = float((a["trunk.0.weight"] - b["trunk.0.weight"]).norm())
    assert 0 < distance < 0.2 * float(a["trunk.0.weight"].norm())


def test_kappa_follows_the_precision() -> None:
    learning = trainer()
    assert learning._kappa() == 0.1
    learning.running_precision = 0.5
    assert learning._kappa() == 0.5
    learning.running_precision = 1.0
    assert learning._kappa() == 0.9
    assert trainer(R2D2Training(kappa=0))._kappa() == 0.5


def test_taken_up_again_the_curve_is_the_same(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    resumed = assert_resumes(trainer, batch_of, SMALL.steps, tmp_path, broken_off=3)
    # Nothing is left to do.
    run_training(resumed, batch_of, SMALL.steps, tmp_path / "parts", save_every=0)
    assert resumed.number == SMALL.steps


def test_a_stopped_training_keeps_its_last_step(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_training(trainer(), batch_of, SMALL.steps, tmp_path, stop=lambda: True)
    assert len(curve(tmp_path)) == 1
    run_training(trainer(), batch_of, SMALL.steps, tmp_path)
    assert [row["step"] for row in curve(tmp_path)] == list(range(SMALL.steps))


@pytest.mark.slow
def test_killed_training_gives_the_same_curve(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    torch.set_num_threads(1)
    run_training(trainer(), batch_of, SMALL.steps, tmp_path / "whole", save_every=0)
    program = (
        "import sys, torch; from pathlib import Path; torch.set_num_threads(1);"
        "from tests.training.test_r2d2 import SMALL, batch_of, run_training, trainer;"
        "run_training(trainer(), batch_of, SMALL.steps, Path(sys.argv[1]), save_every=0)"
    )
    checkpoint, kills = tmp_path / "killed" / CHECKPOINT, 0

    def written() -> int:
        return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0

    for number in range(20):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "killed")])
        before = written()
        # At once after a checkpoint, or somewhere on the way to the one after it.
        while process.poll() is None and written() == before:
            time.sleep(0.005)
        time.sleep(0.1 * (number % 3))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
    assert kills >= 2
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
