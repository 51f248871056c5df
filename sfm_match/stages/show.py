"""What the stores of an output folder hold of one image or of a pair, in upright pictures."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.geometry import poses
from sfm_match.geometry.epipolar import epipolar_line_distances, essential_from_pose
from sfm_match.io.model import read_model
from sfm_match.io.store import Store
from sfm_match.models.dense import DenseMaps
from sfm_match.spec import ConfigError
from sfm_match.stages.evaluate import poses_by_name
from sfm_match.stages.match import match_digest
from sfm_match.stages.pair_truth import PairTruth, TruePair
from sfm_match.stages.tracks import read_track_digests, tracks_digest
from sfm_match.stages.verify import verify_digest
from sfm_match.stages.views import Placement, load_upright
from sfm_match.stages.workspace import Workspace
from sfm_match.types import ArrayBool, ArrayF32, ArrayF64, Correspondences, Image, Pair

_NUM_NAMES_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Shown:
    """One image and its keypoints.

    Attributes:
        image: uint8 (H, W, 3), turned upright.
        placement: how it lies in its file.
        points: float32 (N, 2), its keypoints in the upright picture; none where a detector-free
            matcher's correspondences have not become tracks.
        scores: float32 (N,).
    """

    image: Image
    placement: Placement
    points: ArrayF32
    scores: ArrayF32


@dataclass(frozen=True, eq=False)
class ShownPair:
    """The matches of two images, in the order in which they were asked for.

    Attributes:
        images: both.
        points0: float32 (M, 2), in the first upright picture.
        points1: float32 (M, 2), in the second one.
        scores: float32 (M,).
        inliers: bool (M,), None where the pair has not been verified with this recipe.
        errors: float64 (M,), distances in pixels of the files from the true epipolar lines, the
            larger of both images'; None where the truth is not known.
    """

    images: tuple[Shown, Shown]
    points0: ArrayF32
    points1: ArrayF32
    scores: ArrayF32
    inliers: ArrayBool | None
    errors: ArrayF64 | None


def show_image(space: Workspace, name: str) -> Shown:
    """Read an image and its keypoints.

    Raises:
        ConfigError: there is no image of that name, or it has no features of this recipe.
        ImageError: it cannot be read.
    """
    check_name(space, name)
    image, placement = load_upright(space.sources.images[name])
    digests = _digests(space)
    if digests is None:
        return Shown(image, placement, np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
    if name not in digests:
        raise ConfigError(f"{name}: has no features of this recipe; extract first")
    keypoints, scores = _keypoints(space, name, digests[name])
    return Shown(image, placement, placement.in_upright(keypoints), scores)


def show_pair(space: Workspace, name0: str, name1: str, truth: Path | None = None) -> ShownPair:
    """Read a pair's matches: of features, of tracks, or else a detector-free matcher's own.

    Args:
        space: the output folder.
        name0: an image.
        name1: another one.
        truth: a COLMAP model with the true poses of both.

    Raises:
        ConfigError: there is no image of one of the names, or the pair has not been matched, or
            the truth is not one of these images.
        ImageError: an image cannot be read.
        ModelError: the truth cannot be read.
        FileNotFoundError: a part of the truth is missing.
    """
    for name in (name0, name1):
        check_name(space, name)
    if name0 == name1:
        raise ConfigError(f"{name0}: a pair has two different images; give one name for one image")
    images = show_image(space, name0), show_image(space, name1)
    pair = Pair.of(name0, name1)
    found, inliers = _read_pair(space, pair)
    if pair.a != name0:
        found = found.flipped()
    errors = None
    if truth is not None:
        errors = _epipolar_errors(_true_pair(space, truth, (name0, name1)), found)
    return ShownPair(
        images,
        images[0].placement.in_upright(found.points0),
        images[1].placement.in_upright(found.points1),
        found.scores,
        inliers,
        errors,
    )


def show_dense(space: Workspace, image: Image, device: str) -> DenseMaps | None:
    """Return what the recipe's extractor says of all pixels; None where it says nothing."""
    if space.recipe.features is None:
        return None
    dense = getattr(space.recipe.features.build(device), "dense", None)
    found: DenseMaps | None = None if dense is None else dense(image)
    return found


def check_name(space: Workspace, name: str) -> None:
    """Raise unless there is an image of that name.

    Raises:
        ConfigError: there is none, the nearest names are offered; or it cannot be used.
    """
    sources = space.sources
    if name in sources.failures:
        raise ConfigError(f"{name}: is left out: {sources.failures[name]}")
    if name not in sources.images:
        raise ConfigError(
            f"no image named {name!r} in {space.images}; {_offer(name, sources.images)}"
        )


def _offer(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"there are {_some(names)}"


def _some(names: list[str]) -> str:
    rest = len(names) - _NUM_NAMES_SHOWN
    return ", ".join(names[:_NUM_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _digests(space: Workspace) -> dict[str, bytes] | None:
    """Return the digests of the images' features; None where correspondences are not yet tracks."""
    if space.recipe.tracks is None:
        return space.image_digests()
    return read_track_digests(space.features, tracks_digest(*space.to_track()))


def _read_pair(space: Workspace, pair: Pair) -> tuple[Correspondences, ArrayBool | None]:
    """Return the matched points of a pair in the files' rasters, and which are inliers."""
    digests = _digests(space)
    if digests is None:
        return _read_correspondences(space, pair), None
    if not digests.keys() >= {pair.a, pair.b} or (
        (pair, match_digest(pair, digests)) not in space.matches
    ):
        raise ConfigError(_unmatched(space.matches, pair))
    found = space.matches.read(pair, match_digest(pair, digests))
    points = [
        _keypoints(space, name, digests[name])[0][rows]
        for name, rows in zip((pair.a, pair.b), found.indices.T, strict=True)
    ]
    verified = pair, verify_digest(pair, digests, space.cameras)
    inliers = space.two_views.read(*verified).inliers if verified in space.two_views else None
    return Correspondences(points[0], points[1], found.scores), inliers


def _read_correspondences(space: Workspace, pair: Pair) -> Correspondences:
    """Return what a detector-free matcher found in a pair, refined where that is done."""
    entry = pair, match_digest(pair, space.image_digests())
    stores = [store for store in (space.refined, space.correspondences) if store is not None]
    for store in stores:
        if entry in store:
            return store.read(*entry)
    raise ConfigError(_unmatched(stores[-1], pair))


def _keypoints(space: Workspace, name: str, digest: bytes) -> tuple[ArrayF32, ArrayF32]:
    """Return keypoints (N, 2) in the file's raster and their scores (N,)."""
    columns = ("keypoints", "scores")
    ((_, arrays),) = space.features.arrays([(name, digest)], columns=columns)
    keypoints, scores = (arrays[column] for column in columns)
    assert keypoints is not None
    assert scores is not None
    return keypoints, scores


def _unmatched(store: Store[Any], pair: Pair) -> str:
    text = f"{pair.a} and {pair.b} have not been matched with this recipe"
    for name in (pair.a, pair.b):
        pairs = [key for key, _ in store.entries() if isinstance(key, Pair)]
        others = {p.b if p.a == name else p.a for p in pairs if name in (p.a, p.b)}
        if others:
            text += f"; {name} has with {_some(sorted(others))}"
    return text


def _true_pair(space: Workspace, truth: Path, names: tuple[str, str]) -> TruePair:
    """Return the true cameras and relative pose of two images."""
    model = read_model(truth)
    found = poses_by_name(model, truth)
    for name in names:
        if name not in found:
            raise ConfigError(f"{truth}: has no pose of {name}; {_offer(name, found)}")
    camera_of = {image.name: model.cameras[image.camera_id] for image in model.images.values()}
    pair = TruePair(
        names,
        (camera_of[names[0]], camera_of[names[1]]),
        poses.relative_pose(found[names[0]], found[names[1]]),
    )
    headers = {name: space.sources.images[name].header for name in names}
    return PairTruth(truth, (pair,), {}).fitted(headers).pairs[0]


def _epipolar_errors(pair: TruePair, found: Correspondences) -> ArrayF64:
    """Return how far matches lie from the true epipolar lines, in pixels; infinite for no line."""
    rays = [
        np.asarray(camera.cam_from_img(points.astype(np.float64)), np.float64).reshape(-1, 2)
        for camera, points in zip(pair.cameras, (found.points0, found.points1), strict=True)
    ]
    E = essential_from_pose(pair.cam1_from_cam0)
    distances = epipolar_line_distances(rays[0], rays[1], E)
    focals = [camera.mean_focal_length() for camera in pair.cameras]
    larger = np.maximum(distances[0] * focals[0], distances[1] * focals[1])
    return np.where(np.isfinite(larger), larger, np.inf)
