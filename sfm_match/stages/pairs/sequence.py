"""Pairs of images that are near each other in the order of their names, and closed loops."""

from __future__ import annotations

import re

import numpy as np
from scipy.ndimage import maximum_filter1d

from sfm_match.io.pairs import PairList
from sfm_match.stages.pairs.config import Config
from sfm_match.stages.pairs.images import ImageSet
from sfm_match.stages.pairs.retrieval import look_alikes
from sfm_match.types import ArrayF32, Pair

_DIGITS = re.compile(r"(\d+)")


def sequential(images: ImageSet, config: Config) -> PairList:
    """Pair each image with the ones that follow it, and with those of the same place."""
    ordered = sorted(set(images.names), key=_natural_key)
    distances = set(range(1, min(config.overlap, len(ordered)) + 1))
    if config.quadratic:
        distances |= {1 << i for i in range(min(config.overlap, len(ordered).bit_length()))}
    steps = sorted(d for d in distances if d < len(ordered))
    near = [
        Pair.of(name, ordered[i + step])
        for i, name in enumerate(ordered)
        for step in steps
        if i + step < len(ordered)
    ]
    loops = _loops(ordered, images, config) if config.loop_every else []
    return PairList(list(dict.fromkeys(near + loops)))


def _natural_key(name: str) -> tuple[list[str | int], str]:
    # Texts and numbers alternate, so that like is compared with like; the name itself decides
    # between img1 and img01.
    parts = _DIGITS.split(name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def _loops(ordered: list[str], images: ImageSet, config: Config) -> list[Pair]:
    """Return the pairs of every so many images with others of the same place.

    Of each stretch of images that look alike the one that looks most alike stands for all. So
    neither the images just outside the overlap nor one long stretch take all the room.
    """

    def elsewhere(row: int, similarity: ArrayF32) -> ArrayF32:
        size = 2 * min(config.overlap, len(ordered)) + 1
        peaks = similarity == maximum_filter1d(similarity, size, mode="nearest")
        own = slice(max(0, row - config.overlap), row + config.overlap + 1)
        peaks[own] = False
        return np.where(peaks, similarity, 0)

    rows = range(0, len(ordered), config.loop_every)
    found = look_alikes(ordered, images, config, rows, config.loop_neighbours, elsewhere)
    return [Pair.of(ordered[i], ordered[j]) for i, j in found]
