"""What goes to the log, and pycolmap's own log messages."""

from __future__ import annotations

import pycolmap

_ERROR = 2


def quiet_colmap() -> None:
    """Let pycolmap print errors only. Some of its functions undo this."""
    pycolmap.logging.minloglevel = _ERROR
