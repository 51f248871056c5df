"""Which panels there are of an image and of a pair."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from sfm_match.report.pages import Choice, ImageContent, PairContent, image_rows, pair_rows
from sfm_match.spec import ConfigError

NAMES = ("a.jpg", "b.jpg")


def content(dense: bool = False) -> ImageContent:
    rng = np.random.default_rng(1)
    return ImageContent(
        rng.integers(0, 256, (60, 100, 3)).astype(np.uint8),
        rng.uniform(0, (100, 60), (50, 2)).astype(np.float32),
        rng.uniform(size=50).astype(np.float32),
        rng.normal(size=(30, 50, 8)).astype(np.float32) if dense else None,
        {"reliability": np.ones((60, 100), np.float32)} if dense else {},
    )


def pair(verified: bool = True, errors: bool = False) -> PairContent:
    points = np.random.default_rng(0).uniform(0, (100, 60), (40, 2)).astype(np.float32)
    return PairContent(
        points,
        points + 1,
        np.linspace(0, 1, 40, dtype=np.float32),
        np.arange(40) < 30 if verified else None,
        np.linspace(0, 10, 40) if errors else None,
    )


def captions(found: PairContent, *draw: str, dense: bool = False, **options: Any) -> list[str]:
    rows = pair_rows((content(dense), content(dense)), NAMES, found, Choice(draw, **options))
    return [panel.caption for row in rows for panel in row]


def test_of_a_verified_pair_inliers_and_outliers_lie_beside_each_other() -> None:
    rows = pair_rows((content(), content()), NAMES, pair(), Choice())
    assert [[panel.caption for panel in row] for row in rows] == [
        ["40 matches"],
        ["30 inliers (75 %)", "10 outliers (25 %)"],
        ["Delaunay of the inliers: 78 of 78 edges (100 %) in both images"],
    ]
    inliers, outliers = rows[1]
    assert (len(inliers.lines[0].ends), len(outliers.lines[0].ends)) == (30, 10)
    assert inliers.lines[0].colours != outliers.lines[0].colours


def test_of_a_pair_that_is_not_verified_there_are_matches() -> None:
    found = captions(pair(verified=False))
    assert found[0] == "40 matches"
    assert found[1].startswith("Delaunay of the matches")
    assert len(found) == 2
    with pytest.raises(ConfigError, match="have not been verified, so there are no outliers"):
        captions(pair(verified=False), "outliers")


def test_with_the_truth_all_matches_are_coloured_by_error() -> None:
    rows = pair_rows((content(), content()), NAMES, pair(errors=True), Choice())
    assert rows[0][0].caption == "40 matches, median error 5 px"
    assert rows[1][1].caption == "10 outliers (25 %), median error 8.8 px"
    for panel in (rows[0][0], *rows[1]):
        assert panel.scale is not None
        assert panel.scale.label == "epipolar error, px"


def test_only_what_is_chosen_is_drawn() -> None:
    assert captions(pair(), "inliers", max_lines=5) == ["30 inliers (75 %), 5 drawn"]
    assert captions(pair(), "keypoints", max_keypoints=9) == [
        "a.jpg: 50 keypoints, the best 9 drawn",
        "b.jpg: 50 keypoints, the best 9 drawn",
    ]
    (edges,) = captions(pair(), "edges", max_keypoints=9)
    assert "of the inliers" in edges


def test_the_graph_may_be_one_of_nearest_neighbours() -> None:
    choice = Choice(("edges",), graph="knn", neighbours=1)
    ((panel,),) = pair_rows((content(), content()), NAMES, pair(), choice)
    assert panel.caption.startswith("1 nearest neighbours of the inliers")
    assert sum(len(lines.ends) for lines in panel.lines) < 2 * 30
    with pytest.raises(ConfigError, match="no graph 'delauny'; did you mean 'delaunay'"):
        Choice(graph="delauny")


def test_one_image_has_two_panels_in_a_row() -> None:
    rows = image_rows(content(), Choice())
    assert [panel.caption for panel in rows[0]] == [
        "50 keypoints",
        rows[0][1].caption,
    ]
    assert rows[0][1].caption.startswith("Delaunay: ")
    assert len(rows) == 1


def test_dense_maps_lie_beside_the_picture() -> None:
    shown = content(dense=True)
    maps = dict.fromkeys(("reliability", "repeatability"), shown.maps["reliability"])
    shown = dataclasses.replace(shown, maps=maps)
    rows = image_rows(shown, Choice())
    assert [[panel.caption for panel in row] for row in rows[1:]] == [
        ["picture", "8-dimensional descriptors, three principal components"],
        ["reliability", "repeatability"],
    ]


def test_descriptors_of_a_pair_share_their_colours() -> None:
    shown = content(dense=True)
    rows = pair_rows((shown, shown), NAMES, pair(), Choice(("descriptors", "maps")))
    assert [[panel.caption for panel in row] for row in rows] == [
        [f"{name}: 8-dimensional descriptors, three principal components" for name in NAMES],
        [f"{name}: reliability" for name in NAMES],
    ]
    np.testing.assert_array_equal(rows[0][0].pictures[0], rows[0][1].pictures[0])


def test_what_there_is_not_is_named() -> None:
    with pytest.raises(ConfigError, match="draw inlyers: no such thing; did you mean 'inliers'"):
        captions(pair(), "inlyers")
    with pytest.raises(ConfigError, match="no descriptors and maps to draw; r2d2 and aliked do"):
        captions(pair(), "maps")
    with pytest.raises(ConfigError, match="draw matches: is drawn between two images"):
        image_rows(content(), Choice(("matches",)))


def test_a_pair_without_matches_is_drawn() -> None:
    none = np.zeros((0, 2), np.float32)
    found = PairContent(none, none, none[:, 0], np.zeros(0, np.bool_), np.zeros(0))
    assert captions(found) == [
        "0 matches",
        "0 inliers",
        "0 outliers",
        "Delaunay of the inliers: 0 of 0 edges in both images",
    ]
