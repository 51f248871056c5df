"""The pairs of all methods that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations, starmap
from pathlib import Path

from sfm_match.io.pairs import PairList, read_pairs
from sfm_match.spec import ConfigError
from sfm_match.stages.pairs.config import Config
from sfm_match.stages.pairs.images import ImageSet
from sfm_match.stages.pairs.model import covisibility, poses
from sfm_match.stages.pairs.retrieval import retrieval
from sfm_match.stages.pairs.sequence import sequential
from sfm_match.stages.pairs.spatial import spatial
from sfm_match.types import Pair

_READS_MODEL = ("covisibility", "poses")


@dataclass(frozen=True)
class Choice:
    """The pairs to match.

    Attributes:
        pairs: each pair once.
        counts: how many pairs each method chose; one that several chose counts for each.
        problems: what was wrong on the way to them, one message each.
    """

    pairs: list[Pair]
    counts: dict[str, int]
    problems: list[str]


def make_pairs(images: ImageSet, config: Config) -> Choice:
    """Choose the pairs of all methods.

    Args:
        images: the images, and what is known of them.
        config: which pairs.

    Raises:
        ConfigError: a list of pairs cannot be read; or a method lacks the list, the model or the
            features that it needs; or a list or a model is given that no method reads.
        FileNotFoundError, ModelError: the model is not there, or cannot be read.
    """
    _check_inputs(config)
    found = {name: _METHODS[name](images, config) for name in config.methods}
    return Choice(
        pairs=list(dict.fromkeys(pair for part in found.values() for pair in part.pairs)),
        counts={name: len(part.pairs) for name, part in found.items()},
        problems=[problem for part in found.values() for problem in part.problems],
    )


def _check_inputs(config: Config) -> None:
    """Raise where a list or a model is given that is not read, or is not given."""
    reads_model = [name for name in config.methods if name in _READS_MODEL]
    if config.path is not None and "file" not in config.methods:
        raise ConfigError(
            f"pairs.path is {str(config.path)!r}, but the method {config.method!r} reads no list "
            f"of pairs: pass -o pairs.method=file or {config.method}+file too, or leave the path "
            "out"
        )
    if config.model and not reads_model:
        raise ConfigError(
            f"pairs.model is {config.model!r}, but the method {config.method!r} reads no model: "
            "pass -o pairs.method=covisibility or poses too, or leave the model out"
        )
    if reads_model and not config.model:
        raise ConfigError(
            f"pairs.model: the method {reads_model[0]!r} needs a COLMAP model: pass "
            "-o pairs.model=FOLDER"
        )


def _exhaustive(images: ImageSet, config: Config) -> PairList:
    return PairList(list(starmap(Pair, combinations(sorted(set(images.names)), 2))))


def _from_file(images: ImageSet, config: Config) -> PairList:
    if config.path is None:
        raise ConfigError(
            "pairs.path: the method 'file' needs a list of pairs: pass -o pairs.path=FILE or "
            "--pairs FILE"
        )
    return read_pairs(Path(config.path), images.names)


_METHODS: Mapping[str, Callable[[ImageSet, Config], PairList]] = {
    "exhaustive": _exhaustive,
    "sequential": sequential,
    "retrieval": retrieval,
    "covisibility": covisibility,
    "poses": poses,
    "spatial": spatial,
    "file": _from_file,
}
