"""A truth that does not fit: an error that names it, before the work where it can be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pycolmap
import pytest

from tests.kill_at_steps import BASE
from tests.resume.runs import Reference
from tests.scenes import call, make_truth, model_content, results

Edit = Callable[[Path], None]


def rename_images(truth: Path) -> None:
    model = pycolmap.Reconstruction(truth)
    for image in model.images.values():
        image.name = f"other {image.name}".replace(" ", "_")
    model.write_text(truth)


def keep_no_image(truth: Path) -> None:
    pycolmap.Reconstruction().write_text(truth)


def keep_one_image(truth: Path) -> None:
    shutil.rmtree(truth)
    make_truth(truth.parent, ["00.jpg"])


def cut_text(truth: Path) -> None:
    path = truth / "images.txt"
    path.write_text(path.read_text()[:-300])


def cut_binary(part: str) -> Edit:
    def cut(truth: Path) -> None:
        pycolmap.Reconstruction(truth).write_binary(truth)
        path = truth / f"{part}.bin"
        path.write_bytes(path.read_bytes()[:-1])

    return cut


def write_garbage(truth: Path) -> None:
    for part in ("cameras", "images", "points3D"):
        (truth / f"{part}.bin").write_bytes(b"garbage " * 5)


def remove_images(truth: Path) -> None:
    (truth / "images.txt").unlink()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (rename_images, "truth has a pose of none of the images: it has other_00.jpg, other_01"),
        (keep_no_image, "truth has 0 images with a pose; a comparison needs at least 2"),
        (keep_one_image, "truth has 1 images with a pose; a comparison needs at least 2"),
        (cut_text, "truth cannot be read as a COLMAP model: "),
        (cut_binary("cameras"), "model: cameras.bin is damaged or cut off"),
        (cut_binary("images"), "model: images.bin is damaged or cut off"),
        (cut_binary("rigs"), "model: rigs.bin is damaged or cut off"),
        (cut_binary("frames"), "model: frames.bin is damaged or cut off"),
        (write_garbage, "model: cameras.bin is damaged or cut off"),
        (remove_images, "truth holds no COLMAP model: images.txt missing"),
        (shutil.rmtree, "truth is not a folder with a COLMAP model"),
    ],
)
def test_a_truth_that_does_not_fit_is_known_before_the_work(
    finished: Reference, tmp_path: Path, edit: Edit, message: str
) -> None:
    truth = make_truth(tmp_path)
    edit(truth)
    outcome = call("run", finished.images, tmp_path / "out", *BASE, "--truth", truth)
    assert outcome.code == 1
    assert outcome.stderr.startswith("error: ")
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not (tmp_path / "out" / "features").exists()
    evaluation = call("eval", "model", finished.out / "model", truth)
    assert evaluation.code == 1
    if edit is rename_images:
        assert "the model and the truth have no registered image in common" in evaluation.stderr
    else:
        assert evaluation.stderr == outcome.stderr


def test_a_truth_of_other_image_sizes_compares_the_same_poses(
    finished: Reference, tmp_path: Path
) -> None:
    # The photographs are 320 x 240; the truth says 960 x 720. Poses do not depend on it.
    truth = make_truth(tmp_path)
    assert pycolmap.Reconstruction(truth).cameras[1].width == 960
    out = Path(shutil.copytree(finished.out, tmp_path / "out"))
    assert call("run", finished.images, out, *BASE, "--truth", truth).code == 0
    assert results(out)["evaluation"]["rotation"]["max"] < 1.0


def test_a_truth_of_some_of_the_images_counts_the_others_as_extra(
    finished: Reference, tmp_path: Path
) -> None:
    truth = make_truth(tmp_path, ["00.jpg", "01.jpg", "02.jpg"])
    outcome = call("eval", "model", finished.out / "model", truth)
    assert outcome.code == 0
    assert "3 of 3 registered, 3 extra" in outcome.stdout


def test_an_output_folder_in_place_of_its_model_gives_a_hint(
    finished: Reference, tmp_path: Path
) -> None:
    outcome = call("eval", "model", finished.out, make_truth(tmp_path))
    assert outcome.code == 1
    assert f"; did you mean {finished.out / 'model'}?" in outcome.stderr


def test_a_damaged_model_of_a_run_is_made_again(finished: Reference, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished.out, tmp_path / "out"))
    for part in ("images", "points3D"):
        path = out / "model" / f"{part}.bin"
        path.write_bytes(path.read_bytes()[:-5])
        truth = make_truth(tmp_path / part)
        outcome = call("eval", "model", out / "model", truth)
        assert f"as a COLMAP model: {path.name} is damaged or cut off" in outcome.stderr
        assert call("run", finished.images, out, *BASE).code == 0
        assert model_content(out / "model") == finished.model
