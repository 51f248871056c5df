"""The sample scene in datasets/gallery: what it promises, and that make.py still makes it."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from PIL import Image as PillowImage

GALLERY = Path(__file__).parents[2] / "datasets" / "gallery"
NAMES = [f"{index:02}.jpg" for index in range(16)]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("skimage", reason="datasets/gallery/make.py needs scikit-image")
    monkeypatch.syspath_prepend(str(GALLERY))
    return importlib.import_module("make")


def poses(model: pycolmap.Reconstruction) -> dict[str, pycolmap.Rigid3d]:
    return {image.name: image.cam_from_world() for image in model.images.values()}


def test_the_ground_truth_is_sixteen_posed_images_of_one_camera() -> None:
    model = pycolmap.Reconstruction(GALLERY / "gt")
    assert sorted(poses(model)) == NAMES
    assert [c.model.name for c in model.cameras.values()] == ["SIMPLE_RADIAL"]
    assert model.cameras[1].params.tolist() == [770.0, 480.0, 360.0, -0.03]
    assert (model.num_points3D(), len(model.rigs), len(model.frames)) == (0, 1, 16)


def test_the_photographs_fit_the_camera_and_are_small() -> None:
    files = sorted((GALLERY / "images").iterdir())
    assert [f.name for f in files] == NAMES
    assert sum(f.stat().st_size for f in files) < 3_000_000
    for file in files:
        guess = pycolmap.infer_camera_from_image(file)
        assert (guess.width, guess.height) == (960, 720)
        # 28 mm on the diagonal of 24 x 36 mm; true is 770.
        assert guess.focal_length == pytest.approx(28 / np.hypot(24, 36) * 1200, abs=0.1)
        assert guess.has_prior_focal_length


def test_make_gives_the_ground_truth_that_is_stored(make: ModuleType) -> None:
    stored, made = poses(pycolmap.Reconstruction(GALLERY / "gt")), poses(make.ground_truth())
    assert sorted(made) == sorted(stored)
    for name in stored:
        assert made[name].matrix() == pytest.approx(stored[name].matrix(), abs=1e-14)


def test_no_photograph_is_both_used_and_reserved(make: ModuleType) -> None:
    assert not set(make.USED) & set(make.RESERVED)
    assert len(make.USED) == len(make.RESERVED)
    for name in (*make.USED, *make.RESERVED):
        assert min(make.photograph(name).shape[:2]) >= 100


@pytest.mark.slow
def test_make_gives_the_photographs_that_are_stored(make: ModuleType, tmp_path: Path) -> None:
    scene = make.lit_gallery()
    for index in (2, 13):
        make.save_jpeg(tmp_path / "made.jpg", make.view(scene, index))
        with PillowImage.open(tmp_path / "made.jpg") as image:
            made = np.asarray(image).astype(float)
        with PillowImage.open(GALLERY / "images" / NAMES[index]) as image:
            assert np.abs(made - np.asarray(image)).mean() < 1.0


@pytest.mark.slow
def test_colmap_reconstructs_it_to_a_few_hundredths_of_a_degree(tmp_path: Path) -> None:
    database, images = tmp_path / "database.db", GALLERY / "images"
    pycolmap.set_random_seed(0)
    pycolmap.extract_features(
        database,
        images,
        camera_mode=pycolmap.CameraMode.SINGLE,
        extraction_options=pycolmap.FeatureExtractionOptions(num_threads=2, use_gpu=False),
    )
    matching = pycolmap.FeatureMatchingOptions(num_threads=2, use_gpu=False)
    pycolmap.match_exhaustive(database, matching_options=matching)
    (tmp_path / "model").mkdir()
    options = pycolmap.IncrementalPipelineOptions(num_threads=2, random_seed=0)
    models = pycolmap.incremental_mapping(database, images, tmp_path / "model", options)
    assert [model.num_reg_images() for model in models.values()] == [16]
    assert models[0].cameras[1].params == pytest.approx([770, 480, 360, -0.03], abs=0.5)
    assert models[0].compute_mean_reprojection_error() < 0.3
    errors = pose_errors(poses(models[0]), poses(pycolmap.Reconstruction(GALLERY / "gt")))
    assert np.median(errors) < 0.03
    assert errors.max() < 0.15


def pose_errors(
    found: dict[str, pycolmap.Rigid3d], true: dict[str, pycolmap.Rigid3d]
) -> npt.NDArray[Any]:
    """The greater of rotation and translation direction error of every pair, in degrees."""
    errors = []
    for index, first in enumerate(NAMES):
        for second in NAMES[index + 1 :]:
            a, b = (p[second] * p[first].inverse() for p in (found, true))
            turn = np.degrees((a.rotation * b.rotation.inverse()).angle())
            directions = [p.translation / np.linalg.norm(p.translation) for p in (a, b)]
            chord = np.linalg.norm(directions[0] - directions[1])
            errors.append(max(turn, np.degrees(2 * np.arcsin(chord / 2))))
    return np.array(errors)
