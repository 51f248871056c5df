"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


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


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole (UTF-8; undecodable bytes of file names are kept)."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)
