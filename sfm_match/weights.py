"""Checkpoints: name -> URL, digest, size and licence -> a verified file on this machine.

A file that is looked up by name is used only with the registered digest (SHA-256, or else MD5); a
file that the user names by its path is taken as it is. Nothing is unpickled here.
"""

from __future__ import annotations

import difflib
import hashlib
import http.client
import os
import sys
import time
from functools import lru_cache
from importlib import resources
from pathlib import Path

from filelock import FileLock

from sfm_match.checkpoints import CHECKPOINTS, Checkpoint
from sfm_match.downloads import NETWORK_ERRORS, fetch, is_transient

__all__ = [
    "CHECKPOINTS",
    "ENV_FOLDERS",
    "ENV_PERMISSIVE_ONLY",
    "Checkpoint",
    "WeightsError",
    "cache_folder",
    "card",
    "digest",
    "find",
    "search_folders",
]

ENV_FOLDERS = "SFM_MATCH_WEIGHTS"
"""The environment variable that names folders of checkpoints, separated as in PATH."""
ENV_PERMISSIVE_ONLY = "SFM_MATCH_PERMISSIVE_ONLY"
"""The environment variable that, set to 1, forbids weights that forbid commercial use."""

NUM_ATTEMPTS = 3
RETRY_SECONDS = 0.5  # doubled after every failed attempt

_REINSTALL = "install sfm-match again: pip install --force-reinstall --no-deps sfm-match"


class WeightsError(RuntimeError):
    """A checkpoint that cannot be had or must not be used; the message names it and the remedy."""


def cache_folder() -> Path:
    """Return the folder that downloads go to; it need not exist yet."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
        fallback = Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        fallback = Path.home() / ".cache"
    # The XDG specification has relative paths ignored.
    return (Path(base) if Path(base).is_absolute() else fallback) / "sfm_match" / "weights"


def search_folders(weights_dir: Path | None = None) -> list[Path]:
    """Return the folders that are searched for a checkpoint, first to last."""
    folders = [] if weights_dir is None else [weights_dir]
    named = os.environ.get(ENV_FOLDERS, "").split(os.pathsep)
    folders += [Path(folder).expanduser() for folder in named if folder]
    return [*folders, _packaged_folder(), cache_folder()]


def _packaged_folder() -> Path:
    return Path(str(resources.files("sfm_match") / "weights_data"))


def card(checkpoint: Checkpoint) -> str:
    """Return what a checkpoint of this package was made from and how good it is, in Markdown.

    Raises:
        WeightsError: the file that says so is missing.
    """
    path = _packaged_folder() / f"{checkpoint.name}.md"
    if not path.is_file():
        raise _incomplete(path)
    return path.read_text(encoding="utf-8")


def find(
    name_or_path: str,
    *,
    weights_dir: Path | None = None,
    permissive_only: bool = False,
    download: bool = True,
    progress: bool = True,
) -> Path:
    """Return the file of a checkpoint, downloaded if it is nowhere on this machine.

    A registered name is searched in `search_folders` and, when found in none of them, downloaded
    into `cache_folder`, unless it comes with this package. Its digest is verified wherever it comes
    from. Anything else is the path of a file, which is taken as it is (a file that is called like a
    checkpoint: ``./name``).

    Args:
        name_or_path: a name of `CHECKPOINTS`, or the path of a file.
        weights_dir: a folder to search before all others.
        permissive_only: refuse the registered checkpoints whose licence forbids commercial use,
            also where their file is given by its path. The environment variable
            `ENV_PERMISSIVE_ONLY` does so in this process and those that it starts.
        download: whether to download what is not found.
        progress: whether to show the progress of a download on stderr.

    Raises:
        LookupError: neither the name of a checkpoint nor a file; the message lists the names.
        WeightsError: the file has a wrong digest, a licence that is not allowed, or is not to be
            had; the message names it and says what to do.
    """
    _check_licence(digest(name_or_path), permissive_only)
    checkpoint = CHECKPOINTS.get(name_or_path)
    if checkpoint is None:
        return _user_file(name_or_path)
    folders = search_folders(weights_dir)
    for folder in folders:
        path = folder / checkpoint.filename
        if path.is_file():
            _verify(path, checkpoint)
            return path
    if checkpoint.packaged:
        raise _incomplete(_packaged_folder() / checkpoint.filename)
    if not download:
        raise WeightsError(_missing(checkpoint, "not found, and not to be downloaded", folders))
    return _download_once(checkpoint, folders, progress)


def digest(name_or_path: str) -> str:
    """Return the SHA-256 of a checkpoint in hexadecimal; a registered one needs no file.

    Where its authors publish no SHA-256, it is ``md5:`` and its MD5.

    Raises:
        LookupError: neither the name of a checkpoint nor a file; the message lists the names.
        WeightsError: it has a licence that is not allowed here (see `ENV_PERMISSIVE_ONLY`).
    """
    checkpoint = CHECKPOINTS.get(name_or_path)
    found = _file_digest(_user_file(name_or_path)) if checkpoint is None else checkpoint.digest
    _check_licence(found, permissive_only=False)
    return found


def _user_file(name_or_path: str) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    close = difflib.get_close_matches(name_or_path, CHECKPOINTS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise LookupError(
        f"{name_or_path!r} is neither the name of a checkpoint nor a file; "
        f"{hint}have {', '.join(sorted(CHECKPOINTS))}"
    )


def _check_licence(digest: str, permissive_only: bool) -> None:
    checkpoint = {c.digest: c for c in CHECKPOINTS.values()}.get(digest)
    permissive_only = permissive_only or os.environ.get(ENV_PERMISSIVE_ONLY) == "1"
    if not permissive_only or checkpoint is None or checkpoint.commercial:
        return
    allowed = ", ".join(sorted(c.name for c in CHECKPOINTS.values() if c.commercial)) or "none"
    raise WeightsError(
        f"the checkpoint {checkpoint.name} is licensed {checkpoint.licence}, which forbids "
        f"commercial use, and only permissive licences are allowed; permissive are: {allowed}"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=256)
def _sha256_of_state(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file once for as long as its size and time of modification stay what they are."""
    return _sha256(path)


def _file_digest(path: Path) -> str:
    state = path.stat()
    return _sha256_of_state(path.absolute(), state.st_size, state.st_mtime_ns)


def _digest_as_of(checkpoint: Checkpoint, path: Path) -> str:
    """Return a file's digest of the kind that is registered for a checkpoint."""
    if checkpoint.sha256:
        return _file_digest(path)
    with path.open("rb") as file:
        return f"md5:{hashlib.file_digest(file, 'md5').hexdigest()}"


def _verify(path: Path, checkpoint: Checkpoint) -> None:
    got = _digest_as_of(checkpoint, path)
    if got != checkpoint.digest:
        again = "downloaded from " + checkpoint.url
        if checkpoint.packaged:
            again = f"where it came with this package, {_REINSTALL}"
        raise WeightsError(
            f"{path} is not the checkpoint {checkpoint.name}: expected {checkpoint.digest_text} "
            f"({checkpoint.size} bytes), got {got} ({path.stat().st_size} bytes). Delete the file "
            f"to have it searched elsewhere and {again}; to use it as it is, give its path in "
            "place of the name"
        )


def _incomplete(path: Path) -> WeightsError:
    return WeightsError(f"{path} is missing, which comes with this package; {_REINSTALL}")


def _missing(checkpoint: Checkpoint, reason: str, folders: list[Path]) -> str:
    places = "".join(f"\n  {folder / checkpoint.filename}" for folder in folders)
    return (
        f"the checkpoint {checkpoint.name} is missing: {reason}. Fetch {checkpoint.url} "
        f"({checkpoint.size_text}) where there is a network, and put it at one of{places}\n"
        f"or in a folder that the environment variable {ENV_FOLDERS} names"
    )


def _download_once(checkpoint: Checkpoint, folders: list[Path], progress: bool) -> Path:
    """Download into the cache, one process at a time; who waited finds the file there."""
    target = cache_folder() / checkpoint.filename
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.is_file():
                _verify(target, checkpoint)
            else:
                _download(checkpoint, target, progress)
    except (OSError, http.client.HTTPException) as error:
        reason = f"the download failed: {type(error).__name__}: {error}"
        raise WeightsError(_missing(checkpoint, reason, folders)) from error
    return target


def _download(checkpoint: Checkpoint, target: Path, progress: bool) -> None:
    """Fetch, verify, rename. What a broken attempt got is kept in `.part` for the next one."""
    part = target.with_name(f"{target.name}.part")
    for attempt in range(NUM_ATTEMPTS):
        last = attempt == NUM_ATTEMPTS - 1
        try:
            resumed = fetch(checkpoint, part, progress)
        except NETWORK_ERRORS as error:
            if last or not is_transient(error):
                raise
            time.sleep(RETRY_SECONDS * 2**attempt)
            continue
        got = _digest_as_of(checkpoint, part)
        if got == checkpoint.digest:
            part.replace(target)
            return
        part.unlink()
        if last or not resumed:  # else the old part may have been at fault: fetch all of it again
            raise WeightsError(
                f"{checkpoint.url} is not the checkpoint {checkpoint.name} any more: expected "
                f"{checkpoint.digest_text}, got {got}. Nothing was kept. A proxy may have "
                "altered it or its authors replaced it: try again on another network, upgrade "
                f"sfm-match, or put the right {checkpoint.filename} into {target.parent}"
            )
