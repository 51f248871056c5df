"""SHA-256 of files, and of what was made from several things."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def combine_digests(*digests: bytes) -> bytes:
    """Return the digest of what was made from several things of known digests."""
    return hashlib.sha256(b"".join(digests)).digest()
