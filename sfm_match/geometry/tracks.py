"""Correspondences of all pairs -> keypoints that images share, and matches between them.

The observations of each image become keypoints (`tracks_clusters`), each pair's correspondences
matches between these, one for each keypoint; matches become tracks without two keypoints of one
image (`tracks_graph`). Short and doubtful tracks are dropped, and the rest can be thinned out
evenly (`tracks_cover`). The result depends on the correspondences only, not on their order or
that of the pairs.

One image's points are in memory at a time; the matches of all take some 80 bytes each at the peak.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sfm_match.geometry.tracks_clusters import cluster_points
from sfm_match.geometry.tracks_cover import turns
from sfm_match.geometry.tracks_graph import match_one_to_one, split_tracks
from sfm_match.types import ArrayBool, ArrayF32, ArrayI32, Correspondences, Matches, Pair

ArrayI64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrackOptions:
    """What becomes a track.

    Attributes:
        radius: pixels; observations of an image that are nearer are one keypoint.
        anchor_radius: pixels; observations that are nearer to an anchor are its.
        min_length: the fewest images of a track.
        min_matches: the fewest matches of a keypoint; with 2, what only one pair found is dropped.
        min_confidence: the least mean score of a track's matches.
        max_keypoints: the most of an image, evenly spread, long tracks first; 0 for all.
    """

    radius: float = 2.0
    anchor_radius: float = 3.0
    min_length: int = 2
    min_matches: int = 1
    min_confidence: float = 0.0
    max_keypoints: int = 0


@dataclass(frozen=True, eq=False)
class Observed:
    """Correspondences of many pairs, of which one image's points are read at a time.

    Attributes:
        ends: int32 (P, 2), the images of each pair; no two pairs alike.
        offsets: int64 (P + 1,), where each pair's correspondences begin.
        scores: float32 (M,), of all correspondences.
        points: gives the points in an image of all its pairs' correspondences, float32 (K, 2) x
            and y in pixels, those of the first pair of `ends` first.
        anchors: gives the keypoints of an image that are there already, float32 (A, 2), or None.
    """

    ends: ArrayI32
    offsets: ArrayI64
    scores: ArrayF32
    points: Callable[[int], ArrayF32]
    anchors: Callable[[int], ArrayF32] | None = None


@dataclass(frozen=True, eq=False)
class Tracks:
    """The keypoints that images share.

    Attributes:
        keypoints: float32 (N_i, 2) of each image, x and y in pixels.
        scores: float32 (N_i,) of each image: the sum of the scores of a keypoint's matches.
        tracks: int32 (N_i,) of each image: the number of the track.
        offsets: int64 (P + 1,), where each pair's matches begin.
        indices: int32 (M, 2), the keypoints of all matches; sorted within a pair.
        match_scores: float32 (M,).
    """

    keypoints: list[ArrayF32]
    scores: list[ArrayF32]
    tracks: list[ArrayI32]
    offsets: ArrayI64
    indices: ArrayI32
    match_scores: ArrayF32

    def matches(self, pair: int) -> Matches:
        """Return the matches of the pair of that number."""
        rows = slice(*self.offsets[pair : pair + 2].tolist())
        return Matches(self.indices[rows], self.match_scores[rows])


@dataclass(frozen=True, eq=False)
class _Graph:
    """Matches between keypoints that are numbered through all images."""

    offsets: ArrayI64
    nodes: tuple[ArrayI32, ArrayI32]
    scores: ArrayF32

    def take(self, keep: ArrayBool) -> _Graph:
        counts = np.concatenate([[0], np.cumsum(keep)])
        nodes = self.nodes[0][keep], self.nodes[1][keep]
        return _Graph(counts[self.offsets], nodes, self.scores[keep])


def find_tracks(
    observed: Observed,
    num_images: int,
    options: TrackOptions,
    progress: Callable[[int], object] | None = None,
) -> Tracks:
    """Turn the correspondences of all pairs into tracks.

    Args:
        observed: the correspondences; images are numbered from 0.
        num_images: how many there are.
        options: what becomes a track.
        progress: called with 1 for each image.
    """
    points, first, graph = _keypoints(observed, num_images, options, progress)
    graph = _one_to_one(graph, first[observed.ends])
    image_of_node = np.repeat(np.arange(num_images, dtype=np.int32), np.diff(first))
    track = split_tracks(*graph.nodes, graph.scores, image_of_node)
    graph = graph.take(track[graph.nodes[0]] == track[graph.nodes[1]])
    graph, track = _without_weak(graph, len(track), options)
    if options.max_keypoints:
        kept = _capped(graph, points, first, track, options.max_keypoints)
        graph = graph.take(kept[graph.nodes[0]] & kept[graph.nodes[1]])
        graph, track = _without_weak(graph, len(track), options)
    return _compact(graph, points, first, track)


def _keypoints(
    observed: Observed,
    num_images: int,
    options: TrackOptions,
    progress: Callable[[int], object] | None,
) -> tuple[ArrayF32, ArrayI64, _Graph]:
    """Return all images' keypoints, where each image's begin, and the correspondences of them."""
    nodes = tuple(np.empty(len(observed.scores), np.int32) for _ in range(2))
    centres: list[ArrayF32] = []
    first = np.zeros(num_images + 1, np.int64)
    for image in range(num_images):
        pairs, sides = np.nonzero(observed.ends == image)
        slots = [slice(*observed.offsets[pair : pair + 2].tolist()) for pair in pairs]
        weights = np.concatenate([observed.scores[:0], *(observed.scores[slot] for slot in slots)])
        anchors = None if observed.anchors is None else observed.anchors(image)
        found = cluster_points(
            observed.points(image), weights, options.radius, anchors, options.anchor_radius
        )
        begin = 0
        for side, slot in zip(sides.tolist(), slots, strict=True):
            end = begin + slot.stop - slot.start
            nodes[side][slot] = found.labels[begin:end] + first[image]
            begin = end
        centres.append(found.centres)
        first[image + 1] = first[image] + len(found.centres)
        if progress:
            progress(1)
    points = np.concatenate([np.zeros((0, 2), np.float32), *centres])
    return points, first, _Graph(observed.offsets, (nodes[0], nodes[1]), observed.scores.copy())


def _one_to_one(graph: _Graph, bases: ArrayI64) -> _Graph:
    """Keep one match for each keypoint and pair, the best; the graph's arrays are written over.

    `bases`, int64 (P, 2), are the first keypoints of each pair's images.
    """
    (left, right), scores, end = graph.nodes, graph.scores, 0
    offsets = np.zeros_like(graph.offsets)
    for pair, (base0, base1) in enumerate(bases.astype(np.int32)):
        slot = slice(*graph.offsets[pair : pair + 2].tolist())
        rows0, rows1, best = match_one_to_one(left[slot] - base0, right[slot] - base1, scores[slot])
        begin, end = end, end + len(best)
        left[begin:end], right[begin:end], scores[begin:end] = rows0 + base0, rows1 + base1, best
        offsets[pair + 1] = end
    return _Graph(offsets, (left[:end], right[:end]), scores[:end])


def _without_weak(graph: _Graph, num: int, options: TrackOptions) -> tuple[_Graph, ArrayI32]:
    """Drop what the options rule out; return the rest and the track of each keypoint, -1 for none.

    What is left of a track that lost keypoints need not hang together, so tracks are counted anew.
    """
    enough = np.zeros(1, np.bool_)
    while not enough.all():
        num_matches = np.bincount(np.concatenate(graph.nodes), minlength=num)
        enough = num_matches[np.stack(graph.nodes)].min(axis=0) >= options.min_matches
        graph = graph.take(enough)
    ends = coo_array((np.ones(len(graph.scores), np.int8), graph.nodes), shape=(num, num))
    count, track = connected_components(ends, directed=False)
    lengths = np.bincount(track, minlength=count)
    of_match = track[graph.nodes[0]]
    matches = np.bincount(of_match, minlength=count)
    total = np.bincount(of_match, graph.scores.astype(np.float64), count)
    # A tolerance, because the order of a sum decides about its last bit.
    sure = total >= (options.min_confidence - 1e-9) * matches
    good = (lengths >= max(options.min_length, 2)) & sure
    return graph.take(good[of_match]), np.where(good[track], track, -1).astype(np.int32)


def _capped(
    graph: _Graph, points: ArrayF32, first: ArrayI64, track: ArrayI32, limit: int
) -> ArrayBool:
    """Return which keypoints are kept where an image has more than the limit.

    A track that is chosen in one image comes first in all of its images: tracks stay whole.
    """
    num = len(track)
    nodes = np.flatnonzero(track >= 0)
    lengths = np.bincount(track[nodes], minlength=num)[track]
    rank = np.empty(num, np.int64)
    # Places decide between equals.
    by_place = np.lexsort((points[:, 0], points[:, 1], _support(graph, num), lengths))
    rank[by_place] = np.arange(num)
    rank_of_track = np.zeros(num, np.int64)
    np.maximum.at(rank_of_track, track[nodes], rank[nodes])
    turn_of_track = np.full(num, num, np.int64)
    images = [nodes[slice(*ends)] for ends in pairwise(np.searchsorted(nodes, first).tolist())]
    for some in images:
        turn = turns(points[some], rank_of_track[track[some]], limit)
        np.minimum.at(turn_of_track, track[some], turn)
    kept = np.zeros(num, np.bool_)
    for some in images:
        order = np.lexsort((-rank_of_track[track[some]], turn_of_track[track[some]]))
        kept[some[order[:limit]]] = True
    return kept


def _support(graph: _Graph, num: int) -> ArrayF32:
    """Return the sum of the scores of each keypoint's matches, float32 (N,)."""
    weights = graph.scores.astype(np.float64)
    total = np.bincount(graph.nodes[0], weights, num) + np.bincount(graph.nodes[1], weights, num)
    return total.astype(np.float32)


def _compact(graph: _Graph, points: ArrayF32, first: ArrayI64, track: ArrayI32) -> Tracks:
    """Keep the keypoints that are in a track and number them within their images."""
    used = track >= 0
    before = np.concatenate([[0], np.cumsum(used)])
    image = np.repeat(np.arange(len(first) - 1), np.diff(first))
    row = (before[:-1] - before[first[image]]).astype(np.int32)
    support = _support(graph, len(points))
    slots = [slice(*first[i : i + 2].tolist()) for i in range(len(first) - 1)]
    _, number = np.unique(track[used], return_inverse=True)
    numbers = np.full(len(track), -1, np.int32)
    numbers[used] = number
    return Tracks(
        keypoints=[points[slot][used[slot]] for slot in slots],
        scores=[support[slot][used[slot]] for slot in slots],
        tracks=[numbers[slot][used[slot]] for slot in slots],
        offsets=graph.offsets,
        indices=np.stack([row[graph.nodes[0]], row[graph.nodes[1]]], axis=1),
        match_scores=graph.scores,
    )


def tracks_of_pairs(
    found: Mapping[Pair, Correspondences],
    options: TrackOptions,
    anchors: Mapping[str, ArrayF32] | None = None,
) -> tuple[dict[str, ArrayF32], dict[Pair, Matches]]:
    """Turn correspondences that are in memory into keypoints and matches.

    Args:
        found: the correspondences of each pair.
        options: what becomes a track.
        anchors: keypoints that are there already, float32 (A, 2) of each image that has some.

    Returns:
        float32 (N, 2) keypoints of each image, and the matches of each pair.
    """
    names = sorted({name for pair in found for name in (pair.a, pair.b)})
    number = {name: i for i, name in enumerate(names)}
    pairs = sorted(found)
    observed = Observed(
        ends=np.array([(number[p.a], number[p.b]) for p in pairs], np.int32).reshape(-1, 2),
        offsets=np.cumsum([0, *(len(found[pair]) for pair in pairs)], dtype=np.int64),
        scores=np.concatenate([np.zeros(0, np.float32), *(found[pair].scores for pair in pairs)]),
        points=lambda image: _points_in(names[image], [(p, found[p]) for p in pairs]),
        anchors=None
        if anchors is None
        else lambda image: anchors.get(names[image], np.zeros((0, 2), np.float32)),
    )
    tracks = find_tracks(observed, len(names), options)
    keypoints = dict(zip(names, tracks.keypoints, strict=True))
    return keypoints, {pair: tracks.matches(i) for i, pair in enumerate(pairs)}


def _points_in(name: str, found: Sequence[tuple[Pair, Correspondences]]) -> ArrayF32:
    near = ((pair, item) for pair, item in found if name in (pair.a, pair.b))
    parts = (item.points0 if name == pair.a else item.points1 for pair, item in near)
    return np.concatenate([np.zeros((0, 2), np.float32), *parts])
