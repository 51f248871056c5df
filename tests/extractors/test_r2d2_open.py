"""The network that comes with the package, on rendered photographs that it was not trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sfm_match.geometry import epipolar, poses
from sfm_match.io.images import read_image
from sfm_match.io.model import read_model
from sfm_match.spec import Spec
from sfm_match.types import View

GALLERY = Path(__file__).parents[2] / "datasets/gallery"


def test_its_matches_obey_the_true_epipolar_geometry() -> None:
    torch.set_num_threads(1)
    options = {"weights": "r2d2-open", "max_keypoints": 1000, "min_size": 1024}
    extractor = Spec.parse("extractors", "r2d2", options).build()
    matcher = Spec.parse("matchers", "nearest", {}).build()
    model = read_model(GALLERY / "gt")
    images = {image.name: image for image in model.images.values()}
    names = sorted(images)[:2]
    features = [extractor(read_image(GALLERY / "images" / name).pixels) for name in names]
    assert [len(one) for one in features] == [1000, 1000]
    encoded = [matcher.encode(View(None, one)) for one in features]
    (matches,) = matcher.match([(encoded[0], encoded[1])])
    views = [images[name] for name in names]
    rays = [
        model.cameras[view.camera_id].cam_from_img(one.keypoints[rows].astype(np.float64))
        for view, one, rows in zip(views, features, matches.indices.T, strict=True)
    ]
    true = poses.relative_pose(*(view.cam_from_world().matrix() for view in views))
    away = epipolar.epipolar_line_distances(rays[0], rays[1], epipolar.essential_from_pose(true))
    focal = model.cameras[views[0].camera_id].mean_focal_length()
    farthest = np.maximum(*away) * focal
    assert (farthest < 2).sum() > 200
    assert (farthest < 2).mean() > 0.5
    assert np.median(farthest[farthest < 2]) == pytest.approx(0.25, abs=0.25)
