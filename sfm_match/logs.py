"""The package's log, and pycolmap's own messages."""

from __future__ import annotations

import logging
from pathlib import Path

import pycolmap

log = logging.getLogger("sfm_match")
log.addHandler(logging.NullHandler())

_ERROR = 2


def log_to(path: Path) -> None:
    """Append the package's log to a file; a file of an earlier call is closed."""
    for handler in list(log.handlers):
        if isinstance(handler, logging.FileHandler):
            log.removeHandler(handler)
            handler.close()
    file = logging.FileHandler(path, encoding="utf-8", errors="surrogateescape")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(file)
    log.setLevel(logging.INFO)


def quiet_colmap() -> None:
    """Let pycolmap print errors only. Some of its functions undo this."""
    pycolmap.logging.minloglevel = _ERROR
