"""What is common to the methods that know where some of the images are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sfm_match.io.pairs import PairList
from sfm_match.stages.pairs.config import Config
from sfm_match.types import Pair


def pairs_of_rows(names: Sequence[str], rows: npt.NDArray[np.int64]) -> list[Pair]:
    """Return the pairs of rows (M, 2) of names, each once, sorted."""
    return sorted({Pair.of(names[i], names[j]) for i, j in rows.tolist()})


def with_unplaced(
    placed: list[Pair], names: Sequence[str], unplaced: Sequence[str], why: str, config: Config
) -> PairList:
    """Return the pairs, and those of the images that have no place, if they are wanted.

    Args:
        placed: the pairs of those that have one.
        names: all images.
        unplaced: those that have none.
        why: what they lack, such as "are not in the model".
        config: whether they are paired.
    """
    if not unplaced:
        return PairList(placed)
    pairs = dict.fromkeys(placed)
    fate = "no pairs of them (pairs.unplaced=exhaustive pairs them with every image)"
    if config.unplaced == "exhaustive":
        fate = "they are paired with every image"
        pairs |= dict.fromkeys(Pair.of(a, b) for a in unplaced for b in names if a != b)
    problem = f"{len(unplaced)} of {len(names)} images {why}, such as {unplaced[0]!r}: {fate}"
    return PairList(list(pairs), [problem])
