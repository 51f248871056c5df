"""Two runs on one output folder: one works, the other is refused or waits."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.kill_at_steps import BASE
from tests.resume.runs import Reference, log_length, take_back, wait_for_stage
from tests.scenes import call, finish, model_content, read_everything, start


@pytest.mark.slow
def test_the_second_of_two_runs_is_refused_or_waits_and_the_first_is_not_disturbed(
    finished: Reference, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished.out, tmp_path / "out"))
    take_back(out, "verify")
    begun = log_length(out)
    command = ("run", finished.images, out, *BASE)
    first = start("verify=0.4", *command, module="tests.resume.slow_stage")
    wait_for_stage(first, out, "verify", begun)
    refused = call(*command)
    assert refused.code == 1
    assert refused.stderr.splitlines() == [
        f"error: {out}: another run is writing there; wait for its end, or pass --wait"
    ]
    waiting = start(*command, "--wait")
    time.sleep(0.2)
    assert first.poll() is None
    for process in (first, waiting):
        outcome = finish(process)
        assert (outcome.code, outcome.stderr) == (0, "")
        assert outcome.stdout.startswith(f"{out / 'model'}: 6 of 6 images")
    assert read_everything(out) == finished.items
    assert model_content(out / "model") == finished.model
