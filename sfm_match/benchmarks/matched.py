"""Images of a data set in the size of a protocol, and what is found in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfm_match.benchmarks.resizing import Size, parse_resize
from sfm_match.benchmarks.settings import Interpolation
from sfm_match.io.exif import ImageHeader
from sfm_match.stages.pair_stores import PairReader, PairStores, fill_pair_stores
from sfm_match.stages.progress import Progress
from sfm_match.stages.recipe import Recipe
from sfm_match.stages.scan import Resize, Sources, scan
from sfm_match.types import ArrayF64, Correspondences, Pair


@dataclass(frozen=True)
class Machine:
    """What does the work.

    Attributes:
        device: the torch device.
        threads: how many processor cores to use.
        progress: shows the progress.
    """

    device: str
    threads: int
    progress: Progress


@dataclass(frozen=True)
class Shown:
    """The images of a data set, as components see them.

    Attributes:
        sources: in the size of the protocol.
        headers: of the files, of those that could be read.
    """

    sources: Sources
    headers: dict[str, ImageHeader]

    def size(self, name: str) -> Size:
        """Return width and height in which an image is shown."""
        header = self.sources.images[name].header
        return header.width, header.height

    def file_size(self, name: str) -> Size:
        """Return width and height of an image's file."""
        return self.headers[name].width, self.headers[name].height


def show_images(
    root: Path, names: Collection[str], resize: str, interpolation: Interpolation
) -> Shown:
    """Look at the images of a data set and decide in which size they are shown.

    Raises:
        ConfigError: there is no such rule of resizing.
    """
    new_size, sources = parse_resize(resize), scan(root, None, sorted(set(names)))
    shown = {}
    for name, source in sources.images.items():
        size = source.header.width, source.header.height
        wanted = new_size(size)
        resized = source.with_size(Resize(*wanted, interpolation)) if wanted != size else source
        shown[name] = resized
    headers = {name: source.header for name, source in sources.images.items()}
    return Shown(Sources(shown, sources.failures), headers)


@dataclass(frozen=True)
class Matched:
    """What was found in the pairs of a data set.

    Attributes:
        shown: the images.
        stores: what was found in them.
        reader: reads it.
    """

    shown: Shown
    stores: PairStores
    reader: PairReader


def match_images(
    folder: Path,
    root: Path,
    pairs: Iterable[tuple[str, str]],
    shown: Shown,
    recipe: Recipe,
    machine: Machine,
) -> Matched:
    """Extract and match what the stores below a folder do not hold yet.

    Raises:
        ConfigError: no image can be used.
    """
    stores = fill_pair_stores(
        folder,
        list(dict.fromkeys(Pair.of(*names) for names in pairs)),
        shown.sources,
        recipe,
        machine.device,
        machine.threads,
        machine.progress,
        where=str(root),
        anchors=True,
    )
    return Matched(shown, stores, PairReader(stores))


def scale_to(size: Size, new: Size) -> ArrayF64:
    """Return new over old width and height, float64 (2,)."""
    return np.asarray(new, np.float64) / np.asarray(size, np.float64)


def best_matches(found: Correspondences, num: int) -> Correspondences:
    """Return the matches of the highest score, so many at most; all if `num` is 0."""
    if not 0 < num < len(found):
        return found
    rows = np.sort(np.argsort(-found.scores, kind="stable")[:num])
    return Correspondences(found.points0[rows], found.points1[rows], found.scores[rows])
