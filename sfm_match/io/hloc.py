"""The HDF5 files of hloc (Sarlin et al., "From Coarse to Fine", CVPR 2019): features and matches.

Layout::

    <image name>/keypoints           (N, 2), x and y with pixel centres at integers; attribute
                                     uncertainty: the noise of the keypoints in pixels
    <image name>/descriptors         (D, N)
    <image name>/scores              (N,), keypoint_scores from some of its extractors
    <image name>/image_size          (2,), width and height
    <image name>/scales, oris        (N,), where there are some; oris in degrees

    <key 0>/<key 1>/matches0         (N0,), rows of image 1, or -1
    <key 0>/<key 1>/matching_scores0 (N0,)

A slash in an image name nests groups; a key is the name with ``-`` for each slash. hloc itself
mostly writes float16 and int16, which are too coarse for coordinates from 1024 on and too small for
rows from 32768 on; here they are float32 and int32, which its readers take as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import h5py
import numpy as np

from sfm_match.io.columns import Array
from sfm_match.spec import ConfigError
from sfm_match.types import ArrayF32, ArrayI32, Features, Matches, Pair

_CENTRE = 0.5  # where hloc's origin, the centre of the first pixel, lies in ours
# hloc multiplies its thresholds by it. Its extractors say 1 pixel of the image they ran on; what
# they ran on is not known here, so it is 1 pixel of the full-size image.
_UNCERTAINTY = 1.0
_SCORE_NAMES = ("scores", "keypoint_scores", "score")
_OLD_SEPARATOR = "_"
_UTF8_NAME = re.compile("[^\ud800-\udfff]+")  # surrogates stand for bytes that are no UTF-8


def check_hloc_names(names: Iterable[str]) -> None:
    """Raise ConfigError for a name that HDF5 cannot hold, or two that hloc cannot tell apart."""
    name_of: dict[str, str] = {}
    for name in names:
        if not _UTF8_NAME.fullmatch(name):
            raise ConfigError(
                f"hloc's files cannot hold the name {name!r}, whose bytes are not UTF-8: rename "
                "the image"
            )
        other = name_of.setdefault(_key(name), name)
        if other != name:
            raise ConfigError(
                f"hloc cannot tell {other!r} from {name!r}: both are {_key(name)!r} in its file of "
                "matches; rename one of the images"
            )


def _key(name: str) -> str:
    return name.replace("/", "-")


def write_hloc_features(path: Path, features: Iterable[tuple[str, Features]]) -> dict[str, int]:
    """Write a new file of features and return the number of keypoints of each image."""
    num_keypoints = {}
    with h5py.File(path, "w", libver="latest") as file:
        for name, item in features:
            group = file.create_group(name)
            centred = item.keypoints.astype(np.float64) - _CENTRE
            keypoints = group.create_dataset("keypoints", data=centred.astype(np.float32))
            keypoints.attrs["uncertainty"] = _UNCERTAINTY
            group.create_dataset("descriptors", data=np.ascontiguousarray(item.descriptors.T))
            group.create_dataset("scores", data=item.scores)
            group.create_dataset("image_size", data=item.image_size)
            if item.scales is not None:
                group.create_dataset("scales", data=item.scales)
            if item.orientations is not None:
                group.create_dataset("oris", data=np.rad2deg(item.orientations))
            num_keypoints[name] = len(item)
    return num_keypoints


def write_hloc_matches(
    path: Path, matches: Iterable[tuple[Pair, Matches]], num_keypoints: Mapping[str, int]
) -> int:
    """Write a new file of matches.

    hloc has room for one match per keypoint of the first image: the best one is written.

    Args:
        path: the file.
        matches: the matches of each pair.
        num_keypoints: the number of keypoints of each image.

    Returns:
        how many matches there was no room for.
    """
    num_left_out = 0
    with h5py.File(path, "w", libver="latest") as file:
        for pair, item in matches:
            best_first = np.argsort(-item.scores, kind="stable")
            rows, first = np.unique(item.indices[best_first, 0], return_index=True)
            chosen = best_first[first]
            matches0 = np.full(num_keypoints[pair.a], -1, np.int32)
            matches0[rows] = item.indices[chosen, 1]
            scores0 = np.zeros(num_keypoints[pair.a], np.float32)
            scores0[rows] = item.scores[chosen]
            group = file.create_group(f"{_key(pair.a)}/{_key(pair.b)}")
            group.create_dataset("matches0", data=matches0)
            group.create_dataset("matching_scores0", data=scores0)
            num_left_out += len(item) - len(rows)
    return num_left_out


def list_hloc_images(path: Path) -> list[str]:
    """Return the sorted names of the images in a file of features.

    Raises:
        ConfigError: the file cannot be read.
    """
    names: list[str] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and name.endswith("/keypoints"):
            names.append(name.removesuffix("/keypoints"))

    with _open(path) as file:
        file.visititems(visit)
    return sorted(names)


def read_hloc_features(path: Path, name: str, image_size: ArrayI32 | None = None) -> Features:
    """Read the features of an image, in corner-origin pixels.

    Scores that are not there are ones, descriptors that are not there have no columns (as in the
    features that hloc makes of dense matches). Descriptors stay float16 if they are.

    Args:
        path: a file of features of hloc.
        name: the image, relative to the folder of images that hloc was given.
        image_size: int32 (2,), width and height, for files that do not say.

    Raises:
        ConfigError: the file cannot be read, or has no such image, or not all of its features.
    """
    with _open(path) as file:
        if f"{name}/keypoints" not in file:
            raise ConfigError(
                f"{path} holds no features of {name!r}: names are relative to the folder of images "
                "that hloc was given"
            )
        arrays = {key: item[()] for key, item in file[name].items() if hasattr(item, "dtype")}
    size = arrays.get("image_size", image_size)
    if size is None:
        raise ConfigError(f"{path} does not say how large {name!r} is: pass image_size")
    num = len(arrays["keypoints"])
    scores = next((arrays[key] for key in _SCORE_NAMES if key in arrays), np.ones(num))
    descriptors = arrays.get("descriptors", np.zeros((0, num))).T
    wide = descriptors.dtype != np.float16
    try:
        return Features(
            # float16 has no room for the half pixel: first convert, then add.
            keypoints=_float32(arrays["keypoints"].astype(np.float64) + _CENTRE),
            scores=_float32(scores),
            descriptors=_float32(descriptors) if wide else np.ascontiguousarray(descriptors),
            image_size=np.asarray(size).astype(np.int32),
            scales=_float32(arrays["scales"]) if "scales" in arrays else None,
            orientations=_float32(np.deg2rad(arrays["oris"].astype(np.float64)))
            if "oris" in arrays
            else None,
        )
    except ValueError as error:
        raise ConfigError(f"{path}: the features of {name!r} are damaged: {error}") from error


def _float32(array: Array) -> ArrayF32:
    return np.ascontiguousarray(array, np.float32)


def read_hloc_matches(path: Path, pair: Pair) -> Matches:
    """Read the matches of a pair, whichever way round they are; missing scores are ones.

    Raises:
        ConfigError: the file cannot be read, or holds no matches of the pair.
    """
    with _open(path) as file:
        for separator, flip in product(("/", _OLD_SEPARATOR), (False, True)):
            names = (pair.b, pair.a) if flip else (pair.a, pair.b)
            key = separator.join(map(_key, names))
            # An image of that very name has a group too, but no matches in it.
            if f"{key}/matches0" in file:
                matches0 = file[key]["matches0"][()].astype(np.int32)
                scores0 = file[key].get("matching_scores0", np.ones(len(matches0)))[()]
                break
        else:
            raise ConfigError(
                f"{path} holds no matches of {pair.a!r} and {pair.b!r}: names are relative to the "
                "folder of images that hloc was given"
            )
    (rows,) = np.nonzero(matches0 != -1)
    indices = np.column_stack([rows, matches0[rows]]).astype(np.int32)
    found = Matches(indices=indices, scores=_float32(scores0[rows]))
    return found.flipped() if flip else found


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as a file of hloc: {error}") from error
    with file:
        yield file
