"""Fetching a checkpoint's file, on from where an earlier attempt was broken off."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from sfm_match.checkpoints import Checkpoint

NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
"""What `fetch` raises where servers and networks fail."""

_TIMEOUT_SECONDS = 30.0  # without a byte from the server
_CHUNK_BYTES = 1 << 16
_RETRIED_STATUS = frozenset({408, 416, 429})  # and 5xx; other HTTP errors are final


def is_transient(error: Exception) -> bool:
    """Return whether another attempt may go better."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _RETRIED_STATUS or error.code >= 500
    return True


def fetch(checkpoint: Checkpoint, part: Path, progress: bool) -> bool:
    """Bring `part` to its full size or more; return whether it holds bytes of an earlier attempt.

    Raises:
        ConnectionError: the server closed the connection early.
        OSError, http.client.HTTPException: as urllib has them; `part` keeps what has arrived.
    """
    have = part.stat().st_size if part.exists() else 0
    if 0 < checkpoint.size <= have:
        return True
    request = urllib.request.Request(checkpoint.url, headers={"User-Agent": "sfm-match"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            have = 0  # the server sends all of it
        _append(response, part, have, checkpoint, progress)
    return have > 0


def _append(
    response: http.client.HTTPResponse,
    part: Path,
    have: int,
    checkpoint: Checkpoint,
    progress: bool,
) -> None:
    """Write the response after the first `have` bytes of `part` and flush it to the disk."""
    from tqdm import tqdm  # a fortieth of a second, which every worker would pay

    size = checkpoint.size or have + (response.length or 0)  # what the server says
    name, quiet = checkpoint.filename, not progress
    bar = tqdm(desc=name, total=size, initial=have, unit="B", unit_scale=True, disable=quiet)
    with bar, part.open("ab" if have else "wb") as file:
        # One byte more than expected is enough to know that it is another file.
        while have <= size and (chunk := response.read(_CHUNK_BYTES)):
            file.write(chunk)
            bar.update(len(chunk))
            have += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if have < size:
        raise ConnectionError(f"{checkpoint.url} ended after {have} of {size} bytes")
