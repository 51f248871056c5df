"""Pairs added to a COLMAP database are the rows that pycolmap writes, and are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfm_match.io.database import colmap_two_view
from sfm_match.io.database_access import transaction
from sfm_match.io.database_pairs import (
    PairRows,
    add_matches,
    add_two_view,
    matrix_columns,
    pair_rows,
    read_pair,
    same_matches,
    same_two_view,
)
from sfm_match.types import Matches, TwoView, TwoViewConfig
from tests.scenes import database_rows


def matrix(rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    return rng.normal(size=(3, 3)) + 3 * np.eye(3)


def two_view(seed: int, num: int, fields: str) -> TwoView:
    rng = np.random.default_rng(seed)
    pose = pycolmap.Rigid3d(pycolmap.Rotation3d(rng.normal(size=3)), rng.normal(size=3))
    inliers = np.arange(num) % 3 != 1
    return TwoView(
        config=TwoViewConfig(int(rng.integers(2, 7))),
        inliers=inliers,
        cam1_from_cam0=np.asarray(pose.matrix()) if "p" in fields else None,
        E=matrix(rng) if "E" in fields else None,
        F=matrix(rng) if "F" in fields else None,
        H=matrix(rng) if "H" in fields else None,
    )


@given(
    ids=st.sampled_from([(1, 2), (2, 1), (3, 2), (1, 2147483646), (2147483646, 3)]),
    num=st.integers(1, 8),
    fields=st.sampled_from(["", "p", "E", "pEF", "H", "pEFH"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
def test_pairs_are_written_as_pycolmap_writes_them(
    tmp_path: Path, ids: tuple[int, int], num: int, fields: str, seed: int
) -> None:
    found = Matches(
        np.random.default_rng(seed).integers(0, 2**31, (num, 2)).astype(np.int32),
        np.ones(num, np.float32),
    )
    geometry = two_view(seed, num, fields)
    paths = [tmp_path / "colmap.db", tmp_path / "here.db"]
    for path in paths:
        path.unlink(missing_ok=True)
    with pycolmap.Database.open(paths[0]) as database:
        indices = found.indices.astype(np.uint32)
        database.write_matches(*ids, indices)
        database.write_two_view_geometry(*ids, colmap_two_view(geometry, indices[geometry.inliers]))
    pycolmap.Database.open(paths[1]).close()
    with transaction(paths[1]) as connection:
        names = matrix_columns(connection)
        rows = pair_rows(ids, found, geometry, names)
        add_matches(connection, rows)
        add_two_view(connection, rows)
        again = read_pair(connection, rows.pair_id, names)
    assert same_matches(again.matches, rows.matches)
    assert same_two_view(again, rows)
    # A pose that pycolmap inverts may differ in its last bit.
    tables = [database_rows(path) for path in paths]
    for table in tables if "p" in fields else ():
        del table["two_view_geometries"]
    assert tables[0] == tables[1]
    with pycolmap.Database.open(paths[1]) as database:
        theirs = database.read_two_view_geometry(*ids)
        np.testing.assert_array_equal(database.read_matches(*ids), found.indices)
    assert theirs.config == geometry.config
    np.testing.assert_array_equal(theirs.inlier_matches, found.indices[geometry.inliers])
    for name in "EFH":
        if name in fields:
            np.testing.assert_allclose(getattr(theirs, name), getattr(geometry, name), atol=1e-9)
        else:
            assert getattr(theirs, name) is None
    if geometry.cam1_from_cam0 is not None:
        assert theirs.cam2_from_cam1 is not None
        np.testing.assert_allclose(
            theirs.cam2_from_cam1.matrix(), geometry.cam1_from_cam0, atol=1e-12
        )


def rows_of(seed: int = 0, fields: str = "pEFH") -> PairRows:
    found = Matches(
        np.random.default_rng(1).integers(0, 50, (6, 2)).astype(np.int32), np.ones(6, np.float32)
    )
    return pair_rows((1, 2), found, two_view(seed, 6, fields), ("F", "E", "H", "qvec", "tvec"))


def test_what_counts_as_the_same_pair() -> None:
    rows = rows_of()
    turned = replace(rows, matches=rows.matches[::-1], inliers=rows.inliers[[2, 0, 3, 1]])
    assert same_matches(rows.matches, turned.matches)
    assert same_two_view(rows, turned)
    assert same_two_view(
        rows, replace(rows, matrices={k: v * (1 + 1e-12) for k, v in rows.matrices.items()})
    )
    nothing = replace(rows, inliers=rows.inliers[:0])
    assert same_two_view(nothing, replace(nothing, config=1, matrices={}))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: {"config": rows.config + 1},
        lambda rows: {"inliers": rows.inliers[1:]},
        lambda rows: {"inliers": rows.inliers[:, ::-1]},
        lambda rows: {"matrices": {k: v for k, v in rows.matrices.items() if k != "H"}},
        lambda rows: {"matrices": rows.matrices | {"tvec": -rows.matrices["tvec"]}},
        lambda rows: {"inliers": rows.inliers[:0]},
    ],
)
def test_what_counts_as_another_geometry(change: Callable[[PairRows], dict[str, Any]]) -> None:
    rows = rows_of()
    assert not same_two_view(rows, replace(rows, **change(rows)))


def test_matches_that_differ_in_one_row_differ() -> None:
    matches = rows_of().matches
    other = matches.copy()
    other[3, 1] += 1
    assert not same_matches(matches, other)
    assert not same_matches(matches, matches[1:])
