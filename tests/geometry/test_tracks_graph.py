from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.geometry.tracks_graph import count_loops, match_one_to_one, split_tracks
from sfm_match.types import ArrayF32, ArrayI32

Graph = tuple[ArrayI32, ArrayI32, ArrayF32]


@st.composite
def graphs(draw: st.DrawFn, num_images: int = 70) -> tuple[Graph, ArrayI32]:
    """Matches between keypoints of more images than a machine word has bits; no score twice."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num = draw(st.integers(2, 150))
    images = np.sort(rng.integers(0, draw(st.sampled_from([3, num_images])), num))
    ends = np.unique(np.sort(rng.integers(0, num, (draw(st.integers(0, 300)), 2)), axis=1), axis=0)
    ends = ends[images[ends[:, 0]] != images[ends[:, 1]]].astype(np.int32)
    scores = (rng.permutation(len(ends)) - len(ends) // 2).astype(np.float32)
    return (ends[:, 0], ends[:, 1], scores), images.astype(np.int32)


@given(graphs())
def test_loops_are_counted(made: tuple[Graph, ArrayI32]) -> None:
    (nodes0, nodes1, _), images = made
    near = [set[int]() for _ in images]
    for a, b in zip(nodes0.tolist(), nodes1.tolist(), strict=True):
        near[a].add(b)
        near[b].add(a)
    expected = [len(near[a] & near[b]) for a, b in zip(nodes0, nodes1, strict=True)]
    assert count_loops(nodes0, nodes1, len(images)).tolist() == expected


@given(graphs())
def test_tracks_are_those_of_one_match_after_another(made: tuple[Graph, ArrayI32]) -> None:
    (nodes0, nodes1, scores), images = made
    members = {i: {i} for i in range(len(images))}
    track = list(range(len(images)))
    loops = count_loops(nodes0, nodes1, len(images))
    for row in np.lexsort((scores, loops))[::-1]:
        a, b = track[nodes0[row]], track[nodes1[row]]
        seen = [images[list(members[t])].tolist() for t in (a, b)]
        if a != b and not set(seen[0]) & set(seen[1]):
            members[a] |= members.pop(b)
            for node in members[a]:
                track[node] = a
    found = split_tracks(nodes0, nodes1, scores, images)
    expected = np.array(track)
    same = expected[:, None] == expected
    np.testing.assert_array_equal(found[:, None] == found, same)


@given(graphs())
def test_matches_of_a_pair_are_taken_from_the_best_on(made: tuple[Graph, ArrayI32]) -> None:
    (rows0, rows1, scores), _ = made
    free0, free1 = set(rows0.tolist()), set(rows1.tolist())
    expected = {}
    for row in np.argsort(-scores):
        a, b = int(rows0[row]), int(rows1[row])
        if a in free0 and b in free1:
            free0.remove(a)
            free1.remove(b)
            expected[a] = (b, float(scores[row]))
    left, right, best = match_one_to_one(rows0, rows1, scores)
    assert left.tolist() == sorted(expected)
    found = zip(right.tolist(), best.tolist(), strict=True)
    assert dict(zip(left.tolist(), found, strict=True)) == expected
