"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LITTLE_ROOM = 100e6


class FileError(OSError):
    """A file that cannot be read or written; the message names it, says why and what to do."""


@contextmanager
def writing(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Turn what goes wrong while a file or folder is written into an error that names it.

    The system's own errors of writing name no file.

    Args:
        path: what is written.
        errors: what a library raises, beside OSError, when it cannot write.

    Raises:
        FileError: one of these happened.
    """
    failures: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except FileError:  # it says so already; what is written may come from other files
        raise
    except failures as error:
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            raise FileError(
                f"{path}: cannot be written: there is no folder {path.parent}"
            ) from error
        raise FileError(
            f"{path}: cannot be written: {_reason(error)}{room(path)}; what was finished before "
            "is kept, and the same command goes on from it"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, shutil.Error):  # of copytree: a list of (from, to, why)
        return str(error.args[0][0][2])
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def room(path: Path) -> str:
    """Return how much of a file's disk is free, as a part of a message, where it is little."""
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return ""
    return f" ({free / 1e6:.1f} MB are free there)" if free < _LITTLE_ROOM else ""


def fsync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(partial: Path, path: Path) -> None:
    """Flush a finished file to the disk and give it its name, in that order."""
    fsync(partial)
    partial.replace(path)
    fsync(path.parent)


def write_bytes(path: Path, content: bytes, partial: Path | None = None) -> None:
    """Write a file as a whole.

    Args:
        path: the file; an older one is replaced when the new one is complete.
        content: what it will hold.
        partial: the name until then, in the same folder; a hidden one unless given.

    Raises:
        FileError: it could not be written; an older one is as it was.
    """
    if partial is None:
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    with writing(path):
        try:
            partial.write_bytes(content)
            publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole (UTF-8; undecodable bytes of file names are kept).

    Raises:
        FileError: it could not be written; an older one is as it was.
    """
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))
