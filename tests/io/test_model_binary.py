"""Cut files of binary models are found without pycolmap, which would read on behind their ends."""

from __future__ import annotations

import shutil
from pathlib import Path

import pycolmap
import pytest

from sfm_match.io.model import ModelError, read_model
from sfm_match.io.model_binary import incomplete_file

PARTS = ("cameras", "images", "points3D", "rigs", "frames")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with rigs of three cameras, names of several lengths, and points."""
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=2, num_cameras_per_rig=3, num_frames_per_rig=2, num_points3D=5
    )
    with pycolmap.Database.open(":memory:") as database:
        model = pycolmap.synthesize_dataset(options, database)
    for image in model.images.values():
        image.name = f"{'ü' * image.image_id} {image.image_id}.jpg"
    folder = tmp_path_factory.mktemp("model")
    model.write(folder)
    return folder


def test_a_whole_model_is_whole(whole: Path) -> None:
    assert incomplete_file(whole) is None
    assert read_model(whole).num_reg_images() == 12


def test_every_camera_model_has_its_length(tmp_path: Path) -> None:
    model = pycolmap.Reconstruction()
    kinds = sorted(pycolmap.CameraModelId.__members__.values(), key=int)
    for number, kind in enumerate((k for k in kinds if int(k) >= 0), start=1):
        model.add_camera(pycolmap.Camera.create_from_model_id(number, kind, 100.0, 64, 48))
    assert len(model.cameras) > 10
    model.write(tmp_path)
    assert incomplete_file(tmp_path) is None


@pytest.mark.parametrize("part", PARTS)
def test_a_file_cut_anywhere_is_named(whole: Path, tmp_path: Path, part: str) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    path = folder / f"{part}.bin"
    content = path.read_bytes()
    step = max(1, len(content) // 500)
    for length in (*range(0, len(content), step), len(content) - 1):
        path.write_bytes(content[:length])
        assert incomplete_file(folder) == path
    with pytest.raises(ModelError, match="damaged or cut off"):
        read_model(folder)


def test_a_model_without_rigs_and_frames_is_one_of_an_older_colmap(
    whole: Path, tmp_path: Path
) -> None:
    for part in PARTS[:3]:
        shutil.copy(whole / f"{part}.bin", tmp_path)
    assert incomplete_file(tmp_path) is None


def test_an_unknown_camera_model_is_damage(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "model"))
    content = bytearray((folder / "cameras.bin").read_bytes())
    content[12:16] = b"\xff\xff\xff\x7f"
    (folder / "cameras.bin").write_bytes(content)
    assert incomplete_file(folder) == folder / "cameras.bin"
