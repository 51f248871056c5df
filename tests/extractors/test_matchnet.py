from __future__ import annotations

import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial import cKDTree

from sfm_match import spec as spec_module
from sfm_match.extractors import matchnet
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import ArrayF32, Features, Image
from sfm_match.weights import WeightsError
from tests.components import checkpoint
from tests.matchnet_weights import BOTTLENECK, distance_weights, random_network, write
from tests.pictures import noise_picture

torch.set_num_threads(1)

PICTURE = noise_picture(120, 150)
FEW = {"name": "sift", "max_keypoints": 200}


def parse(**options: Any) -> Spec:
    return Spec.parse("extractors", "matchnet", {"weights": str(distance_weights())} | options)


def extract(image: Image, **options: Any) -> Features:
    found: Features = parse(**options).build()(image)
    return found


@pytest.fixture
def grid(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an extractor of keypoints on a grid, without scales and orientations."""
    point = EntryPoint("grid", "tests.plugin_grid", "sfm_match.extractors")
    monkeypatch.setattr(
        spec_module, "entry_points", lambda group: [point] if group == point.group else []
    )
    return point.name


# --- what it finds --------------------------------------------------------------------------------


@pytest.mark.parametrize("bottleneck", [0, BOTTLENECK])
def test_the_keypoints_are_the_detectors(tmp_path: Path, bottleneck: int) -> None:
    detector = {"name": "sift", "max_keypoints": 60}
    path = write(random_network(bottleneck, 8), tmp_path / "weights.safetensors")
    found = extract(PICTURE, weights=str(path), detector=detector)
    expected = Spec.parse("extractors", "sift", {"max_keypoints": 60}).build()(PICTURE)
    assert len(found) >= 60
    for name in ("keypoints", "scores", "scales", "orientations", "image_size"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.descriptors.shape == (len(found), bottleneck or 3136)
    assert found.descriptors.dtype == np.float16
    assert (found.descriptors != 0).any(axis=1).all()


def differences(
    moved: ArrayF32, found: Features, reference: Features
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return L1 distances of descriptors of the same and of other keypoints.

    Args:
        moved: (N, 2), where the reference's keypoints are expected.
        found: features of a changed picture.
        reference: features of the picture.
    """
    distances, rows = map(np.asarray, cKDTree(found.keypoints).query(moved))
    assert found.scales is not None
    assert reference.scales is not None
    near = np.flatnonzero(distances < 0.5)
    left, right = (
        torch.from_numpy(values.astype(np.float32))
        for values in (reference.descriptors[near], found.descriptors[rows[near]])
    )
    all_of_them = torch.cdist(left, right, p=1).numpy().astype(np.float64)
    return np.diagonal(all_of_them), all_of_them[~np.eye(len(near), dtype=bool)]


def test_descriptors_follow_a_turn() -> None:
    turned = np.ascontiguousarray(np.rot90(PICTURE, -1))
    before, after = extract(PICTURE, detector=FEW), extract(turned, detector=FEW)
    moved = np.stack([120 - before.keypoints[:, 1], before.keypoints[:, 0]], axis=1)
    same, other = differences(moved, after, before)
    assert len(same) > 100
    # Of several orientations of a place, the neighbour may be another one.
    assert np.mean(same < 0.1 * np.median(other)) > 0.7
    upright = FEW | {"upright": True}
    fixed = extract(PICTURE, detector=upright), extract(turned, detector=upright)
    moved = np.stack([120 - fixed[0].keypoints[:, 1], fixed[0].keypoints[:, 0]], axis=1)
    same, other = differences(moved, fixed[1], fixed[0])
    assert np.mean(same < 0.1 * np.median(other)) < 0.1


def test_descriptors_follow_a_scale() -> None:
    large = np.asarray(cv2.resize(PICTURE, (300, 240), interpolation=cv2.INTER_CUBIC), np.uint8)
    before, after = extract(PICTURE, detector=FEW), extract(large, detector=FEW)
    # Keypoints of both of about the same size.
    same, other = differences(2 * before.keypoints, after, before)
    assert len(same) > 100
    assert np.median(same) < 0.15 * np.median(other)


def test_without_scales_and_orientations_patches_are_upright_and_of_one_size(grid: str) -> None:
    image = noise_picture(200, 260)
    found = extract(image, detector={"name": grid}, side=40)
    assert found.scales is None
    assert found.orientations is None
    moved = extract(image[20:, 40:], detector={"name": grid}, side=40)
    inside = (moved.keypoints >= 25).all(axis=1) & (moved.keypoints <= [195, 155]).all(axis=1)
    rows = np.asarray(cKDTree(found.keypoints).query(np.add(moved.keypoints, [40, 20]))[1])
    np.testing.assert_allclose(
        moved.descriptors[inside], found.descriptors[rows[inside]], rtol=0, atol=1e-4
    )
    assert np.count_nonzero(inside) > 30
    # Of the half image, patches of half the side show the same.
    half = np.asarray(cv2.resize(image, (130, 100), interpolation=cv2.INTER_AREA), np.uint8)
    options = {"detector": {"name": grid, "step": 10}}
    same, twice = (extract(half, side=side, **options).descriptors for side in (20, 40))
    reference = found.descriptors.astype(np.float32)
    assert np.abs(same - reference).sum() < 0.5 * np.abs(twice - reference).sum()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 90), (40, 33)])
def test_images_smaller_than_a_patch_have_descriptors_too(
    grid: str, height: int, width: int
) -> None:
    image = noise_picture(60, 90)[:height, :width]
    found = extract(image, detector={"name": grid, "step": 10}, side=64)
    assert len(found) == (height // 10 + 1) * (width // 10 + 1)
    assert np.isfinite(found.descriptors).all()


def test_keypoints_are_described_alike_in_every_number(
    grid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = noise_picture(90, 100)
    options = {"detector": {"name": grid, "step": 10}}
    expected = extract(image, **options).descriptors
    monkeypatch.setattr(matchnet, "_CUT_AT_ONCE", 50)
    monkeypatch.setattr(matchnet, "_DESCRIBED_AT_ONCE", 7)
    assert len(expected) == 110
    np.testing.assert_allclose(extract(image, **options).descriptors, expected, rtol=0, atol=1e-4)


# --- what it is asked for -------------------------------------------------------------------------


def test_the_fingerprint_follows_the_detectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = parse()
    assert parse(detector={"name": "sift"}).fingerprint == plain.fingerprint
    assert parse(detector={"max_keypoints": 8192}).fingerprint == plain.fingerprint
    assert parse(magnification=12).fingerprint == plain.fingerprint
    assert parse(detector={"max_keypoints": 100}).fingerprint != plain.fingerprint
    assert parse(detector="aliked").fingerprint != plain.fingerprint
    assert parse(detector="aliked").fingerprint == parse(detector={"name": "aliked"}).fingerprint
    assert plain.config["detector"]["first_octave"] == -1
    assert parse(detector=plain.config["detector"]).fingerprint == plain.fingerprint
    monkeypatch.setattr("sfm_match.extractors.sift.VERSION", 1000)
    assert parse().fingerprint != plain.fingerprint


def test_the_fingerprint_follows_the_detectors_weights_and_not_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"weights")
    moved = Path(shutil.copy(path, tmp_path / "b"))
    first, second = (parse(detector={"name": "r2d2", "weights": str(p)}) for p in (path, moved))
    assert first.fingerprint == second.fingerprint
    path.write_bytes(b"other weights")
    assert parse(detector={"name": "r2d2", "weights": str(path)}).fingerprint != first.fingerprint
    assert first.config["magnification"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": ""}, "'' is neither the name of a checkpoint nor a file"),
        ({"weights": "matchnet"}, "'matchnet' is neither the name of a checkpoint nor a file"),
        ({"detector": "shift"}, "no extractor named 'shift'; did you mean 'sift'"),
        ({"detector": {"name": "matchnet"}}, "detector.name: must be another extractor"),
        ({"detector": {"name": 3}}, "detector.name: must be a name, got 3"),
        ({"detector": {"max_keypoint": 3}}, "detector.max_keypoint: no such option; did you mean"),
        ({"detector": {"max_keypoints": 0}}, "detector.max_keypoints: .* greater than 0"),
        ({"side": 0}, "matchnet.side: .* greater than 0"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(**options)


def test_weights_of_another_network_are_refused() -> None:
    path = checkpoint("aliked-n16")
    with pytest.raises(WeightsError, match="not weights of MatchNet"):
        parse(weights=str(path)).build()
