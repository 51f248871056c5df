"""`import --into`: what the user of the command sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.distance import pdist

from sfm_match import Recipe, Run
from sfm_match.types import ArrayF64
from tests import rig_scene
from tests.import_scene import reconstruct
from tests.scenes import NAMES, call, database_rows, make_images, results

QUIET = ("-q", "--threads", "1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    for command in ("extract", "pairs", "match"):
        folders = [images, out] if command == "extract" else [out]
        assert call(command, *folders, *QUIET).code == 0
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def import_images(path: Path, images: Path, names: list[str] | None = None) -> Path:
    """Let COLMAP make a database of images without features."""
    pycolmap.Database.open(path).close()
    mode = pycolmap.CameraMode.SINGLE
    pycolmap.import_images(path, images, mode, image_names=names or [])
    return path


def test_it_says_what_it_added(out: Path, images: Path, tmp_path: Path) -> None:
    path = import_images(tmp_path / "user.db", images)
    outcome = call("import", out, "--into", path, "--json", *QUIET)
    assert (outcome.code, outcome.stderr) == (0, "")
    report = json.loads(outcome.stdout)["stages"]["import_into"]
    assert report.items() >= {"found": 6, "missing": [], "images": 0, "keypoints": 6}.items()
    assert report == results(out)["stages"]["import_into"]
    assert report["verified_again"] == 15  # nothing was verified before
    text = call("import", out, "--into", path, *QUIET).stdout
    assert text == (
        f"{path}: 6 images found, 0 added; added keypoints of 0 images, matches of 0 pairs and "
        "geometries of 0; 0 pairs verified with its cameras\n"
    )
    assert not (out / "database.db").exists()


def test_the_same_in_python(out: Path, images: Path, tmp_path: Path) -> None:
    path = import_images(tmp_path / "user.db", images, list(NAMES[:5]))
    run = Run(out, Recipe.load(out / "recipe.toml"), threads=1)
    assert run.import_into(path).missing == [NAMES[5]]
    assert run.import_into(str(path), add_images=True).images == 1
    with pycolmap.Database.open(path) as database:
        assert database.num_images() == database.num_frames() == 6


def test_images_that_are_left_out_give_code_4(out: Path, images: Path, tmp_path: Path) -> None:
    path = import_images(tmp_path / "user.db", images, list(NAMES[:4]))
    outcome = call("import", out, "--into", path, *QUIET)
    assert outcome.code == 4
    assert outcome.stderr.splitlines() == [
        f"left out: {name}: not in {path}; --add-images adds it" for name in NAMES[4:]
    ]
    assert outcome.stdout.startswith(f"{path}: 4 images found, 0 added; added keypoints of 4 ")
    outcome = call("import", out, "--into", path, "--add-images", *QUIET)
    assert outcome.code == 0
    assert outcome.stdout.startswith(f"{path}: 4 images found, 2 added; added keypoints of 2 ")


def test_conflicts_are_listed_and_give_code_1(out: Path, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "user.db"
    options = pycolmap.FeatureExtractionOptions(num_threads=1)
    pycolmap.extract_features(path, images, extraction_options=options)
    before = database_rows(path)
    outcome = call("import", out, "--into", path, "--json", *QUIET)
    assert (outcome.code, outcome.stdout) == (1, "")
    lines = outcome.stderr.splitlines()
    assert lines[0].startswith(f"error: {path}: nothing was changed")
    assert lines[0].endswith("6 conflicts:")
    assert [line.split(":")[0].strip() for line in lines[1:]] == list(NAMES)
    assert all("has other keypoints in the database" in line for line in lines[1:])
    assert database_rows(path) == before


def test_wrong_use(out: Path, images: Path, tmp_path: Path) -> None:
    outcome = call("import", out, "--add-images", *QUIET)
    assert outcome.code == 2
    assert "--add-images goes with --into FILE" in outcome.stderr
    outcome = call("import", out, "--into", tmp_path / "no.db", *QUIET)
    assert (outcome.code, outcome.stderr) == (1, f"error: {tmp_path / 'no.db'}: no such database\n")
    outcome = call("import", out, "--into", images / NAMES[0], *QUIET)
    assert outcome.code == 1
    assert "is not an SQLite database" in outcome.stderr
    assert call("verify", out, *QUIET).code == 0
    assert call("import", out, *QUIET).code == 0
    outcome = call("import", out, "--into", out / "database.db", *QUIET)
    assert outcome.code == 1
    assert "is replaced as a whole; import without naming it" in outcome.stderr


@pytest.mark.slow
def test_photographs_of_a_rig(tmp_path: Path) -> None:
    """COLMAP's features stay in a database of a rig; where it has none, ours go in."""
    images, out = tmp_path / "images", tmp_path / "out"
    truth = rig_scene.make_photographs(images)
    with_features, without = tmp_path / "features.db", tmp_path / "images.db"
    mode = pycolmap.CameraMode.PER_FOLDER
    pycolmap.extract_features(with_features, images, camera_mode=mode)
    pycolmap.Database.open(without).close()
    pycolmap.import_images(without, images, mode)
    for path in (with_features, without):
        rig_scene.apply_rig(path)
    for command in ("extract", "pairs", "match"):
        folders = [images, out] if command == "extract" else [out]
        assert call(command, *folders, *QUIET).code == 0
    before = database_rows(with_features)
    outcome = call("import", out, "--into", with_features, *QUIET)
    assert outcome.code == 1
    assert outcome.stderr.count("has other keypoints in the database") == 12
    assert database_rows(with_features) == before
    before = database_rows(without)
    assert call("import", out, "--into", without, *QUIET).code == 0
    after = database_rows(without)
    for table in ("cameras", "rigs", "rig_sensors", "frames", "frame_data", "images"):
        assert after[table] == before[table]
    model = reconstruct(without, tmp_path / "models")
    assert (model.num_reg_images(), model.num_frames(), model.num_rigs()) == (12, 6, 1)
    assert model.num_points3D() > 2500
    # The rig gives the scale, so that distances are the true ones.
    found, true = (
        np.array([centre(some, name) for name in rig_scene.NAMES]) for some in (model, truth)
    )
    np.testing.assert_allclose(pdist(found), pdist(true), atol=0.01)
    left, right = np.split(found, 2)
    np.testing.assert_allclose(np.linalg.norm(left - right, axis=1), 0.4, atol=1e-9)


def centre(model: pycolmap.Reconstruction, name: str) -> ArrayF64:
    image = model.find_image_with_name(name)
    assert image is not None
    return np.asarray(image.projection_center())
