"""The doctor on a database of 1,000 images and 10,000 verified pairs.

    python -m tests.benchmarks.bench_doctor

The images stand in a ring around points that each sees a part of; every pair has 500 true matches
or less, with a geometry of COLMAP's (E, no pose), so that poses have to be found from it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.geometry.epipolar import essential_from_pose
from sfm_match.report.doctor import examine
from tests.benchmarks.measure import cost_of, in_process, report

NUM_IMAGES, NUM_KEYPOINTS, NUM_NEIGHBOURS, NUM_MATCHES = 1000, 5000, 10, 500
FOCAL, WIDTH, HEIGHT = 900.0, 1024, 768


def pose_of(image: int) -> np.ndarray:
    """Return `cam_from_world` (3, 4) of a camera in the ring that looks outwards."""
    angle = 2 * np.pi * image / NUM_IMAGES
    sine, cosine = np.sin(angle), np.cos(angle)
    rotation = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    return np.column_stack(
        [rotation, -rotation @ (40 * np.array([sine, 0.02 * (image % 3), cosine]))]
    )


def make(path: Path) -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, 200_000)
    radii = rng.uniform(46, 50, len(angles))
    heights = rng.uniform(-2, 2, len(angles))
    points = np.stack([radii * np.sin(angles), heights, radii * np.cos(angles)], axis=1)
    poses = [pose_of(image) for image in range(NUM_IMAGES)]
    with pycolmap.Database.open(path) as database, pycolmap.DatabaseTransaction(database):
        camera = pycolmap.Camera.create_from_model_name(0, "SIMPLE_RADIAL", FOCAL, WIDTH, HEIGHT)
        camera.has_prior_focal_length = True
        camera_id = database.write_camera(camera)
        ids, seen = [], []
        for image, pose in enumerate(poses):
            in_camera = points @ pose[:, :3].T + pose[:, 3]
            front = np.flatnonzero(in_camera[:, 2] > 1)
            xy = FOCAL * in_camera[front, :2] / in_camera[front, 2:] + [WIDTH / 2, HEIGHT / 2]
            inside = (xy > 0).all(axis=1) & (xy < [WIDTH, HEIGHT]).all(axis=1)
            rows = front[inside][:NUM_KEYPOINTS]
            noisy = np.clip(xy[inside][: len(rows)] + rng.normal(0, 0.3, (len(rows), 2)), 0, WIDTH)
            keypoints = rng.uniform(0, HEIGHT, (NUM_KEYPOINTS, 2)).astype(np.float32)
            keypoints[: len(rows)] = np.minimum(noisy, [WIDTH, HEIGHT])
            name = f"{image:04d}.jpg"
            ids.append(database.write_image(pycolmap.Image(name=name, camera_id=camera_id)))
            database.write_keypoints(ids[-1], keypoints)
            seen.append(rows)
        for a in range(NUM_IMAGES):
            for b in range(a + 1, min(a + 1 + NUM_NEIGHBOURS, NUM_IMAGES)):
                _, in_a, in_b = np.intersect1d(seen[a], seen[b], return_indices=True)
                matches = np.stack([in_a, in_b], axis=1)[:NUM_MATCHES].astype(np.uint32)
                rotation = poses[b][:, :3] @ poses[a][:, :3].T
                geometry = pycolmap.TwoViewGeometry()
                geometry.config, geometry.inlier_matches = 2, matches
                move = poses[b][:, 3] - rotation @ poses[a][:, 3]
                geometry.E = essential_from_pose(np.c_[rotation, move / np.linalg.norm(move)])
                database.write_matches(ids[a], ids[b], matches)
                database.write_two_view_geometry(ids[a], ids[b], geometry)


def doctor(folder: Path) -> None:
    report(cost_of(lambda: examine(folder / "database.db")))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "database.db"
        make(path)
        print(f"{path.stat().st_size / 1e6:.0f} MB")
        for finding in examine(path):
            print(finding.severity.name, finding.code, finding.what)
        for run in range(3):
            cost = in_process(__spec__.name, "doctor", name)
            print(
                f"run {run}: {cost.seconds:.2f} s, {cost.cpu_seconds:.2f} processor s, "
                f"{cost.peak_mb:.0f} MB peak"
            )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        doctor(Path(sys.argv[2]))
    else:
        main()
