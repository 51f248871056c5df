"""The command line: arguments in, text or JSON out."""

from __future__ import annotations

import os
import signal
import sys
import threading

import typer

from sfm_match.allocator import keep_freed_memory
from sfm_match.cli import (
    benchmark,
    catalogue,
    doctor,
    evaluate,
    folders,
    points,
    report,
    show,
    stages,
    train,
)
from sfm_match.cli.output import STOPPED
from sfm_match.io.database_access import DatabaseError
from sfm_match.io.images import ImageError
from sfm_match.io.model import ModelError
from sfm_match.io.shard import StoreError
from sfm_match.spec import ConfigError
from sfm_match.stages.executor import WorkerError
from sfm_match.stages.mapping import MAPPER_THREAD
from sfm_match.stages.workspace import LockedError
from sfm_match.weights import WeightsError

_HELP = """From photographs to a verified COLMAP model, with any local feature and any matcher.

Exit codes: 0 done; 1 something is wrong with the input, the message says what; 2 wrong usage;
3 no model came out, the message says why; 4 done, but some images were left out;
5 the doctor warns; 6 the doctor sees problems; 130 Ctrl-C.
"""

app = typer.Typer(
    help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)
for group in (stages, catalogue, folders, show, doctor, report, benchmark, points, train):
    app.add_typer(group.app)
app.add_typer(evaluate.app, name="eval")

INPUT_ERRORS = (
    ConfigError,
    DatabaseError,
    ImageError,
    ModelError,
    StoreError,
    LockedError,
    WeightsError,
    WorkerError,
)


def main() -> None:
    """Run the command line; errors of the input are one line on standard error."""
    keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pycolmap's handler prints its stack
    try:
        app(standalone_mode=True)
    except (*INPUT_ERRORS, OSError) as error:
        typer.echo(f"error: {_message(error)}", err=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == STOPPED:  # what typer makes of Ctrl-C
            typer.echo("stopped; the same command goes on from what is finished", err=True)
            if any(thread.name == MAPPER_THREAD for thread in threading.enumerate()):
                # It is in pycolmap, not every mapper of which can be cancelled, and would abort
                # the process when it came back to an interpreter that has ended.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(STOPPED)
        raise


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:  # the system's own
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)
