"""Deletes what is damaged in an output folder, so that the next run computes it again."""

from __future__ import annotations

from pathlib import Path

from sfm_match.io.shard import DamagedShardError
from sfm_match.io.store import damaged_shards
from sfm_match.logs import log


def repair_stores(out: Path) -> list[DamagedShardError]:
    """Read every shard of every store in full; delete the damaged ones and return what they were.

    Raises:
        StoreError: what a store holds is not known, or the system cannot read a shard.
    """
    folders = sorted(path.parent for path in out.glob("*/*/store.json"))
    damages = [damage for folder in folders for damage in damaged_shards(folder)]
    for damage in damages:
        damage.path.unlink()
        log.warning("deleted %s: damaged (%s)", damage.path, damage.reason)
    return damages
