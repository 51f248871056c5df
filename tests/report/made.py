"""Output folders of runs that never were: synthetic models, with pictures of the gallery."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pycolmap

from sfm_match.io.database import write_database
from sfm_match.io.images import read_image
from sfm_match.io.results import versions
from sfm_match.types import ArrayF64, Matches, Pair, TwoView, TwoViewConfig
from tests.colmap_scene import HEIGHT, WIDTH, camera, project
from tests.scenes import GALLERY

ArrayInt = npt.NDArray[np.intp]

CALIBRATED = TwoViewConfig.CALIBRATED
STEP = 0.5

RECIPE = 'description = "a <b>bold</b> recipe"\n\n[features]\nname = "sift"\n'


def make_out(
    folder: Path, names: Sequence[str], *, num_points: int = 400, size: tuple[int, int] = (320, 240)
) -> Path:
    """Write an output folder `folder/out` with a model of the named images, and `folder/truth`.

    The cameras go along a wall. Each sees the points before it, and is matched with its neighbours;
    a tenth of the matches are wrong.

    Args:
        folder: where to; the images are in `folder/images`.
        names: of the images, sorted.
        num_points: 3D points of the model.
        size: width and height of the pictures.
    """
    out = folder / "out"
    for path in (out / "model", folder / "truth", folder / "images"):
        path.mkdir(parents=True)
    points, keypoints, seen = _wall(len(names), num_points)
    model = _model(names, points, keypoints, seen)
    model.write(out / "model")
    model.write(folder / "truth")
    rng = np.random.default_rng(1)
    pairs = []
    for i in range(len(names) - 1):
        _, rows0, rows1 = np.intersect1d(seen[i], seen[i + 1], return_indices=True)
        inliers = rng.random(len(rows0)) > 0.1
        rows1 = np.where(inliers, rows1, rng.permutation(rows1))
        indices = np.stack([rows0, rows1], axis=1).astype(np.int32)
        found = Matches(indices, np.ones(len(indices), np.float32))
        pairs.append(
            (Pair(names[i], names[i + 1]), found, TwoView(CALIBRATED, inliers, F=np.eye(3)))
        )
    points2d = [(name, k.astype(np.float32)) for name, k in zip(names, keypoints, strict=True)]
    of_image = dict.fromkeys(names, 1)
    write_database(out / "database.db", {1: camera()}, of_image, points2d, pairs, {})
    _write_pictures(folder / "images", names, size)
    _write_results(out, folder / "images", names, model)
    (out / "recipe.toml").write_text(RECIPE)
    return out


def _wall(num: int, num_points: int) -> tuple[ArrayF64, list[ArrayF64], list[ArrayInt]]:
    """Return points (P, 3) and, of each image, its keypoints (N, 2) and their points' rows (N,)."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -1.5, 4], [STEP * num + 1, 1.5, 5], (num_points, 3))
    keypoints, seen = [], []
    for i in range(num):
        places = project(points, _pose(i)).astype(np.float64)
        visible = np.flatnonzero(((places > 0) & (places < [WIDTH, HEIGHT])).all(axis=1))
        keypoints.append(places[visible] + rng.normal(0, 0.3, (len(visible), 2)))
        seen.append(visible)
    return points, keypoints, seen


def _pose(i: int) -> ArrayF64:
    """Return the camera `cam_from_world` at the i-th place along the wall, now high, now low."""
    return np.column_stack([np.eye(3), [-STEP * i, -0.4 * np.sin(i), 0.0]])


def _model(
    names: Sequence[str],
    points: ArrayF64,
    keypoints: Sequence[ArrayF64],
    seen: Sequence[ArrayInt],
) -> pycolmap.Reconstruction:
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera())
    tracks = [pycolmap.Track() for _ in points]
    for i, name in enumerate(names):
        image = pycolmap.Image(name=name, camera_id=1, image_id=i + 1, keypoints=keypoints[i])
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(_pose(i)))
        for row, point in enumerate(seen[i].tolist()):
            tracks[point].add_element(i + 1, row)
    for point, track in zip(points, tracks, strict=True):
        if track.length() > 1:
            model.add_point3D(point, track, np.array([200, 120, 60], np.uint8))
    model.update_point_3d_errors()
    return model


def _write_pictures(folder: Path, names: Sequence[str], size: tuple[int, int]) -> None:
    sources = sorted((GALLERY / "images").iterdir())
    pictures = [cv2.resize(read_image(path).pixels[..., ::-1], size) for path in sources]
    encoded = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[i % len(encoded)])


def _write_results(
    out: Path, images: Path, names: Sequence[str], model: pycolmap.Reconstruction
) -> None:
    summary = {
        "images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": model.compute_num_observations(),
        "track_length": model.compute_mean_track_length(),
        "reprojection_error": 0.0,
    }
    stages = {
        "extract": {"seconds": 12.5, "computed": len(names), "reused": 0, "failures": {}},
        "map": {"seconds": 75.0, "models": [summary], "reused": False, "reason": None},
    }
    content = {
        "recipe": {"images": {"path": str(images)}},
        "fingerprints": {"features": "5c62711ed964d91d"},
        "versions": versions(),
        "images": dict.fromkeys(names, "00"),
        "failures": {},
        "stages": stages,
    }
    (out / "results.json").write_text(json.dumps(content))
