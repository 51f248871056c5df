"""pygmtools' solvers as a matcher: large images, wrong input, weights."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pygmtools
import pytest
import torch

from sfm_match.matchers import pygm
from sfm_match.models import vgg
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import Features, Image, Matches, View
from sfm_match.weights import CHECKPOINTS, WeightsError
from tests.models.test_pygm_solvers import CHANNELS, small_network

SIZE = np.array([640, 480], np.int32)


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        raise AssertionError("pygmtools tried to download")

    monkeypatch.setattr(pygmtools.utils, "download", download)


def features(num: int, seed: int = 0, channels: int = 32) -> Features:
    generator = np.random.default_rng(seed)
    return Features(
        keypoints=generator.uniform((0, 0), SIZE, (num, 2)).astype(np.float32),
        scores=np.ones(num, np.float32),
        descriptors=generator.normal(size=(num, channels)).astype(np.float32),
        image_size=SIZE,
    )


def seen_again(first: Features, share: float, angle: float, scale: float) -> Features:
    """Return features of another view: turned, scaled, noisy, a share of them of other things."""
    generator = np.random.default_rng(1)
    num = len(first)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = (first.keypoints - SIZE / 2) @ turn + 700 + generator.normal(0, 0.5, (num, 2))
    other = features(num, 5, first.descriptors.shape[1])
    lost = generator.random(num) < share
    points[lost] = (other.keypoints[lost] - SIZE / 2) @ turn + 700
    noisy = first.descriptors + generator.normal(0, 0.7, first.descriptors.shape)
    noisy[lost] = other.descriptors[lost]
    return Features(
        keypoints=points.astype(np.float32),
        scores=first.scores,
        descriptors=noisy.astype(np.float32),
        image_size=np.array([1400, 1400], np.int32),
    )


def match(a: Features, b: Features, image: Image | None = None, **options: Any) -> Matches:
    matcher = Spec.parse("matchers", "pygm", options).build()
    (found,) = matcher.match([tuple(matcher.encode(View(image, side)) for side in (a, b))])
    assert isinstance(found, Matches)
    rows0, rows1 = found.indices.T.tolist()
    assert len(set(rows0)) == len(set(rows1)) == len(found)
    return found


# --- many keypoints -------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "precision"), [("rrwm", 0.9), ("sm", 0.9), ("ipfp", 0.75)])
def test_large_images_are_matched_in_parts(solver: str, precision: float) -> None:
    first = features(250)
    second = seen_again(first, 0.3, angle=1.3, scale=0.6)
    found = match(first, second, solver=solver)
    right = found.indices[:, 0] == found.indices[:, 1]
    assert right.mean() > precision
    assert right.sum() > 0.4 * len(first)


def test_parts_are_no_worse_than_all_at_once() -> None:
    first = features(60)
    second = seen_again(first, 0.2, angle=0.0, scale=1.0)
    whole = match(first, second)
    parts = match(first, second, max_nodes=20, min_votes=0.5)
    for found in (whole, parts):
        assert (found.indices[:, 0] == found.indices[:, 1]).mean() > 0.9
        assert len(found) > 40


@pytest.mark.slow
def test_two_thousand_keypoints() -> None:
    first = features(2000)
    found = match(first, seen_again(first, 0.4, angle=0.5, scale=1.2))
    right = found.indices[:, 0] == found.indices[:, 1]
    assert right.mean() > 0.9
    assert right.sum() > 0.4 * 2000


@pytest.mark.parametrize(
    ("solver", "num", "needed"), [("rrwm", 500, "250.0 GB"), ("ngm", 60, "0.9 GB")]
)
def test_above_a_solver_s_limit_the_error_names_the_memory(
    solver: str, num: int, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pygm, "_read", lambda _: dict(small_network("ngm").state_dict()))
    with pytest.raises(ConfigError, match=f"{solver} on {num} and {num} keypoints would take "):
        match(features(num), features(num, 1), solver=solver, partition=False)
    with pytest.raises(ConfigError, match=rf"take {needed} .* Set partition = true"):
        match(features(num), features(num, 1), solver=solver, partition=False)


# --- wrong input ----------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", ["delaunay", "knn", "full"])
@pytest.mark.parametrize("solver", ["rrwm", "sm", "ipfp"])
def test_few_keypoints(solver: str, graph: str) -> None:
    first = features(3)
    for num0 in range(4):
        for num1 in range(4):
            a, b = first.take(np.arange(num0)), first.take(np.arange(num1))
            found = match(a, b, solver=solver, graph=graph)
            assert len(found) <= min(num0, num1)
            assert (found.indices[:, 0] == found.indices[:, 1]).all()
            assert (len(found) > 0) == (num0 > 0 and num1 > 0)


@pytest.mark.parametrize("graph", ["delaunay", "knn", "full"])
def test_keypoints_on_a_line_and_at_one_place(graph: str) -> None:
    first = features(30)
    on_a_line, at_one_place, doubled = (first.keypoints.copy() for _ in range(3))
    on_a_line[:, 1] = on_a_line[:, 0]
    at_one_place[:] = 7
    doubled[1::2] = doubled[::2]
    for points in (on_a_line, at_one_place, doubled):
        moved = Features(points, first.scores, first.descriptors, SIZE)
        found = match(moved, moved, graph=graph)
        np.testing.assert_array_equal(found.indices[:, 0], found.indices[:, 1])
        # The nearest of many at one place are any of them: that says little.
        assert len(found) == 30 or points is at_one_place


def test_descriptors_that_are_not_finite_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    first = features(20)
    descriptors = first.descriptors.copy()
    descriptors[3, 1], descriptors[8, 0] = np.nan, np.inf
    broken = Features(first.keypoints, first.scores, descriptors, SIZE)
    with caplog.at_level(logging.WARNING):
        found = match(broken, first)
    assert "pygm: 2 of 20 descriptors are not finite: ignored" in caplog.text
    assert sorted(found.indices[:, 0].tolist()) == sorted({*range(20)} - {3, 8})
    np.testing.assert_array_equal(found.indices[:, 0], found.indices[:, 1])
    all_broken = Features(first.keypoints, first.scores, descriptors * np.float32(np.nan), SIZE)
    assert len(match(all_broken, first)) == 0


def test_without_seeds_large_images_have_no_matches() -> None:
    first = features(150)
    same = Features(first.keypoints, first.scores, np.ones((150, 8), np.float32), SIZE)
    assert len(match(same, same, max_nodes=10)) <= 150


# --- networks and their weights -------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["pca_gm", "ipca_gm", "cie", "ngm"])
def test_a_file_of_weights_is_loaded_and_runs(solver: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(small_network(solver).state_dict(), path)
    first = features(15, channels=CHANNELS)
    found = match(first, first, solver=solver, weights=str(path), dustbin=0.0)
    assert len(found) == 15
    large = features(120, channels=CHANNELS)
    match(large, large, solver=solver, weights=str(path), max_nodes=30)


def test_networks_on_keypoints_need_features_of_their_width(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(small_network("pca_gm").state_dict(), path)
    first = features(15, channels=CHANNELS + 1)
    with pytest.raises(ConfigError, match=r"features of 8 numbers, those of descriptors have 9"):
        match(first, first, solver="pca_gm", weights=str(path))


def test_a_file_that_holds_no_such_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(small_network("cie").state_dict(), path)
    with pytest.raises(ConfigError, match="pygm: these are no weights of ngm"):
        Spec.parse("matchers", "pygm", {"solver": "ngm", "weights": str(path)}).build()
    with pytest.raises(ConfigError, match="no weights of VGG16 with batch normalisation"):
        Spec.parse("matchers", "pygm", {"node_features": str(path)}).build()
    torch.save([1, 2], path)
    with pytest.raises(ConfigError, match="holds a list, not a dictionary of tensors"):
        Spec.parse("matchers", "pygm", {"node_features": str(path)}).build()
    with pytest.raises(ConfigError, match="'vgg16' is neither the name of a checkpoint nor a file"):
        Spec.parse("matchers", "pygm", {"node_features": "vgg16"})


def test_each_network_has_published_weights() -> None:
    for solver in ("ngm", "pca_gm", "ipca_gm", "cie"):
        named = Spec.parse("matchers", "pygm", {"solver": solver}).config["weights"]
        assert named == f"{solver.replace('_', '-')}-voc"
        assert {named, named.replace("voc", "willow")} <= set(CHECKPOINTS)
    assert Spec.parse("matchers", "pygm", {}).weights is None


def test_weights_that_are_not_here_are_not_fetched_by_pygmtools(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(name: str, **_: object) -> Path:
        raise WeightsError(f"{name} is missing")

    monkeypatch.setattr("sfm_match.weights.find", find)
    spec = Spec.parse("matchers", "pygm", {"solver": "pca_gm"})
    with pytest.raises(WeightsError, match="pca-gm-voc is missing"):
        spec.build()


def test_vgg_s_maps_are_node_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vgg.pt"
    torch.save(vgg.Vgg16().state_dict(), path)
    spec = Spec.parse("matchers", "pygm", {"node_features": str(path)})
    assert spec.config["node_features"].startswith(f"{path}@")
    seen = []

    def features_at(network: vgg.Vgg16, image: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        seen.append((network, image, places))
        return torch.nn.functional.normalize(places @ torch.ones(2, 2).tril(), dim=1)

    monkeypatch.setattr(vgg, "features_at", features_at)
    grey = np.random.default_rng(0).integers(0, 256, (480, 640), dtype=np.uint8)
    first = features(20)
    broken = Features(first.keypoints, first.scores, first.descriptors * np.float32(np.nan), SIZE)
    matcher = spec.build()
    encoded = matcher.encode(View(grey, broken))  # descriptors do not count
    ((network, image, places),) = seen
    assert not network.training
    assert torch.equal(image, torch.from_numpy(np.stack([grey] * 3, axis=2)))
    expected = torch.from_numpy(first.keypoints) * torch.tensor([256 / 640, 256 / 480])
    torch.testing.assert_close(places, expected)
    (found,) = matcher.match([(encoded, encoded)])
    assert found.indices[:, 0].tolist() == found.indices[:, 1].tolist()
    path.write_bytes(path.read_bytes() + b" ")
    again = Spec.parse("matchers", "pygm", {"node_features": str(path)})
    assert again.fingerprint != spec.fingerprint
