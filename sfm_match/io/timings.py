"""How long the items of the stores below a folder took, kept beside them: `timings.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfm_match.io.files import write_text

_NAME = "timings.json"


def add_time(folder: Path, store: Path, items: int, seconds: float) -> None:
    """Add the time that some items of a store took; without items nothing is changed."""
    if not items:
        return
    content = _read(folder)
    before = content.get(_key(folder, store), {"items": 0, "seconds": 0.0})
    content[_key(folder, store)] = {
        "items": before["items"] + items,
        "seconds": before["seconds"] + seconds,
    }
    write_text(folder / _NAME, json.dumps(content, indent=1))


def mean_milliseconds(folder: Path, store: Path) -> float | None:
    """Return the mean time of an item of a store, or None where none was noted."""
    found = _read(folder).get(_key(folder, store))
    return None if found is None else 1000 * float(found["seconds"]) / int(found["items"])


def _key(folder: Path, store: Path) -> str:
    return store.relative_to(folder).as_posix()


def _read(folder: Path) -> dict[str, Any]:
    path = folder / _NAME
    content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return content
