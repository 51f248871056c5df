"""The truth as a list of pairs, each with its rotations, intrinsics and pose."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest

from sfm_match import evaluate_pairs
from sfm_match.geometry import poses
from sfm_match.io.store import Store
from sfm_match.stages.pair_results import PairsEvaluation
from sfm_match.types import ArrayF64, Features
from tests.pair_evaluation import errors_of, recipe
from tests.pose_lists import line_of, write_list
from tests.scenes import NAMES, SIZE

FOCAL = 770 / 960 * SIZE[0]


def turned_k(turn: int) -> ArrayF64:
    """K of a turned picture, but for distortion, with the first pixel's centre at (0, 0)."""
    width, height = SIZE if turn % 2 == 0 else SIZE[::-1]
    return np.array([[FOCAL, 0, width / 2 - 0.5], [0, FOCAL, height / 2 - 0.5], [0, 0, 1]])


def write_pairs(folder: Path, truth: Path, names: tuple[str, ...]) -> Path:
    """Write all pairs of a model as a list, with the intrinsics of a SIZE image."""
    images = pycolmap.Reconstruction(truth).images.values()
    world = {image.name: image.cam_from_world().matrix() for image in images}
    k, lines = turned_k(0), []
    for a, b in combinations(names, 2):
        pose = poses.relative_pose(world[a], world[b])
        lines.append(line_of(f"{a} {b}", "0 0", k, k, np.vstack([pose, [0, 0, 0, 1]])))
    return write_list(folder, *lines)


def as_pinhole(folder: Path, truth: Path) -> Path:
    """Write a model with the camera of `turned_k` in the size of the images."""
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        model="PINHOLE",
        width=SIZE[0],
        height=SIZE[1],
        params=[FOCAL, FOCAL, 160, 120],
        camera_id=1,
    )
    model.add_camera_with_trivial_rig(camera)
    for image in pycolmap.Reconstruction(truth).images.values():
        bare = pycolmap.Image(name=image.name, camera_id=1, image_id=image.image_id)
        model.add_image_with_trivial_frame(bare, image.cam_from_world())
    folder.mkdir()
    model.write(folder)
    return folder


def test_a_list_and_a_model_of_the_same_truth_agree(
    tmp_path: Path, gallery: Path, result: PairsEvaluation
) -> None:
    settings = recipe(gallery / "images")
    pinhole = as_pinhole(tmp_path / "pinhole", gallery / "truth")
    of_list = evaluate_pairs(write_pairs(tmp_path, pinhole, NAMES), settings, gallery / "out")
    of_model = evaluate_pairs(pinhole, settings, gallery / "out")
    assert errors_of(of_list) == pytest.approx(errors_of(of_model), abs=1e-6)
    assert of_list.precision == pytest.approx(of_model.precision)
    # The real camera has a little distortion, which a list cannot say.
    assert errors_of(of_list) != pytest.approx(errors_of(result), abs=1e-3)


def test_a_pair_in_the_other_order_has_the_flipped_matches(tmp_path: Path, gallery: Path) -> None:
    first, second = NAMES[:2]
    pinhole = as_pinhole(tmp_path / "pinhole", gallery / "truth")
    there = write_pairs(tmp_path, pinhole, (first, second))
    forth = evaluate_pairs(there, recipe(gallery / "images"), gallery / "out")
    there = write_pairs(tmp_path, pinhole, (second, first))
    back = evaluate_pairs(there, recipe(gallery / "images"), gallery / "out")
    assert back.matches[0].names == (second, first)
    assert back.matches[0].num_keypoints == (forth.matches[0].num_keypoints or ())[::-1]
    assert back.precision == pytest.approx(forth.precision)
    assert back.runs[0].poses[0].error < 3
    assert back.precision is not None
    assert back.precision > 90


def turned(pixels: Any, turn: int) -> Any:
    """Turn a picture clockwise by quarters."""
    return np.rot90(pixels, -turn)


def test_rotations_of_a_list_are_honoured(tmp_path: Path, gallery: Path) -> None:
    """Pictures that lie turned in their files, for an extractor that needs them upright."""
    world = {
        image.name: image.cam_from_world().matrix()
        for image in pycolmap.Reconstruction(gallery / "truth").images.values()
    }
    found = {}
    for case, turns in (("straight", (0, 0, 0)), ("turned", (1, 2, 3))):
        folder = tmp_path / case
        (folder / "images").mkdir(parents=True)
        rolled = []
        for name, turn in zip(NAMES, turns, strict=False):
            pixels = cv2.imread(str(gallery / "images" / name))
            cv2.imwrite(str(folder / "images" / f"{name}.png"), turned(pixels, turn))
            # A direction to the right comes to point down.
            quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
            rolled.append(np.linalg.matrix_power(quarter, turn) @ world[name])
        lines = [
            line_of(
                f"{NAMES[i]}.png {NAMES[j]}.png",
                f"{turns[i]} {turns[j]}",
                turned_k(turns[i]),
                turned_k(turns[j]),
                np.vstack([poses.relative_pose(rolled[i], rolled[j]), [0, 0, 0, 1]]),
            )
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        settings = recipe(folder / "images", "features.upright=true")
        found[case] = evaluate_pairs(
            write_list(folder, *lines), settings, folder / "out", threads=1
        )
    a, b = found["turned"], found["straight"]
    assert [pair.num_matches for pair in a.matches] == [pair.num_matches for pair in b.matches]
    assert b.precision is not None
    assert b.precision > 90
    assert a.precision == pytest.approx(b.precision, abs=0.5)
    assert errors_of(a) == pytest.approx(errors_of(b), abs=0.3)
    (store_folder,) = (tmp_path / "turned" / "out" / "features").iterdir()
    store = Store(store_folder, Features)
    sizes = {name: tuple(item.image_size) for name, item in store.items(store.entries())}
    store.close()
    # In the raster of the file, whichever way the picture was turned for the extractor.
    assert [sizes[f"{name}.png"] for name in NAMES[:3]] == [SIZE[::-1], SIZE, SIZE[::-1]]
