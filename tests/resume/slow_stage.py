"""The command line with one stage that takes its time over each of its items.

    python -m tests.resume.slow_stage STAGE[=SECONDS] ARGUMENTS...

The time is spent where the stage computes, so a stage cannot be stopped in it where it could not be
stopped in the computation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import wraps
from pkgutil import resolve_name
from typing import Any
from unittest import mock

from sfm_match.cli import main

# By stage: what computes one item, and seconds. What Ctrl-C interrupts at once may take minutes;
# it waits for the threads that match and verify.
ITEMS: dict[str, tuple[str, float]] = {
    "extract": ("sfm_match.stages.extract.extract_some", 5),
    "pairs": ("sfm_match.stages.run.make_pairs", 60),
    "match": ("sfm_match.matchers.nearest._Nearest.match", 3),
    "verify": ("sfm_match.stages.verify.estimate_two_view", 3),
    "import": ("sfm_match.io.database._write_pair", 60),
    "map": ("pycolmap.incremental_mapping", 60),
}


def slowed(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return function(*args, **kwargs)

    return run


def run(chosen: str) -> None:
    stage, _, given = chosen.partition("=")
    path, seconds = ITEMS[stage]
    seconds = float(given or seconds)
    with mock.patch(path, slowed(resolve_name(path), seconds)):
        main()


if __name__ == "__main__":
    run(sys.argv.pop(1))
