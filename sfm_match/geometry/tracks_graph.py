"""Matches between keypoints -> tracks in which no image occurs twice.

Matches are taken from the best to the worst; one that would bring two keypoints of an image
together is refused (Kruskal's algorithm, 1956, with that constraint). The best are those that most
loops of three images confirm (Zach, Klopschitz and Pollefeys, "Disambiguating visual relations
using loop constraints", CVPR 2010); among these, those of the highest score.

To do it without a loop over matches, all that are the best of both tracks that they touch are taken
in one round (Boruvka, 1926; Preis, "Linear time 1/2-approximation algorithm for maximum weighted
matching", STACS 1999, calls them locally dominant). Every better match has been dealt with then, so
that the result is the same as in sequence. Ties are broken by a hash of the keypoints, so that
rounds are few.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array

from sfm_match.types import ArrayF32, ArrayI32

ArrayU64 = npt.NDArray[np.uint64]

_MAX_SET_BYTES = 64 << 20
_MATCHES_AT_ONCE = 1 << 19
_NODES_AT_ONCE = 1 << 12


def hash_bits(values: ArrayU64) -> ArrayU64:
    """Return well-mixed bits of 64-bit numbers (Steele et al., SplittableRandom, OOPSLA 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _sort_keys(
    rows0: ArrayI32, rows1: ArrayI32, scores: ArrayF32, num_loops: ArrayI32 | None = None
) -> ArrayU64:
    """Return numbers (M,) that sort matches by loops, by score, and by a hash of their ends."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0
    negative = bits >> np.uint32(31) == 1
    ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    low, high = np.minimum(rows0, rows1), np.maximum(rows0, rows1)
    ends = low.astype(np.uint64) << np.uint64(32) | high.astype(np.uint64)
    keys: ArrayU64 = ordered << np.uint64(16) | hash_bits(ends) >> np.uint64(48)
    if num_loops is None:
        return keys
    keys |= np.minimum(num_loops, 0xFFFF).astype(np.uint64) << np.uint64(48)
    return keys


def match_one_to_one(
    rows0: ArrayI32, rows1: ArrayI32, scores: ArrayF32
) -> tuple[ArrayI32, ArrayI32, ArrayF32]:
    """Choose among the matches of a pair so that each keypoint has one at the most.

    The best is taken first, then the best of those left. The result is sorted by row.

    Args:
        rows0: int32 (M,), keypoints of the first image.
        rows1: int32 (M,), keypoints of the second.
        scores: float32 (M,).
    """
    order = np.lexsort((rows1, rows0, _sort_keys(rows0, rows1, scores)))[::-1]
    left, right = rows0[order], rows1[order]
    free0 = np.ones(int(rows0.max(initial=0)) + 1, np.bool_)
    free1 = np.ones(int(rows1.max(initial=0)) + 1, np.bool_)
    best0, best1 = np.empty(len(free0), np.intp), np.empty(len(free1), np.intp)
    taken = [order[:0]]
    while len(order):
        dominant = _dominant(left, right, best0, best1)
        taken.append(order[dominant])
        free0[left[dominant]] = free1[right[dominant]] = False
        alive = free0[left] & free1[right]
        order, left, right = order[alive], left[alive], right[alive]
    chosen = np.concatenate(taken)
    chosen = chosen[np.argsort(rows0[chosen])]
    return rows0[chosen], rows1[chosen], scores[chosen]


def _dominant(
    left: ArrayI32,
    right: ArrayI32,
    best_of_left: npt.NDArray[np.intp],
    best_of_right: npt.NDArray[np.intp],
) -> npt.NDArray[np.intp]:
    """Return which matches, sorted from the best on, are the best of both their ends.

    The last two hold what is best of each end; they may be one, and what is in them is not used.
    """
    places = np.arange(len(left))
    best_of_left[left] = best_of_right[right] = len(left)
    np.minimum.at(best_of_left, left, places)
    np.minimum.at(best_of_right, right, places)
    return np.flatnonzero((best_of_left[left] == places) & (best_of_right[right] == places))


def count_loops(nodes0: ArrayI32, nodes1: ArrayI32, num: int) -> ArrayI32:
    """Return for each match, int32 (M,), how many keypoints are matched with both its ends.

    Args:
        nodes0: int32 (M,), keypoints that are matched
        nodes1: int32 (M,), with these; no match twice.
        num: how many keypoints there are.
    """
    ends = np.concatenate([nodes0, nodes1]), np.concatenate([nodes1, nodes0])
    matched = coo_array((np.ones(2 * len(nodes0), np.int16), ends), shape=(num, num)).tocsr()
    order = np.argsort(nodes0, kind="stable")
    starts = np.arange(0, num + _NODES_AT_ONCE, _NODES_AT_ONCE)
    counts = np.zeros(len(nodes0), np.int32)
    # All keypoints two matches away, of some keypoints at a time: of all they may fill the memory.
    for (start, stop), (first, last) in zip(
        pairwise(starts.tolist()),
        pairwise(np.searchsorted(nodes0[order], starts).tolist()),
        strict=True,
    ):
        some = order[first:last]
        two_away = matched[start:stop] @ matched
        if len(some):
            counts[some] = two_away[nodes0[some] - start, nodes1[some]]
    return counts


def split_tracks(
    nodes0: ArrayI32, nodes1: ArrayI32, scores: ArrayF32, image_of_node: ArrayI32
) -> ArrayI32:
    """Return the track of each keypoint, so that no track has two of one image.

    Some matches at a time, the best first, as in Filter-Kruskal (Osipov, Sanders and Singler,
    ALENEX 2009): most of those that come later link tracks that are one already or cannot be one.

    Args:
        nodes0: int32 (M,), keypoints, numbered through all images, that are matched
        nodes1: int32 (M,), with these of another image; no match twice.
        scores: float32 (M,), larger is better.
        image_of_node: int32 (N,), the image of each keypoint.

    Returns:
        int32 (N,): equal for keypoints of one track. A keypoint without a match is a track.
    """
    order = _best_first(nodes0, nodes1, scores, len(image_of_node))
    track = np.arange(len(image_of_node), dtype=np.int32)
    num_words = int(image_of_node.max(initial=0)) // 64 + 1
    step = min(_MATCHES_AT_ONCE, max(1, _MAX_SET_BYTES // (16 * num_words)))
    for start in range(0, len(order), step):
        some = order[start : start + step]
        left, right = track[nodes0[some]], track[nodes1[some]]
        touched = np.zeros(len(track), np.bool_)
        touched[left] = touched[right] = True
        number = np.cumsum(touched, dtype=np.int32) - np.int32(1)
        tracks = np.flatnonzero(touched).astype(np.int32)
        nodes = np.flatnonzero(touched[track])
        images = np.zeros((num_words, len(tracks)), np.uint64)
        word, bit = np.divmod(image_of_node[nodes], 64)
        np.bitwise_or.at(
            images, (word, number[track[nodes]]), np.uint64(1) << bit.astype(np.uint64)
        )
        parent = np.arange(len(track), dtype=np.int32)
        parent[tracks] = tracks[_merge(number[left], number[right], images)]
        track = parent[track]
    return track


def _best_first(
    nodes0: ArrayI32, nodes1: ArrayI32, scores: ArrayF32, num: int
) -> npt.NDArray[np.intp]:
    """Return the order of matches between so many keypoints, the best first."""
    num_loops = count_loops(nodes0, nodes1, num)
    keys = np.empty(len(scores), np.uint64)
    for start in range(0, len(keys), _MATCHES_AT_ONCE):  # what keys are made of is larger
        some = slice(start, start + _MATCHES_AT_ONCE)
        keys[some] = _sort_keys(nodes0[some], nodes1[some], scores[some], num_loops[some])
    return np.argsort(keys, kind="stable")[::-1]


def _merge(left: ArrayI32, right: ArrayI32, images: ArrayU64) -> ArrayI32:
    """Merge T tracks along matches, best first, where their images do not meet.

    Args:
        left: int32 (M,), the tracks of each match.
        right: int32 (M,).
        images: uint64 (W, T), the set of each track's images; it is changed.

    Returns:
        int32 (T,), the track that each has become part of.
    """
    num = images.shape[1]
    track = np.arange(num, dtype=np.int32)
    best = np.empty(num, np.intp)
    while True:
        alive = left != right
        for word in images:
            alive &= word[left] & word[right] == 0
        left, right = left[alive], right[alive]
        if len(left) == 0:
            return track
        dominant = _dominant(left, right, best, best)
        kept, gone = left[dominant], right[dominant]
        images[:, kept] |= images[:, gone]
        parent = np.arange(num, dtype=np.int32)
        parent[gone] = kept
        track, left, right = parent[track], parent[left], parent[right]
