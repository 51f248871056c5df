from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfm_match.io.database_access import DatabaseError
from sfm_match.io.match_graph import read_image_points, read_match_graph, read_pair_points
from sfm_match.types import Pair
from tests.colmap_scene import Scene


@pytest.fixture(scope="module")
def database(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "database.db"
    scene.write_database(path)
    return path


def test_the_counts_are_those_of_the_scene(scene: Scene, database: Path) -> None:
    graph = read_match_graph(database)
    assert list(graph.names) == scene.names
    assert graph.num_keypoints.tolist() == [len(scene.keypoints[n]) for n in scene.names]
    assert len(graph.pairs) == len(scene.matches)
    for (a, b), matches, inliers in zip(
        graph.pairs, graph.num_matches, graph.num_inliers, strict=True
    ):
        pair = Pair(graph.names[a], graph.names[b])
        assert matches == len(scene.matches[pair])
        assert inliers == scene.two_view(pair).num_inliers


def test_points_of_a_pair_lie_where_its_matches_say(scene: Scene, database: Path) -> None:
    pair = Pair(*scene.names[1:3])
    found = read_pair_points(database, pair.a, pair.b)
    rows = scene.matches[pair].indices
    expected = np.hstack([scene.keypoints[pair.a][rows[:, 0]], scene.keypoints[pair.b][rows[:, 1]]])
    actual = np.hstack([found.points0, found.points1])
    np.testing.assert_array_equal(actual[np.lexsort(actual.T)], expected[np.lexsort(expected.T)])
    assert found.inliers.sum() == scene.two_view(pair).num_inliers
    turned = read_pair_points(database, pair.b, pair.a)
    np.testing.assert_array_equal(turned.points0, found.points1)


def test_points_of_an_image_are_its_keypoints(scene: Scene, database: Path) -> None:
    name = scene.names[0]
    np.testing.assert_array_equal(read_image_points(database, name), scene.keypoints[name])
    with pytest.raises(KeyError, match=r"nobody\.jpg"):
        read_image_points(database, "nobody.jpg")


def test_reading_leaves_nothing_beside_the_database(database: Path) -> None:
    read_match_graph(database)
    assert [path.name for path in database.parent.iterdir()] == ["database.db"]


def test_what_is_no_database_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    path.write_bytes(b"no database, though it is long enough to be read as if it were one" * 9)
    with pytest.raises(DatabaseError, match=r"database\.db"):
        read_match_graph(path)
