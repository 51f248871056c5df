"""Synthetic scenes with known poses, as COLMAP makes them, in the package's types."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap

from sfm_match.geometry.cameras import Cameras
from sfm_match.geometry.two_view import estimate_two_view
from sfm_match.io.database import write_database
from sfm_match.spec import Spec
from sfm_match.types import (
    ArrayF32,
    ArrayF64,
    Features,
    Matches,
    Pair,
    TwoView,
)

FOCAL, CENTRE, WIDTH, HEIGHT = 600.0, (320.0, 240.0), 640, 480
MATCHER = Spec("matchers", "synthetic", 1, {})
_VERIFICATION = pycolmap.TwoViewGeometryOptions(
    compute_relative_pose=True, ransac={"random_seed": 0}
)


@dataclass(frozen=True)
class Scene:
    """A scene, its images' keypoints, and their correct (and some wrong) matches."""

    truth: pycolmap.Reconstruction
    cameras: Cameras
    keypoints: dict[str, ArrayF32]
    matches: dict[Pair, Matches]

    @property
    def names(self) -> list[str]:
        return sorted(self.keypoints)

    @property
    def digests(self) -> dict[str, bytes]:
        return {name: bytes([i]) * 32 for i, name in enumerate(self.names)}

    def features(self, name: str) -> Features:
        points = self.keypoints[name]
        return Features(
            keypoints=points,
            scores=np.ones(len(points), np.float32),
            descriptors=np.zeros((len(points), 1), np.float16),
            image_size=np.array([WIDTH, HEIGHT], np.int32),
        )

    def pose(self, name: str) -> ArrayF64:
        image = self.truth.find_image_with_name(name)
        assert image is not None
        return np.asarray(image.cam_from_world().matrix())

    def two_view(self, pair: Pair) -> TwoView:
        return estimate_two_view(
            self.cameras[pair.a],
            self.keypoints[pair.a],
            self.cameras[pair.b],
            self.keypoints[pair.b],
            self.matches[pair],
            _VERIFICATION,
        )

    def write_database(self, path: Path, pairs: list[Pair] | None = None) -> None:
        """Write a database of the pairs, all of them by default, verified."""
        chosen = list(self.matches) if pairs is None else pairs
        write_database(
            path,
            self.cameras.cameras,
            self.cameras.of_image,
            self.keypoints.items(),
            [(pair, self.matches[pair], self.two_view(pair)) for pair in chosen],
            {"fingerprint": "synthetic"},
        )


def camera(camera_id: int = 1, *, prior: bool = True, focal: float = FOCAL) -> pycolmap.Camera:
    made = pycolmap.Camera(
        camera_id=camera_id,
        model="SIMPLE_RADIAL",
        width=WIDTH,
        height=HEIGHT,
        params=[focal, *CENTRE, 0.0],
    )
    made.has_prior_focal_length = prior
    return made


def synthesize(
    num_images: int,
    *,
    num_points: int = 200,
    prior: bool = True,
    noise: float = 0.0,
    inlier_ratio: float = 1.0,
    focal: float = FOCAL,
    seed: int = 0,
) -> Scene:
    """Return images of points in a cube, seen from all round.

    Args:
        num_images: number of images of one camera, of focal length 600 pixels.
        num_points: points; each is seen in every image.
        prior: whether the focal length counts as known.
        noise: standard deviation of the keypoints, in pixels.
        inlier_ratio: the share of correct matches.
        focal: the focal length that the scene's camera claims.
        seed: of all random numbers.
    """
    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1,
        num_cameras_per_rig=1,
        num_frames_per_rig=num_images,
        num_points3D=num_points,
        num_points2D_without_point3D=10,
        inlier_match_ratio=inlier_ratio,
        camera_width=WIDTH,
        camera_height=HEIGHT,
        camera_model_id=pycolmap.CameraModelId.SIMPLE_RADIAL,
        camera_params=[FOCAL, *CENTRE, 0.0],
    )
    with pycolmap.Database.open(":memory:") as database:
        truth = pycolmap.synthesize_dataset(options, database)
        if noise:
            noisy = pycolmap.SyntheticNoiseOptions(point2D_stddev=noise)
            pycolmap.synthesize_noise(noisy, truth, database)
        images = {image.name: image.image_id for image in database.read_all_images()}
        keypoints = {n: database.read_keypoints(i)[:, :2].copy() for n, i in images.items()}
        matches = {
            Pair(a, b): Matches(
                found := database.read_matches(images[a], images[b]).astype(np.int32),
                np.ones(len(found), np.float32),
            )
            for a, b in combinations(sorted(images), 2)
        }
    cameras = Cameras({1: camera(prior=prior, focal=focal)}, dict.fromkeys(images, 1), False)
    return Scene(truth, cameras, keypoints, matches)


def project(points: ArrayF64, cam_from_world: ArrayF64) -> ArrayF32:
    """Return the image points, float32 (N, 2), of points (N, 3) in the camera of `camera`."""
    seen = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    return (FOCAL * seen[:, :2] / seen[:, 2:] + CENTRE).astype(np.float32)


def same_rows(num: int) -> Matches:
    """Return the matches of each row with the same row of the other image."""
    rows = np.arange(num, dtype=np.int32)
    return Matches(np.stack([rows, rows], axis=1), np.ones(num, np.float32))
