"""What is drawn on panels, and where."""

from __future__ import annotations

import numpy as np
import pytest

from sfm_match.geometry.keypoint_graphs import delaunay_edges
from sfm_match.report.colours import error_scale, map_scale
from sfm_match.report.pictures import (
    common_edges,
    draw_graph,
    draw_keypoints,
    draw_map,
    draw_matches,
    panel_of,
)

RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 256, (60, 100, 3)).astype(np.uint8)
TALL = RNG.integers(0, 256, (120, 80)).astype(np.uint8)
POINTS0 = RNG.uniform(0, (100, 60), (30, 2)).astype(np.float32)
POINTS1 = RNG.uniform(0, (80, 120), (30, 2)).astype(np.float32)


def test_two_pictures_lie_beside_each_other_in_one_height() -> None:
    panel = panel_of("", WIDE, TALL)
    (left0, top0, right0, bottom0), (left1, top1, right1, bottom1) = panel.boxes
    assert (left0, top0, right0, bottom0) == (0, 0, 100, 60)
    assert (top1, bottom1) == (0, 60)
    assert left1 > right0
    assert right1 - left1 == pytest.approx(40)  # 80 x 120 in the height of 60
    assert panel.size == (right1, 60)


def test_wide_pictures_lie_above_each_other() -> None:
    panel = panel_of("", WIDE[:20], WIDE[:20, :50])
    (_, _, _, bottom0), (left1, top1, right1, bottom1) = panel.boxes
    assert (left1, right1) == (0, 100)
    assert top1 > bottom0 == 20
    assert bottom1 - top1 == pytest.approx(40)  # 50 x 20 in the width of 100


def test_points_of_a_picture_keep_their_place_in_it() -> None:
    panel = panel_of("", WIDE, TALL)
    left, top, right, bottom = panel.boxes[1]
    corners = np.array([[0, 0], [80, 120], [40, 60]])
    middle = [(left + right) / 2, (top + bottom) / 2]
    expected = [[left, top], [right, bottom], middle]
    np.testing.assert_allclose(panel.place(1, corners), expected)
    np.testing.assert_array_equal(panel.place(0, POINTS0), POINTS0)


def test_matches_lead_from_picture_to_picture() -> None:
    panel = draw_matches(WIDE, TALL, POINTS0, POINTS1)
    (lines,) = panel.lines
    np.testing.assert_allclose(lines.ends[:, 0], panel.place(0, POINTS0))
    np.testing.assert_allclose(lines.ends[:, 1], panel.place(1, POINTS1))
    assert panel.caption == "30 matches"
    assert panel.scale is None


def test_the_lines_drawn_are_evenly_chosen_over_the_values() -> None:
    values = RNG.permutation(30).astype(np.float64)
    panel = draw_matches(WIDE, TALL, POINTS0, POINTS1, values, max_lines=4)
    assert panel.caption == "30 matches, 4 drawn"
    chosen = [np.flatnonzero(values == value)[0] for value in (0, 10, 19, 29)]
    np.testing.assert_allclose(panel.lines[0].ends[:, 0], panel.place(0, POINTS0[chosen]))


def test_matches_have_the_colours_of_their_values_the_highest_drawn_last() -> None:
    values, scale = RNG.uniform(0, 9, 30), error_scale()
    panel = draw_matches(WIDE, TALL, POINTS0, POINTS1, values, scale=scale)
    np.testing.assert_array_equal(panel.lines[0].colours, scale.colours(np.sort(values)))
    assert panel.scale is scale


def test_no_match_is_a_picture_too() -> None:
    none = np.zeros((0, 2), np.float32)
    panel = draw_matches(WIDE, TALL, none, none, np.zeros(0), max_lines=5)
    assert panel.caption == "0 matches"
    assert panel.lines[0].ends.shape == (0, 2, 2)


def test_the_best_keypoints_are_drawn_the_best_last() -> None:
    scores = RNG.permutation(30).astype(np.float32)
    panel = draw_keypoints(WIDE, POINTS0, scores, max_keypoints=3)
    best = [np.flatnonzero(scores == score)[0] for score in (27, 28, 29)]
    np.testing.assert_allclose(panel.dots[0].points, POINTS0[best])
    assert panel.caption == "the best 3 of 30 keypoints"
    assert len(draw_keypoints(WIDE, POINTS0).dots[0].points) == 30


def test_a_graph_sets_off_the_edges_of_both_pictures() -> None:
    edges = delaunay_edges(POINTS0), delaunay_edges(POINTS1)
    same = np.arange(30)
    common = [common_edges(edges[0], edges[1], same), common_edges(edges[1], edges[0], same)]
    panel = draw_graph([WIDE, TALL], [POINTS0, POINTS1], edges, common)
    faint0, strong0, faint1, strong1 = (line.ends for line in panel.lines)
    assert len(strong0) == len(strong1) == common[0].sum() > 0
    assert len(faint0) + len(strong0) == len(edges[0])
    assert len(faint1) + len(strong1) == len(edges[1])
    row0, row1 = edges[0][common[0]][0]
    np.testing.assert_allclose(strong0[0], POINTS0[[row0, row1]])


def test_common_edges_are_found_by_their_partners() -> None:
    edges = np.array([[0, 1], [0, 2], [1, 2], [2, 3]])
    others = np.array([[4, 5], [5, 9]])
    partners = np.array([5, 4, -1, 9])
    np.testing.assert_array_equal(
        common_edges(edges, others, partners), [True, False, False, False]
    )
    np.testing.assert_array_equal(common_edges(np.array([[0, 3]]), others, partners), [True])
    nothing = np.zeros((0, 2), np.int64)
    assert common_edges(edges, nothing, partners).sum() == 0
    assert len(common_edges(nothing, others, partners)) == 0


def test_a_map_from_0_to_1_has_a_scale() -> None:
    panel = draw_map(np.linspace(0, 1, 12).reshape(3, 4), "reliability")
    assert panel.size == pytest.approx((4, 3))
    assert panel.scale == map_scale()
    lightness = panel.pictures[0].astype(int).sum(axis=2).ravel()
    assert (np.diff(lightness) > 0).all()
