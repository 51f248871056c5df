"""Rows added to a COLMAP database are those that pycolmap writes, in one transaction or not."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfm_match.io import database_access
from sfm_match.io.database import colmap_two_view
from sfm_match.io.database_access import DatabaseError, transaction
from sfm_match.io.database_images import (
    add_camera,
    add_frame,
    add_image,
    add_keypoints,
    add_rig,
    read_contents,
    read_image_keypoints,
)
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

NAMES = ("b.jpg", "ä/Fuß 1.jpg", "写真 'x'.png")


def camera(model: str = "OPENCV") -> pycolmap.Camera:
    made = pycolmap.Camera.create_from_model_name(7, model, 900.0, 1024, 768)
    made.has_prior_focal_length = True
    return made


def keypoints(image_id: int, columns: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(image_id)
    return rng.uniform(0, 700, (5 * (image_id - 1), columns)).astype(np.float32)


def write_with_pycolmap(path: Path, columns: int = 2) -> None:
    """Write a camera, its rig, and three images as frames, the first without keypoints."""
    with pycolmap.Database.open(path) as database:
        made = camera()
        database.write_camera(made, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(made.sensor_id)
        database.write_rig(rig, use_rig_id=True)
        for image_id, name in enumerate(NAMES, start=1):
            image = pycolmap.Image(name=name, camera_id=7, image_id=image_id)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(rig_id=1)
            frame.add_data_id(image.data_id)
            database.write_frame(frame)
            database.write_keypoints(image_id, keypoints(image_id, columns))


def write_here(path: Path, columns: int = 2) -> None:
    """Write the same."""
    pycolmap.Database.open(path).close()
    with transaction(path) as connection:
        add_camera(connection, camera())
        rig_id = add_rig(connection, 7)
        for image_id, name in enumerate(NAMES, start=1):
            add_image(connection, name, image_id, 7)
            add_frame(connection, rig_id, image_id, 7)
            add_keypoints(connection, image_id, keypoints(image_id, columns))


# --- the rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [2, 4])
def test_images_are_written_as_pycolmap_writes_them(tmp_path: Path, columns: int) -> None:
    write_with_pycolmap(tmp_path / "colmap.db", columns)
    write_here(tmp_path / "here.db", columns)
    assert database_rows(tmp_path / "here.db") == database_rows(tmp_path / "colmap.db")


def test_contents_are_read_as_pycolmap_wrote_them(tmp_path: Path) -> None:
    write_with_pycolmap(tmp_path / "colmap.db")
    with pycolmap.Database.open(tmp_path / "colmap.db") as database:
        second = pycolmap.Camera.create_from_model_name(9, "EUCM", 500.0, 640, 480)
        database.write_camera(second, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(camera().sensor_id)
        rig.add_sensor(second.sensor_id, pycolmap.Rigid3d())
        database.update_rig(rig)
        database.write_matches(3, 1, np.zeros((1, 2), np.uint32))
        database.write_matches(1, 2, np.zeros((0, 2), np.uint32))
        descriptors = pycolmap.FeatureDescriptors(
            pycolmap.FeatureExtractorType.SIFT, np.zeros((5, 128), np.uint8)
        )
        database.write_descriptors(2, descriptors)
    with transaction(tmp_path / "colmap.db") as connection:
        contents = read_contents(connection)
        assert read_image_keypoints(connection, 4) is None
        for image_id in (1, 2, 3):
            found = read_image_keypoints(connection, image_id)
            assert found is not None
            assert found.tolist() == keypoints(image_id, 2).tolist()
    assert {i: repr(c.todict()) for i, c in contents.cameras.items()} == {
        7: repr(camera().todict()),
        9: repr(second.todict()),
    }
    assert {n: (r.image_id, r.camera_id) for n, r in contents.images.items()} == {
        name: (i, 7) for i, name in enumerate(NAMES, start=1)
    }
    assert {i: (r.rig_id, r.num_sensors) for i, r in contents.rigs.items()} == {
        7: (1, 2),
        9: (1, 2),
    }
    assert contents.has_rig_tables
    assert contents.has_frames
    assert contents.matched == {1, 3}
    assert contents.described == {2}


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


def changed(rows: PairRows, **fields: Any) -> PairRows:
    return PairRows(**{name: getattr(rows, name) for name in rows.__dataclass_fields__} | fields)


def test_what_counts_as_the_same_pair() -> None:
    rows = rows_of()
    turned = changed(rows, matches=rows.matches[::-1], inliers=rows.inliers[[2, 0, 3, 1]])
    assert same_matches(rows.matches, turned.matches)
    assert same_two_view(rows, turned)
    assert same_two_view(
        rows, changed(rows, matrices={k: v * (1 + 1e-12) for k, v in rows.matrices.items()})
    )
    nothing = changed(rows, inliers=rows.inliers[:0])
    assert same_two_view(nothing, changed(nothing, config=1, matrices={}))


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
    assert not same_two_view(rows, changed(rows, **change(rows)))


def test_matches_that_differ_in_one_row_differ() -> None:
    matches = rows_of().matches
    other = matches.copy()
    other[3, 1] += 1
    assert not same_matches(matches, other)
    assert not same_matches(matches, matches[1:])


# --- files that cannot be used --------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(DatabaseError) as caught, transaction(path) as connection:
        read_contents(connection)
    return str(caught.value)


def test_files_that_are_no_colmap_database(tmp_path: Path) -> None:
    assert refused(tmp_path / "no.db") == f"{tmp_path / 'no.db'}: no such database"
    assert refused(tmp_path) == f"{tmp_path}: is not a file"
    text = tmp_path / "text.db"
    text.write_text("not a database " * 100)
    assert "is not an SQLite database" in refused(text)
    empty = tmp_path / "empty.db"
    empty.touch()
    assert "not a COLMAP database known here: it has no table cameras" in refused(empty)
    assert empty.stat().st_size == 0
    other = tmp_path / "other.db"
    pycolmap.Database.open(other).close()
    execute(other, "ALTER TABLE frame_data RENAME COLUMN sensor_id TO sensor")
    assert "it has no column sensor_id in its table frame_data" in refused(other)


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE cameras SET model = 99", "camera 7 is of model 99, which pycolmap does not know"),
        ("UPDATE cameras SET params = x'00'", "are damaged"),
        ("UPDATE cameras SET params = zeroblob(16)", "camera 7 has 2 parameters, but those of OPE"),
        ("DELETE FROM cameras", "the camera of image b.jpg, id 7, is not there"),
    ],
)
def test_contents_that_are_wrong(tmp_path: Path, statement: str, message: str) -> None:
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    execute(path, statement)
    assert message in refused(path)


def test_arrays_that_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    execute(path, "UPDATE keypoints SET data = substr(data, 1, 8) WHERE image_id = 2")
    with (
        pytest.raises(DatabaseError, match=r"image 2 are damaged: 5 x 2 values, of which 2 are"),
        transaction(path) as connection,
    ):
        read_image_keypoints(connection, 2)


OTHER_PROGRAM = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("SELECT count(*) FROM images").fetchone()
print("ready", flush=True)
sys.stdin.read()
"""


def other_program(path: Path, statement: str) -> subprocess.Popen[bytes]:
    """Start a program that has a database open in a transaction, or not."""
    child = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROGRAM, str(path), statement],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


def test_another_program_that_writes_is_not_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_access, "_LOCK_SECONDS", 0.1)
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    with other_program(path, "BEGIN IMMEDIATE") as child:
        assert "another program is using it" in refused(path)
        child.kill()
    # One that only has it open, as COLMAP's window does:
    with other_program(path, "SELECT 1"), transaction(path) as connection:
        add_image(connection, "new.jpg", 9, 7)
    assert "new.jpg" in "".join(database_rows(path)["images"])


READ_ONLY = """
import os, sys
from pathlib import Path
from sfm_match.io.database_access import DatabaseError, transaction
from sfm_match.io.database_images import add_image
if os.geteuid() == 0:
    os.setuid(65534)
try:
    with transaction(Path(sys.argv[1])) as connection:
        add_image(connection, "new.jpg", 9, 7)
except DatabaseError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="users and modes are POSIX")
@pytest.mark.parametrize(
    ("journal", "mode", "folder_mode", "message"),
    [
        ("delete", 0o444, 0o777, "is read-only"),
        ("delete", 0o666, 0o555, "its folder is read-only"),
        ("wal", 0o666, 0o555, "its folder is read-only"),
        ("wal", 0o000, 0o777, "cannot be opened, or no files can be written beside it"),
    ],
)
def test_a_database_that_is_read_only(
    tmp_path: Path, journal: str, mode: int, folder_mode: int, message: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "colmap.db"
    write_with_pycolmap(path)
    execute(path, f"PRAGMA journal_mode = {journal}")
    before = path.read_bytes()
    reached = Path(tempfile.gettempdir())
    for parent in (tmp_path, *tmp_path.parents):
        if parent in (reached, *reached.parents):
            break
        parent.chmod(0o755)
    path.chmod(mode)
    folder.chmod(folder_mode)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True, check=True
    )
    folder.chmod(0o755)
    assert done.stdout.startswith(f"{path}: {message}")
    assert path.read_bytes() == before


# --- breaking off ---------------------------------------------------------------------------------


def add_images(path: Path, images: Sequence[tuple[int, str, int]]) -> None:
    with transaction(path) as connection:
        for image_id, name, camera_id in images:
            if name == "wrong":
                raise KeyError("the name is wrong")
            add_image(connection, name, image_id, camera_id)


JOURNALS = pytest.mark.parametrize("journal", ["wal", "delete"])


@JOURNALS
def test_an_error_leaves_nothing_behind(tmp_path: Path, journal: str) -> None:
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    execute(path, f"PRAGMA journal_mode = {journal}")
    before = database_rows(path)
    for images, message in (
        ([(9, "new.jpg", 7), (10, "b.jpg", 7)], r"UNIQUE constraint failed: images\.name; nothing"),
        ([(9, "new.jpg", 8)], "FOREIGN KEY constraint failed; nothing was changed"),
        ([(9, "new.jpg", 7), (10, "wrong", 7)], "the name is wrong"),
    ):
        with pytest.raises((DatabaseError, KeyError), match=message):
            add_images(path, images)
    assert database_rows(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["colmap.db"]


BREAK_OFF = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from sfm_match.io.database_access import DatabaseError, transaction
from sfm_match.io.database_images import add_image, add_keypoints
path, how = Path(sys.argv[1]), sys.argv[2]
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
try:
    with transaction(path) as connection:
        # More than SQLite holds in memory: its files change before the end.
        for image_id in range(10, 30):
            add_image(connection, f"{image_id}.jpg", image_id, 7)
            add_keypoints(connection, image_id, np.ones((30000, 2), np.float32))
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
except DatabaseError as error:
    print(error)
"""


@JOURNALS
@pytest.mark.parametrize("how", ["kill", "full"])
def test_a_kill_or_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, journal: str, how: str
) -> None:
    path = tmp_path / "colmap.db"
    write_with_pycolmap(path)
    execute(path, f"PRAGMA journal_mode = {journal}")
    before = database_rows(path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BREAK_OFF), str(path), how],
        capture_output=True,
        text=True,
        check=False,
    )
    files = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    if how == "kill":
        assert done.returncode == -9
        spilled = "colmap.db-wal" if journal == "wal" else "colmap.db"
        assert files[spilled] > 2 << 20  # so there is something to roll back
    else:
        assert done.stdout.startswith(f"{path}: ")
        assert done.stdout.endswith("nothing was changed\n"), done
    with pycolmap.Database.open(path) as database:
        assert database.num_images() == 3
    assert database_rows(path) == before
