"""Which images are matched with which."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, starmap
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.io.pairs import PairList, read_pairs
from sfm_match.spec import ConfigError
from sfm_match.types import Pair

_DIGITS = re.compile(r"(\d+)")


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """The table `[pairs]`.

    Attributes:
        method: `exhaustive` pairs every image with every other; `sequential` pairs images that
            are near each other in the order of their names, where numbers count as numbers
            (`img2` before `img10`); `file` reads a list of pairs.
        overlap: sequential: with how many of the following images each image is paired.
        quadratic: sequential: and with those 1, 2, 4, ... 2^(overlap - 1) images away, which closes
            gaps at little cost (COLMAP's quadratic overlap, except that COLMAP 4 then leaves out
            the other distances within the overlap).
        path: file: the list, two names a line; relative paths start at the working directory.
    """

    method: Literal["exhaustive", "sequential", "file"] = "exhaustive"
    overlap: PositiveInt = 10
    quadratic: bool = True
    path: Path | None = None


def make_pairs(names: Sequence[str], config: Config) -> PairList:
    """Return the pairs to match, each once, and the problems that a list of pairs had.

    Args:
        names: the images.
        config: which pairs.

    Raises:
        ConfigError: the list of pairs cannot be read, or none was given, or one was given for a
            method that reads none.
    """
    if config.path is not None and config.method != "file":
        raise ConfigError(
            f"pairs.path is {str(config.path)!r}, but the method {config.method!r} reads no list "
            "of pairs: pass -o pairs.method=file too, or leave the path out"
        )
    return _METHODS[config.method](names, config)


def _exhaustive(names: Sequence[str], config: Config) -> PairList:
    return PairList(list(starmap(Pair, combinations(sorted(set(names)), 2))))


def _sequential(names: Sequence[str], config: Config) -> PairList:
    ordered = sorted(set(names), key=_natural_key)
    distances = set(range(1, min(config.overlap, len(ordered)) + 1))
    if config.quadratic:
        distances |= {1 << i for i in range(min(config.overlap, len(ordered).bit_length()))}
    steps = sorted(d for d in distances if d < len(ordered))
    return PairList(
        [
            Pair.of(name, ordered[i + step])
            for i, name in enumerate(ordered)
            for step in steps
            if i + step < len(ordered)
        ]
    )


def _natural_key(name: str) -> tuple[list[str | int], str]:
    # Texts and numbers alternate, so that like is compared with like; the name itself decides
    # between img1 and img01.
    parts = _DIGITS.split(name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _from_file(names: Sequence[str], config: Config) -> PairList:
    if config.path is None:
        raise ConfigError(
            "pairs.path: the method 'file' needs a list of pairs: pass -o pairs.path=FILE or "
            "--pairs FILE"
        )
    return read_pairs(config.path, names)


_METHODS: Mapping[str, Callable[[Sequence[str], Config], PairList]] = {
    "exhaustive": _exhaustive,
    "sequential": _sequential,
    "file": _from_file,
}
