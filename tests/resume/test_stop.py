"""Ctrl-C in every stage stops soon, keeps what is finished, and the next run goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.kill_at_steps import BASE
from tests.resume.runs import (
    ALL_NAMES,
    Items,
    Reference,
    log_length,
    take_back,
    undisturbed,
    wait_for_stage,
)
from tests.resume.slow_stage import ITEMS
from tests.scenes import (
    NAMES,
    call,
    database_rows,
    finish,
    make_images,
    model_content,
    read_everything,
    start,
    wait_for_end,
    work_done,
)

# The rest of each stage would take longer, see `slow_stage.ITEMS`, however busy the machine is.
SOON_SECONDS = 10


def stop_soon(process: subprocess.Popen[str]) -> None:
    """Send Ctrl-C and check that everything ends soon and in order."""
    sent = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    outcome = finish(process)
    assert time.monotonic() - sent < SOON_SECONDS
    assert outcome.code == 130, outcome
    assert outcome.stderr.endswith("stopped; the same command goes on from what is finished\n")
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    assert wait_for_end(process.pid, 60) == []


def check_goes_on(out: Path, reference: Reference, before: Items) -> None:
    """Check that what was finished is there, and that a run makes the rest."""
    assert read_everything(out).items() >= before.items()
    assert call("run", reference.images, out, *BASE).code == 0
    assert sum(work_done(out)["extract"]) == len(NAMES)
    assert read_everything(out).items() >= reference.items.items()
    assert database_rows(out / "database.db") == reference.database
    assert model_content(out / "model") == reference.model
    assert not [path.name for path in out.iterdir() if "partial" in path.name]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ITEMS)
def test_ctrl_c_stops_soon_and_keeps_what_is_finished(
    reference: Reference, tmp_path: Path, stage: str
) -> None:
    out = Path(shutil.copytree(reference.out, tmp_path / "out"))
    take_back(out, "match" if stage == "pairs" else stage)
    before = read_everything(out)
    begun = log_length(out)
    arguments = (stage, "run", reference.images, out, "--seed", "0", "--threads", "2", "-q")
    process = start(*arguments, module="tests.resume.slow_stage")
    wait_for_stage(process, out, stage, begun)
    time.sleep(0.5)
    stop_soon(process)
    assert f"{stage} took" not in (out / "log.txt").read_text()[begun:]
    if stage != "map":
        assert not (out / "model").exists()
    check_goes_on(out, reference, before)


# Here the time is pycolmap's own: each pair takes some seconds, and the model half a minute.
LONG_VERIFICATION = (
    *("-o", "verify.ransac.min_num_trials=200000"),
    *("-o", "verify.ransac.max_num_trials=200000"),
)
LONG_MAPPING = (
    *("-o", "mapper.ba_global_max_refinements=2000"),
    *("-o", "mapper.ba_global_max_refinement_change=0"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "options"), [("verify", LONG_VERIFICATION), ("map", LONG_MAPPING)]
)
def test_ctrl_c_stops_pycolmap_soon(
    reference: Reference, tmp_path: Path, stage: str, options: tuple[str, ...]
) -> None:
    out = Path(shutil.copytree(reference.out, tmp_path / "out"))
    take_back(out, stage)
    before = read_everything(out)
    begun = log_length(out)
    process = start("run", reference.images, out, "--seed", "0", "--threads", "2", *options)
    wait_for_stage(process, out, stage, begun)
    time.sleep(0.5)
    stop_soon(process)
    check_goes_on(out, reference, before)


@pytest.mark.slow
@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_ctrl_c_ends_every_mapper_without_a_crash(tmp_path: Path, mapper: str) -> None:
    """A mapper's thread that came back to an interpreter at its end would abort the process."""
    reference = undisturbed(tmp_path, make_images(tmp_path, ALL_NAMES, (480, 360)))
    stopped = 0
    for tenths in range(1, 5):
        take_back(reference.out, "map")
        begun = log_length(reference.out)
        process = start("run", reference.images, reference.out, "-q", "--mapper", mapper)
        wait_for_stage(process, reference.out, "map", begun)
        time.sleep(0.1 * tenths * reference.seconds["map"])
        os.killpg(process.pid, signal.SIGINT)
        outcome = finish(process)
        if outcome.stdout:  # it was faster than the first time
            continue
        stopped += 1
        assert outcome.code == 130
        assert outcome.stderr == "stopped; the same command goes on from what is finished\n"
    assert stopped > 0
