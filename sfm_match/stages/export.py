"""Features and matches -> the files of other tools."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sfm_match.io.colmap_text import (
    check_colmap_names,
    write_colmap_features,
    write_colmap_matches,
)
from sfm_match.io.files import publish
from sfm_match.io.hloc import check_hloc_names, write_hloc_features, write_hloc_matches
from sfm_match.io.store import Entry, Store
from sfm_match.spec import ConfigError, nearest
from sfm_match.stages.match import match_digest
from sfm_match.types import Features, Matches, Pair

_PAIRS_AT_ONCE = 4096

logger = logging.getLogger(__name__)


def export(
    fmt: str,
    target: Path,
    digests: Mapping[str, bytes],
    pairs: Sequence[Pair],
    features: Store[Features],
    matches: Store[Matches],
) -> list[Path]:
    """Write the features and matches of a run in the layout of another tool.

    `hloc`: `features.h5` and `matches.h5` (see `io.hloc`). `colmap-text`: the folder `features`
    with a file for each image, and `matches.txt` (see `io.colmap_text`). Older ones are replaced
    only when all new ones are complete, so that features and matches belong together.

    Args:
        fmt: `hloc` or `colmap-text`.
        target: the folder to write to; it is made if need be.
        digests: the digest of each image.
        pairs: the pairs, all of them matched.
        features: where the features are.
        matches: where the matches are.

    Returns:
        what was written.

    Raises:
        ConfigError: there is no such format; it has no room for the name of an image; the stores do
            not hold everything; or something is in the way that was not exported.
    """
    if fmt not in _FORMATS:
        raise ConfigError(f"no export format {fmt!r}; {nearest(fmt, _FORMATS)}")
    check, write = _FORMATS[fmt]
    check(target, digests, pairs)
    _check_complete("features", features, list(digests.items()))
    _check_complete("matches", matches, [(p, match_digest(p, digests)) for p in pairs])
    target.mkdir(parents=True, exist_ok=True)
    # In the target, so that what is complete only needs to be renamed.
    staging = target / f".{uuid.uuid4().hex[:12]}.partial"
    staging.mkdir()
    try:
        write(staging, _features(digests, features), _matches(digests, pairs, matches))
        return [_put(path, target / path.name) for path in sorted(staging.iterdir())]
    finally:
        shutil.rmtree(staging)


def _check_complete(
    what: str, store: Store[Features] | Store[Matches], entries: Sequence[Entry]
) -> None:
    missing = store.missing(entries)
    if missing:
        raise ConfigError(
            f"{store.folder} has no current {what} for {len(missing)} of {len(entries)}, such as "
            f"{missing[0][0]!r}: run again to complete it"
        )


def _features(
    digests: Mapping[str, bytes], store: Store[Features]
) -> Iterator[tuple[str, Features]]:
    for name, item in store.items(list(digests.items())):
        assert isinstance(name, str)
        yield name, item


def _matches(
    digests: Mapping[str, bytes], pairs: Sequence[Pair], store: Store[Matches]
) -> Iterator[tuple[Pair, Matches]]:
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = pairs[start : start + _PAIRS_AT_ONCE]
        for pair, item in store.items([(p, match_digest(p, digests)) for p in some]):
            assert isinstance(pair, Pair)
            yield pair, item


def _put(made: Path, path: Path) -> Path:
    if made.is_dir() and path.is_dir():
        path.replace(made.with_name(f"old {made.name}"))
    publish(made, path)
    return path


def _check_hloc(target: Path, names: Collection[str], pairs: Sequence[Pair]) -> None:
    check_hloc_names(names)


def _write_hloc(
    folder: Path,
    features: Iterable[tuple[str, Features]],
    matches: Iterable[tuple[Pair, Matches]],
) -> None:
    num_keypoints = write_hloc_features(folder / "features.h5", features)
    num_left_out = write_hloc_matches(folder / "matches.h5", matches, num_keypoints)
    if num_left_out:
        logger.warning(
            "hloc has room for one match of each keypoint of the first image: %d others are left "
            "out",
            num_left_out,
        )


def _check_colmap_text(target: Path, names: Collection[str], pairs: Sequence[Pair]) -> None:
    check_colmap_names(name for pair in pairs for name in (pair.a, pair.b))
    folder = target / "features"
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".txt":
            raise ConfigError(
                f"{folder} holds {path.name!r}, so it is not an older export that can be replaced: "
                "choose another folder to export to"
            )


def _write_colmap_text(
    folder: Path,
    features: Iterable[tuple[str, Features]],
    matches: Iterable[tuple[Pair, Matches]],
) -> None:
    (folder / "features").mkdir()
    zeroed = write_colmap_features(folder / "features", features)
    write_colmap_matches(folder / "matches.txt", matches)
    if zeroed:
        logger.warning(
            "COLMAP's text files hold SIFT descriptors only: those of %d images, such as %r, are "
            "written as zeros; import matches.txt, do not let COLMAP match again",
            len(zeroed),
            zeroed[0],
        )


_Check = Callable[[Path, Collection[str], Sequence[Pair]], None]
_Write = Callable[
    [Path, Iterable[tuple[str, Features]], Iterable[tuple[Pair, Matches]]],
    None,
]
_FORMATS: Mapping[str, tuple[_Check, _Write]] = {
    "hloc": (_check_hloc, _write_hloc),
    "colmap-text": (_check_colmap_text, _write_colmap_text),
}
