"""The package's log, and pycolmap's own messages."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pycolmap

log = logging.getLogger("sfm_match")
log.addHandler(logging.NullHandler())

_ERROR = 2


class _LogFile(logging.FileHandler):
    """A log that a full disk does not turn into a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leave out a line that cannot be written: results cannot either, and that is an error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def log_to(path: Path) -> None:
    """Append the package's log to a file; a file of an earlier call is closed."""
    for handler in list(log.handlers):
        if isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)
            handler.close()
    file = _LogFile(path, encoding="utf-8", errors="surrogateescape")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(file)
    log.setLevel(logging.INFO)


def quiet_colmap() -> None:
    """Let pycolmap print errors only. Some of its functions undo this."""
    pycolmap.logging.minloglevel = _ERROR
