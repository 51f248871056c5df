"""COLMAP's text import: features (`feature_importer`) and matches (`matches_importer`).

Features, one file ``<image name>.txt`` for each image::

    N 128
    x y scale orientation d0 ... d127      (N lines)

x and y are in corner-origin pixels, orientations in radians, descriptors bytes. Matches::

    name0 name1
    row0 row1                              (M lines)
    <empty line>                           (after each pair)

COLMAP takes descriptors of 128 bytes only, which are SIFT's. Those that are such bytes divided by
512, as the `sift` extractor gives them, are written exactly. All others are written as zeros,
rather than as something that looks like SIFT and is not: their matches have to be imported, not
found again by COLMAP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sfm_match.io.columns import Array
from sfm_match.io.files import fsync
from sfm_match.spec import ConfigError
from sfm_match.types import Features, Matches, Pair

_DIM = 128
_DESCRIPTOR_NORM = 512.0
_SPACE = re.compile(r"[ \t\n\v\f\r]")
# " 0" to " 255", padded to four bytes with NUL: rows are looked up and joined as arrays of bytes.
_BYTE_TEXTS = np.array([b" %d" % i for i in range(256)], "S4").view(np.uint8).reshape(256, 4)


def check_colmap_names(names: Iterable[str]) -> None:
    """Raise ConfigError for names that COLMAP could not read in a list of matches."""
    for name in names:
        if _SPACE.search(name):
            raise ConfigError(
                f"COLMAP's list of matches cannot hold the name {name!r}: it ends names at white "
                "space; rename the image, or use the database that a run writes"
            )


def sift_bytes(descriptors: Array) -> npt.NDArray[np.uint8] | None:
    """Return descriptors as uint8 (N, 128), or None unless all are bytes divided by 512."""
    scaled = descriptors.astype(np.float32) * np.float32(_DESCRIPTOR_NORM)
    fits = (scaled >= 0) & (scaled <= 255) & (scaled == np.rint(scaled))
    return scaled.astype(np.uint8) if descriptors.shape[1] == _DIM and fits.all() else None


def write_colmap_features(folder: Path, features: Iterable[tuple[str, Features]]) -> list[str]:
    """Write one file for each image into a folder.

    A missing scale is 1, a missing orientation 0.

    Returns:
        the images whose descriptors are written as zeros (see the module).
    """
    zeroed = []
    for name, item in features:
        descriptors = sift_bytes(item.descriptors)
        if descriptors is None:
            descriptors = np.zeros((len(item), _DIM), np.uint8)
            zeroed.append(name)
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_features_text(item, descriptors))
        fsync(path)
    return zeroed


def _features_text(item: Features, descriptors: npt.NDArray[np.uint8]) -> bytes:
    num = len(item)
    scales = np.ones(num) if item.scales is None else item.scales
    orientations = np.zeros(num) if item.orientations is None else item.orientations
    frames = np.column_stack([item.keypoints, scales, orientations]).tolist()
    # Nine digits tell any two float32 apart.
    texts = np.array([b"%.9g %.9g %.9g %.9g" % tuple(frame) for frame in frames], bytes)
    rows = [
        texts.view(np.uint8).reshape(num, texts.itemsize),
        _BYTE_TEXTS[descriptors].reshape(num, 4 * _DIM),
        np.full((num, 1), ord("\n"), np.uint8),
    ]
    return b"%d %d\n" % (num, _DIM) + np.hstack(rows).tobytes().translate(None, b"\0")


def write_colmap_matches(path: Path, matches: Iterable[tuple[Pair, Matches]]) -> None:
    """Write a list of matches, pairs without a match included.

    The names have to pass `check_colmap_names`.
    """
    with path.open("wb") as file:
        for pair, item in matches:
            file.write(f"{pair.a} {pair.b}\n".encode("utf-8", "surrogateescape"))
            file.write(b"%d %d\n" * len(item) % tuple(item.indices.ravel().tolist()))
            file.write(b"\n")
