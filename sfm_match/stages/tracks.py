"""Correspondences -> features and matches that images share.

What comes out for one image may depend on all pairs, so a change of any of them has the tracks
found anew. But items carry the digest of their own content: what comes out the same is the same
item, and what follows from it is not done again. A file beside the features, for each state of the
correspondences, says which digest each image has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.geometry.tracks import Observed, TrackOptions, Tracks, find_tracks
from sfm_match.io.database import content_digest
from sfm_match.io.exif import ImageHeader
from sfm_match.io.files import write_text
from sfm_match.io.store import Store
from sfm_match.spec import Spec, config_dict, parse_config
from sfm_match.stages.match import match_digest
from sfm_match.stages.scan import Source
from sfm_match.types import ArrayF32, Correspondences, Features, Matches, Pair

VERSION = 1


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """The table `[tracks]`, for matchers that find correspondences in place of matching features.

    Attributes:
        radius: in pixels; what different pairs find nearer than that is one keypoint. Three to four
            times the error of what they find is best: less tears keypoints, more blurs them.
        anchor: let keypoints of the recipe's features take what is found around them; what is
            found elsewhere becomes keypoints of its own.
        anchor_radius: in pixels; how far around them.
        min_length: drop tracks of fewer images.
        min_matches: drop keypoints with fewer matches. With 2, a match that no third image confirms
            is dropped: hardly any wrong one is left, but of a matcher that finds other points in
            each pair nothing is.
        min_confidence: drop tracks whose matches have a lower mean score.
        max_keypoints: keep so many of an image, evenly spread, long tracks first; 0 for all.
    """

    radius: Annotated[float, Field(gt=0)] = 2.0
    anchor: bool = False
    anchor_radius: Annotated[float, Field(ge=0)] = 3.0
    min_length: Annotated[int, Field(ge=2)] = 2
    min_matches: PositiveInt = 1
    min_confidence: float = 0.0
    max_keypoints: NonNegativeInt = 8192


@dataclass(frozen=True)
class TracksReport:
    """What the making of tracks did.

    Attributes:
        correspondences: of all pairs.
        keypoints: of all images.
        tracks: how many there are.
        mean_length: the mean number of images of a track.
        matches: of all pairs.
        reused: whether they were there already.
    """

    correspondences: int
    keypoints: int
    tracks: int
    mean_length: float
    matches: int
    reused: bool = False


def tracks_spec(options: Mapping[str, Any], matcher: Spec, features: Spec | None) -> Spec:
    """Return the spec of the tracks from the table `[tracks]`.

    Args:
        options: the table.
        matcher: what finds the correspondences.
        features: the extractor, if its keypoints are anchors.

    Raises:
        ConfigError: an option does not exist or is wrong.
    """
    config = config_dict(parse_config(Config, options, "tracks"))
    inputs = (matcher, features) if features is not None and config["anchor"] else (matcher,)
    return Spec("stages", "tracks", VERSION, config, inputs)


def tracks_digest(digests: Mapping[str, bytes], pairs: Sequence[Pair]) -> str:
    """Return the digest of all that the tracks of some images and pairs are made from."""
    parts = [b"%s %s" % (name.encode(), digests[name]) for name in sorted(digests)]
    parts += [f"{pair.a}\n{pair.b}".encode() for pair in sorted(pairs)]
    return content_digest(parts)


def read_track_digests(features: Store[Features], made_from: str) -> dict[str, bytes] | None:
    """Return the digest of each image's features, or None where there are none made from that."""
    index = _read_index(features.folder, made_from)
    return None if index is None else _digests(index)


def _read_index(folder: Path, made_from: str) -> dict[str, Any] | None:
    try:
        index: dict[str, Any] = json.loads(_index(folder, made_from).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return index


def _index(folder: Path, made_from: str) -> Path:
    return folder / f"tracks-{made_from}.json"


def _digests(index: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: bytes.fromhex(digest) for name, digest in index["images"].items()}


def make_tracks(
    pairs: Sequence[Pair],
    digests: Mapping[str, bytes],
    sources: Mapping[str, Source],
    spec: Spec,
    correspondences: Store[Correspondences],
    extracted: Store[Features] | None,
    features: Store[Features],
    matches: Store[Matches],
    *,
    progress: Callable[[int], object] | None = None,
) -> TracksReport:
    """Turn the correspondences of all pairs into features and matches, unless those are there.

    Args:
        pairs: the pairs, all of them matched.
        digests: the digest of each image; images without pairs get features without keypoints.
        sources: the images, for their sizes.
        spec: how tracks are made (see `tracks_spec`).
        correspondences: where the correspondences are.
        extracted: where the features are that are anchors, if any are.
        features: where the keypoints go, as features without descriptors.
        matches: where the matches go.
        progress: called with the number of images done since the last call.
    """
    made_from = tracks_digest(digests, pairs)
    index = _read_index(features.folder, made_from)
    if index is not None and _is_complete(_digests(index), pairs, features, matches):
        return TracksReport(**index["report"], reused=True)
    names, ordered = sorted(digests), sorted(pairs)
    observed = _observed(names, ordered, digests, correspondences)
    if extracted is not None and spec.config["anchor"]:
        observed = _anchored(observed, names, digests, extracted)
    config = {name: value for name, value in spec.config.items() if name != "anchor"}
    found = find_tracks(observed, len(names), TrackOptions(**config), progress)
    items = [_features(found, i, sources[name].header) for i, name in enumerate(names)]
    new = _content_digests(names, ordered, items, found)
    with features.writer() as writer:
        for name, item in zip(names, items, strict=True):
            if (name, new[name]) not in features:
                writer.add(name, new[name], item)
    with matches.writer() as match_writer:
        for i, pair in enumerate(ordered):
            if (pair, match_digest(pair, new)) not in matches:
                match_writer.add(pair, match_digest(pair, new), found.matches(i))
    report = _counts(observed, found)
    content = {
        "report": report,
        "images": {name: digest.hex() for name, digest in new.items()},
    }
    write_text(_index(features.folder, made_from), json.dumps(content, indent=1))
    return TracksReport(**report)


def _is_complete(
    digests: Mapping[str, bytes],
    pairs: Sequence[Pair],
    features: Store[Features],
    matches: Store[Matches],
) -> bool:
    return not features.missing(digests.items()) and not matches.missing(
        (pair, match_digest(pair, digests)) for pair in pairs
    )


def _observed(
    names: Sequence[str],
    pairs: Sequence[Pair],
    digests: Mapping[str, bytes],
    store: Store[Correspondences],
) -> Observed:
    """Read the scores of all correspondences; their points are read when their image's turn is."""
    number = {name: i for i, name in enumerate(names)}
    ends = np.array([(number[p.a], number[p.b]) for p in pairs], np.int32).reshape(-1, 2)
    entries = [(pair, match_digest(pair, digests)) for pair in pairs]

    def column(name: str, rows: Sequence[int]) -> list[ArrayF32]:
        read = dict(store.arrays([entries[row] for row in rows], columns=(name,)))
        return [read[pairs[row]][name] for row in rows]  # type: ignore[misc]

    def points(image: int) -> ArrayF32:
        rows, sides = np.nonzero(ends == image)
        parts: dict[int, ArrayF32] = {}
        for side in (0, 1):
            chosen = rows[sides == side].tolist()
            parts.update(zip(chosen, column(f"points{side}", chosen), strict=True))
        return np.concatenate([np.zeros((0, 2), np.float32), *(parts[int(row)] for row in rows)])

    scores = column("scores", range(len(pairs)))
    return Observed(
        ends=ends,
        offsets=np.cumsum([0, *map(len, scores)], dtype=np.int64),
        scores=np.concatenate([np.zeros(0, np.float32), *scores]),
        points=points,
    )


def _anchored(
    observed: Observed, names: Sequence[str], digests: Mapping[str, bytes], store: Store[Features]
) -> Observed:
    def anchors(image: int) -> ArrayF32:
        entry = (names[image], digests[names[image]])
        ((_, arrays),) = store.arrays([entry], columns=("keypoints",))
        keypoints = arrays["keypoints"]
        assert keypoints is not None
        return keypoints

    return Observed(observed.ends, observed.offsets, observed.scores, observed.points, anchors)


def _features(found: Tracks, image: int, header: ImageHeader) -> Features:
    keypoints = found.keypoints[image]
    return Features(
        keypoints=keypoints,
        scores=found.scores[image],
        descriptors=np.zeros((len(keypoints), 0), np.float32),
        image_size=np.array([header.width, header.height], np.int32),
    )


def _content_digests(
    names: Sequence[str], pairs: Sequence[Pair], items: Sequence[Features], found: Tracks
) -> dict[str, bytes]:
    """Return for each image the digest of its keypoints and of all its matches.

    So the digests of two images say what their matches are, as those of images do elsewhere.
    """
    sums = {name: hashlib.sha256() for name in names}
    for name, item in zip(names, items, strict=True):
        for part in (item.keypoints, item.scores, item.image_size):
            sums[name].update(part.tobytes())
    for i, pair in enumerate(pairs):
        matches = found.matches(i)
        content = matches.indices.tobytes() + matches.scores.tobytes()
        of_pair = hashlib.sha256(f"{pair.a}\n{pair.b}\n".encode() + content).digest()
        sums[pair.a].update(of_pair)
        sums[pair.b].update(of_pair)
    return {name: value.digest() for name, value in sums.items()}


def _counts(observed: Observed, found: Tracks) -> dict[str, Any]:
    keypoints = sum(map(len, found.keypoints))
    num = len(np.unique(np.concatenate([np.zeros(0, np.int32), *found.tracks])))
    return {
        "correspondences": len(observed.scores),
        "keypoints": keypoints,
        "tracks": num,
        "mean_length": keypoints / num if num else 0.0,
        "matches": len(found.indices),
    }
