from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image as PillowImage

from sfm_match.io.model import ModelError
from sfm_match.training.tracked import Tracked, tracking
from tests.training.test_warps import STILL, picture

SMALL = Tracked(size=128, resize=512, min_shared=20, min_in_crop=5)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COLMAP model `sparse` of points without images of them, and pictures `images`."""
    folder = tmp_path_factory.mktemp("scene")
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=1, num_cameras_per_rig=1, num_frames_per_rig=4, num_points3D=600
    )
    model = pycolmap.synthesize_dataset(options)
    (folder / "sparse").mkdir()
    model.write(folder / "sparse")
    for image in model.images.values():
        camera = model.cameras[image.camera_id]
        path = folder / "images" / image.name
        path.parent.mkdir(exist_ok=True, parents=True)
        PillowImage.fromarray(picture(image.image_id, (camera.height, camera.width))).save(path)
    return folder


def test_tracks_say_where_pixels_are(scene: Path) -> None:
    source = tracking(scene / "sparse", scene / "images", SMALL, STILL)
    model = pycolmap.Reconstruction(scene / "sparse")
    camera = next(iter(model.cameras.values()))
    scale = 512 / max(camera.width, camera.height)
    # Where every pair of images sees a point, relative to each other.
    moves = []
    images = list(model.images.values())
    for a in images:
        seen = {p.point3D_id: p.xy for p in a.points2D if p.has_point3D()}
        for b in images:
            if a is not b:
                both = [(seen[p.point3D_id], p.xy) for p in b.points2D if p.point3D_id in seen]
                moves.append(np.array([(y - x) * scale for x, y in both]))
    for seed in range(4):
        pair = source(np.random.default_rng(seed))
        assert pair.image0.shape == pair.image1.shape == (128, 128, 3)
        known = ~np.isnan(pair.flow[..., 0])
        assert 5 <= known.sum() < 600
        rows, columns = np.nonzero(known)
        found = pair.flow[known] - np.stack([columns, rows], axis=1) - 0.5
        # All are off by what the two crops are shifted, a whole number of pixels.
        fits = []
        for of_pair in moves:
            shifts = of_pair - found[0]
            errors = [
                np.abs(of_pair[None] - found[:, None] - s).max(axis=2).min(axis=1).max()
                for s in shifts[np.abs(shifts - shifts.round()).max(axis=1) < 2e-3]
            ]
            fits.append(min(errors, default=np.inf))
        assert min(fits) < 0.01


def test_models_that_cannot_be_trained_on(scene: Path) -> None:
    with pytest.raises(ModelError, match="no two images share 100000 points"):
        tracking(scene / "sparse", scene / "images", Tracked(min_shared=100_000), STILL)
    source = tracking(scene / "sparse", scene / "images", Tracked(size=400, resize=512), STILL)
    with pytest.raises(ModelError, match="smaller than a crop of 400 pixels"):
        source(np.random.default_rng(0))
