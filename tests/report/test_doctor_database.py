"""Databases broken on purpose: the doctor names what was broken, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.report.doctor import examine, examine_folder
from sfm_match.report.findings import Finding, Severity
from tests.colmap_scene import Scene, synthesize
from tests.databases import FACTOR, Change, Connection, edit, pair_id
from tests.report.broken import (
    changed_keypoints,
    copied_row,
    fewer_inliers,
    the_only,
    without_pairs,
)

NOTE, WARNING, PROBLEM = Severity.NOTE, Severity.WARNING, Severity.PROBLEM


@pytest.fixture(scope="module")
def scene() -> Scene:
    return synthesize(8, noise=0.3)


@pytest.fixture(scope="module")
def sound(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "sound.db"
    scene.write_database(path)
    return path


@pytest.fixture
def database(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "database.db"))


def names_in(finding: Finding) -> list[str]:
    return [" ".join(place.images) for place in finding.where]


def test_a_sound_database_has_no_finding(database: Path) -> None:
    assert examine(database) == []


def outside(points: np.ndarray) -> np.ndarray:
    points[:5] += 1000
    points[5] = np.nan
    return points


def turned(points: np.ndarray) -> np.ndarray:
    return points[:, ::-1] * (479.0 / 480.0) if points[:, 0].max() > 480 else points


def two_groups(a: int, b: int) -> bool:
    return (a <= 4) == (b <= 4)


def of_image_3(a: int, b: int) -> bool:
    return 3 in (a, b)


def opened(pairs: list[tuple[int, int]]) -> Change:
    """Turn the relative rotation of pairs by a right angle, as a repeated front would."""
    quarter = pycolmap.Rotation3d(np.array([0, np.sqrt(0.5), 0, np.sqrt(0.5)]))

    def change(connection: Connection) -> None:
        for a, b in pairs:
            where = f"WHERE pair_id = {pair_id(a, b)}"
            ((blob,),) = connection.execute(
                f"SELECT qvec FROM two_view_geometries {where}"
            ).fetchall()
            rotation = pycolmap.Rotation3d(np.roll(np.frombuffer(blob), -1))
            new = np.roll((quarter * rotation).quat, 1).tobytes()
            connection.execute(f"UPDATE two_view_geometries SET qvec = ? {where}", (new,))

    return change


WITHOUT_3 = without_pairs(lambda a, b: not of_image_3(a, b))
BROKEN: dict[str, tuple[str, Severity, list[Change | str]]] = {
    "keypoints cut off": (
        "damaged-rows",
        PROBLEM,
        ["UPDATE keypoints SET data = x'00' WHERE image_id = 3"],
    ),
    "matches cut off": (
        "damaged-rows",
        PROBLEM,
        [f"UPDATE matches SET data = x'0000' WHERE pair_id = {pair_id(1, 2)}"],
    ),
    "a camera of an unknown model": ("damaged-rows", PROBLEM, ["UPDATE cameras SET model = 99"]),
    "no camera": ("damaged-rows", PROBLEM, ["UPDATE images SET camera_id = 7 WHERE image_id = 3"]),
    "a negative focal length": (
        "bogus-cameras",
        PROBLEM,
        [f"UPDATE cameras SET params = x'{np.array([-5.0, 320, 240, 0]).tobytes().hex()}'"],
    ),
    "no keypoints": (
        "no-features",
        WARNING,
        ["DELETE FROM keypoints WHERE image_id = 3", WITHOUT_3],
    ),
    "three columns": (
        "keypoint-columns",
        PROBLEM,
        [changed_keypoints(3, lambda points: np.c_[points, np.ones(len(points))])],
    ),
    "keypoints outside": ("out-of-bounds", PROBLEM, [changed_keypoints(3, outside)]),
    "whole numbers": ("half-pixel", WARNING, [changed_keypoints(i, np.round) for i in range(1, 9)]),
    "rows beyond the keypoints": (
        "matches-out-of-range",
        PROBLEM,
        [
            f"UPDATE matches SET data = x'0000000000000000ffffffffffffffff', rows = 2 "
            f"WHERE pair_id = {pair_id(1, 2)}"
        ],
    ),
    "an orphan's matches": (
        "orphan-pairs",
        NOTE,
        [copied_row("matches", pair_id(1, 2), pair_id(1, 99))],
    ),
    "an orphan's geometry": (
        "orphan-pairs",
        PROBLEM,
        [copied_row("two_view_geometries", pair_id(1, 2), pair_id(1, 99))],
    ),
    "an image with itself": (
        "self-pairs",
        NOTE,
        [copied_row("two_view_geometries", pair_id(1, 2), pair_id(1, 1))],
    ),
    "both orders": (
        "duplicate-pairs",
        PROBLEM,
        [copied_row("two_view_geometries", pair_id(1, 2), pair_id(2, 1))],
    ),
    "the other order": (
        "reversed-pairs",
        WARNING,
        [
            f"UPDATE {table} SET pair_id = {pair_id(2, 1)} WHERE pair_id = {pair_id(1, 2)}"
            for table in ("matches", "two_view_geometries")
        ],
    ),
    "no pairs": ("no-matches", PROBLEM, [without_pairs(lambda _a, _b: False)]),
    "no geometries": ("not-verified", PROBLEM, ["DELETE FROM two_view_geometries"]),
    "an image alone": ("isolated-images", WARNING, [WITHOUT_3]),
    "an image with ten inliers": ("isolated-images", WARNING, [fewer_inliers(10, of_image_3)]),
    "two groups": ("split-graph", PROBLEM, [without_pairs(two_groups)]),
    "an image with 20 inliers": ("few-inliers", WARNING, [fewer_inliers(20, of_image_3)]),
    "a weak pair between groups": (
        "weak-bridge",
        WARNING,
        [
            without_pairs(lambda a, b: two_groups(a, b) or (a, b) == (4, 5)),
            fewer_inliers(50, lambda a, b: (a, b) == (4, 5)),
        ],
    ),
    "a strong pair between groups": (
        "weak-bridge",
        NOTE,
        [without_pairs(lambda a, b: two_groups(a, b) or (a, b) == (4, 5))],
    ),
    "no class": ("geometry-without-config", PROBLEM, ["UPDATE two_view_geometries SET config = 0"]),
    "one without class": (
        "geometry-without-config",
        WARNING,
        [f"UPDATE two_view_geometries SET config = 1 WHERE pair_id = {pair_id(1, 2)}"],
    ),
    "no matrices": (
        "geometry-without-pose",
        NOTE,
        ["UPDATE two_view_geometries SET E = NULL, F = NULL, H = NULL, qvec = NULL, tvec = NULL"],
    ),
    "identity matrices": (
        "geometry-without-pose",
        NOTE,
        [
            "UPDATE two_view_geometries SET E = eye, F = eye, H = NULL, qvec = NULL, tvec = NULL "
            f"FROM (SELECT x'{np.eye(3).tobytes().hex()}' AS eye)"
        ],
    ),
    "twenty inliers everywhere": (
        "no-initial-pair",
        PROBLEM,
        [fewer_inliers(20, lambda _a, _b: True)],
    ),
    "false pairs": (
        "rotation-cycles",
        WARNING,
        [opened([(1, 5), (1, 6), (2, 5), (2, 6), (3, 7), (4, 8)])],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_it_names_what_is_broken_and_nothing_else(database: Path, case: str) -> None:
    code, severity, breaks = BROKEN[case]
    edit(database, *breaks)
    finding = the_only(examine(database))
    assert (finding.code, finding.severity) == (code, severity)
    assert finding.advice


def test_a_database_without_images(tmp_path: Path) -> None:
    pycolmap.Database.open(tmp_path / "empty.db").close()
    finding = the_only(examine(tmp_path / "empty.db"))
    assert (finding.code, finding.severity) == ("no-images", PROBLEM)


def test_it_says_which_images_have_no_keypoints(database: Path, scene: Scene) -> None:
    edit(database, "DELETE FROM keypoints WHERE image_id = 3", WITHOUT_3)
    assert names_in(the_only(examine(database))) == [scene.names[2]]


def test_it_says_which_pairs_have_false_rotations(database: Path, scene: Scene) -> None:
    false = [(1, 5), (1, 6), (2, 5), (2, 6), (3, 7), (4, 8)]
    edit(database, opened(false))
    expected = {f"{scene.names[a - 1]} {scene.names[b - 1]}" for a, b in false}
    assert set(names_in(the_only(examine(database)))) == expected


def test_it_says_where_the_bridge_is(database: Path, scene: Scene) -> None:
    edit(database, without_pairs(lambda a, b: two_groups(a, b) or (a, b) == (4, 5)))
    assert names_in(the_only(examine(database))) == [f"{scene.names[3]} {scene.names[4]}"]


def test_turned_keypoints_are_told_as_such(database: Path) -> None:
    edit(database, *[changed_keypoints(i, lambda points: points[:, ::-1]) for i in range(1, 9)])
    outside = next(f for f in examine(database) if f.code == "out-of-bounds")
    assert "EXIF" in outside.advice


def test_matches_with_keypoints_of_their_own_in_each_pair(database: Path) -> None:
    """As a detector-free matcher's, before tracks are made of them."""
    edit(
        database,
        *[changed_keypoints(i, lambda points: np.tile(points, (8, 1))) for i in range(1, 9)],
    )
    num = 210

    def own_rows(connection: Connection) -> None:
        for table in ("matches", "two_view_geometries"):
            rows = connection.execute(f"SELECT pair_id, data FROM {table}").fetchall()
            for pair, data in rows:
                a, b = divmod(pair, FACTOR)
                indices = np.frombuffer(data, np.uint32).reshape(-1, 2) + np.array(
                    [num * (b - 1), num * (a - 1)], np.uint32
                )
                connection.execute(
                    f"UPDATE {table} SET data = ? WHERE pair_id = ?",
                    (indices.astype(np.uint32).tobytes(), pair),
                )

    edit(database, own_rows)
    finding = the_only(examine(database))
    assert (finding.code, finding.severity) == ("short-tracks", PROBLEM)


def test_an_image_with_a_single_strong_pair_is_sound(database: Path) -> None:
    edit(database, without_pairs(lambda a, b: not of_image_3(a, b) or (a, b) == (2, 3)))
    assert examine(database) == []


def test_pairs_of_the_other_order_are_left_out(database: Path) -> None:
    for table in ("matches", "two_view_geometries"):
        where = f"WHERE pair_id = {pair_id(1, 2)}"
        edit(database, f"UPDATE {table} SET pair_id = {pair_id(2, 1)} {where}")
    counts = examine_folder(database).counts
    assert (counts["matched_pairs"], counts["verified_pairs"]) == (27, 27)
