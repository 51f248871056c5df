"""Deletes what the current recipe does not use."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from sfm_match.io.shard import PARTIAL_SUFFIX
from sfm_match.stages.workspace import Workspace

_ABANDONED_SECONDS = 3600.0


def clean_stores(space: Workspace) -> list[Path]:
    """Delete the stores of other settings, and partial files that a killed run left behind.

    A partial file counts as left behind after an hour: stores have no lock, another process may
    be about to finish it.
    """
    stores = (
        space.extracted,
        space.correspondences,
        space.refined,
        space.features,
        space.matches,
        space.two_views,
    )
    used = {store.folder for store in stores if store is not None}
    deleted = []
    for kind in ("features", "correspondences", "matches", "two_views"):
        for folder in sorted((space.out / kind).glob("*")):
            if folder.is_dir() and folder not in used:
                shutil.rmtree(folder)
                deleted.append(folder)
    for path in sorted(space.out.rglob(f"*{PARTIAL_SUFFIX}")):
        if path.is_file() and time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            path.unlink()
            deleted.append(path)
    return deleted
