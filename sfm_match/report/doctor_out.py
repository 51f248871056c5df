"""Findings on an output folder: what its run left out, and what is in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sfm_match.io.database_access import DatabaseError
from sfm_match.io.store import damaged_shards
from sfm_match.report.findings import Finding, Place, Severity, count

_MODELS = ("model", "sparse/0", "0", ".")
_SMALLER = ("models/1", "sparse/1", "1")


def database_in(path: Path) -> Path:
    """Return the database of an output folder, or the path itself where it is no folder.

    Raises:
        DatabaseError: there is none in the folder.
    """
    if not path.is_dir():
        return path
    database = path / "database.db"
    if not database.is_file():
        raise DatabaseError(
            f"{path}: has no database.db; stages that were run: "
            f"{', '.join(read_results(path).get('stages', ())) or 'none'}; "
            f"sfm-match run IMAGES {path} goes on"
        )
    return database


def model_in(out: Path) -> Path | None:
    """Return the folder of the model below a folder: where this package, COLMAP or hloc put it."""
    folders = (out / name for name in _MODELS)
    return next(
        (f for f in folders if any(f.glob("images.bin")) or any(f.glob("images.txt"))), None
    )


def read_results(out: Path) -> dict[str, Any]:
    """Return the content of `results.json`; nothing where it is not one of a run."""
    try:
        content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def examine_out(out: Path) -> Iterator[Finding]:
    """Yield what the run of an output folder left out, and what is damaged there."""
    results = read_results(out)
    failures: Mapping[str, str] = results.get("failures", {})
    if failures:
        yield Finding(
            Severity.WARNING,
            "left-out-images",
            f"{count(len(failures), 'image')} left out of the run",
            tuple(Place((name,), reason) for name, reason in failures.items()),
            "replace these files and run again; only they are done anew",
        )
    same = {n: r for n, r in results.get("remarks", {}).items() if "the same file" in r}
    if same:
        yield Finding(
            Severity.NOTE,
            "same-images",
            f"{count(len(same), 'image')} with the same file as another: they have no baseline",
            tuple(Place((name,), remark) for name, remark in same.items()),
            "remove the copies",
        )
    yield from _damaged_stores(out)
    yield from _missing_model(out, results)


def _damaged_stores(out: Path) -> Iterator[Finding]:
    stores = sorted(path.parent for path in out.glob("*/*/store.json"))
    damages = [damage for store in stores for damage in damaged_shards(store)]
    if damages:
        yield Finding(
            Severity.PROBLEM,
            "damaged-stores",
            f"{count(len(damages), 'file')} of the stores damaged: "
            + "; ".join(f"{d.path.relative_to(out)} ({d.reason})" for d in damages[:3]),
            (),
            f"sfm-match repair {out}, then sfm-match run IMAGES {out}",
        )


def _missing_model(out: Path, results: Mapping[str, Any]) -> Iterator[Finding]:
    smaller = next((name for name in _SMALLER if (out / name).is_dir()), None)
    if model_in(out) is None:
        reason = results.get("stages", {}).get("map", {}).get("reason")
        yield Finding(
            Severity.PROBLEM if reason else Severity.NOTE,
            "no-model",
            f"no model came out: {reason}" if reason else "there is no model yet",
            (),
            "see the other findings" if reason else f"sfm-match map {out}",
        )
    elif smaller is not None:
        yield Finding(
            Severity.WARNING,
            "several-models",
            f"the images are in several models ({smaller} is the second): none links them",
            (),
            "match more pairs (--pairs exhaustive, or sequential+retrieval; -o pairs.expand=2), "
            "take pictures in between, or --mapper global",
        )
