"""What a run did after a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tests.scenes import (
    NAMES,
    NUM_PAIRS,
    call,
    database_rows,
    model_content,
    work_done,
)

FIXED = ("--seed", "0", "--threads", "1", "-q")
NUM = len(NAMES)
PAIRS_OF_ONE = NUM - 1
ALL_IMAGES, NO_IMAGE = (NUM, 0), (0, NUM)
ALL_PAIRS, NO_PAIR = (NUM_PAIRS, 0), (0, NUM_PAIRS)
UNCHANGED = {
    "extract": NO_IMAGE,
    "match": NO_PAIR,
    "verify": NO_PAIR,
    "import": False,
    "map": False,
}
FROM_MAP = {**UNCHANGED, "map": True}
FROM_IMPORT = {**FROM_MAP, "import": True}
FROM_VERIFY = {**FROM_IMPORT, "verify": ALL_PAIRS}
FROM_MATCH = {**FROM_VERIFY, "match": ALL_PAIRS}
FROM_EXTRACT = {**FROM_MATCH, "extract": ALL_IMAGES}
ONE_IMAGE = {
    **FROM_IMPORT,
    "extract": (1, NUM - 1),
    "match": (PAIRS_OF_ONE, NUM_PAIRS - PAIRS_OF_ONE),
    "verify": (PAIRS_OF_ONE, NUM_PAIRS - PAIRS_OF_ONE),
}


class Made(NamedTuple):
    images: Path
    out: Path


def run(made: Made, *settings: str, code: int = 0, seed: int = 0) -> dict[str, Any]:
    """Run with settings; return what each stage did."""
    options = [part for setting in settings for part in ("-o", setting)]
    outcome = call("run", made.images, made.out, *FIXED, "--seed", str(seed), *options)
    assert outcome.code == code, outcome
    return work_done(made.out)


def assert_same(made: Made, base: Made) -> None:
    """Check that database and model are those of the base, bit for bit."""
    assert database_rows(made.out / "database.db") == database_rows(base.out / "database.db")
    assert model_content(made.out / "model") == model_content(base.out / "model")
