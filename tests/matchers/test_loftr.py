from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.feature import LoFTR

from sfm_match import weights
from sfm_match.geometry.epipolar import essential_from_pose, squared_sampson_distance
from sfm_match.geometry.poses import relative_pose
from sfm_match.io.images import read_image
from sfm_match.io.model import read_model
from sfm_match.matchers import loftr
from sfm_match.models.loftr import CellMatches
from sfm_match.models.loftr_network import load_network, network_config
from sfm_match.models.loftr_tiles import resize_to_multiples, tiles
from sfm_match.models.loftr_transport import assign_with_dustbins, without_unmatched
from sfm_match.spec import ConfigError, Spec
from sfm_match.types import Correspondences, Image, View
from sfm_match.weights import WeightsError
from tests.pictures import noise_picture


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def random_network(coarse_16: bool = False) -> LoFTR:
    torch.manual_seed(0)
    config = network_config(coarse_16)
    config["match_coarse"].update(thr=0.0, border_rm=1)
    network = LoFTR(pretrained=None, config=config).eval()
    if coarse_16:
        del network.fine_preprocess, network.loftr_fine
    return network


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Random weights of both architectures, in all layouts."""
    folder = tmp_path_factory.mktemp("loftr")
    full, small = random_network().state_dict(), random_network(coarse_16=True).state_dict()
    saved = {
        "kornia": {"state_dict": full},
        "authors": {"state_dict": {f"matcher.{key}": value for key, value in full.items()}},
        "plain": full,
        "small": {"model_state_dict": small, "epoch": 1},
        "transport": {
            "state_dict": {**full, "coarse_matching.bin_score": torch.tensor(-40.0)},
        },
    }
    for name, content in saved.items():
        torch.save(content, folder / f"{name}.ckpt")
    return {name: str(folder / f"{name}.ckpt") for name in saved}


@cache
def build(path: str, **options: Any) -> Any:
    return Spec.parse("matchers", "loftr", {"weights": path, **options}).build()


def everything(path: str, **options: Any) -> Any:
    """Return a matcher that keeps every mutual nearest neighbour."""
    return build(path, threshold=0.0, border=1, **options)


def run(matcher: Any, *images: Image) -> Correspondences:
    a, b = (matcher.encode(View(image, None)) for image in images)
    (found,) = matcher.match([(a, b)])
    assert isinstance(found, Correspondences)
    return found


def pictures(height: int = 64, width: int = 96) -> tuple[Image, Image]:
    picture = noise_picture(height + 8, width + 8)
    return picture[:height, :width].copy(), picture[8:, 8:].copy()


def assert_same(found: Correspondences, expected: Correspondences) -> None:
    for name in ("points0", "points1", "scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["kornia", "authors", "plain"])
def test_it_gives_what_kornia_gives_in_one_call(checkpoints: dict[str, str], layout: str) -> None:
    left, right = pictures()
    found = run(everything(checkpoints[layout]), left, right[:, :80])
    images = [
        torch.from_numpy(image).float()[None, None] / 255 for image in (left, right[:, :80].copy())
    ]
    with torch.inference_mode():
        expected = random_network()({"image0": images[0], "image1": images[1]})
    assert len(expected["confidence"]) > 5
    np.testing.assert_allclose(found.points0, expected["keypoints0"], atol=1e-5)
    np.testing.assert_allclose(found.points1, expected["keypoints1"], atol=1e-4)
    np.testing.assert_allclose(found.scores, expected["confidence"], atol=1e-5)


def test_the_small_network_gives_what_kornia_s_parts_give(checkpoints: dict[str, str]) -> None:
    network, (left, right) = random_network(coarse_16=True), pictures(96, 128)
    found = run(everything(checkpoints["small"]), left, right)
    data: dict[str, Any] = {"stride_c": 16, "hw0_c": (6, 8), "hw1_c": (6, 8)}
    with torch.inference_mode():
        tokens = [
            network.extract_features(torch.from_numpy(image).float()[None, None] / 255)["coarse"]
            .flatten(2)
            .mT.contiguous()
            for image in (left, right)
        ]
        network.coarse_matching(*network.loftr_coarse(*tokens), data)
    assert len(data["mconf"]) > 3
    np.testing.assert_array_equal(found.points0, data["mkpts0_c"])
    np.testing.assert_array_equal(found.points1, data["mkpts1_c"])
    np.testing.assert_allclose(found.scores, data["mconf"], atol=1e-6)


@pytest.mark.parametrize("refine", ["second", "both"])
def test_cached_images_give_exactly_the_same(checkpoints: dict[str, str], refine: str) -> None:
    matcher = everything(checkpoints["kornia"], refine=refine)
    views = [View(image, None) for image in (*pictures(), noise_picture(64, 96))]
    cached = [matcher.encode(view) for view in views]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        (first,) = matcher.match([(cached[i], cached[j])])
        (again,) = matcher.match([(matcher.encode(views[i]), matcher.encode(views[j]))])
        assert len(first) > 5
        assert_same(first, again)
        assert_same(matcher.match([(cached[i], cached[j])])[0], again)


def test_the_fine_stage_in_both_directions_moves_both_points(checkpoints: dict[str, str]) -> None:
    images = pictures()
    none, second, both = (
        run(everything(checkpoints["kornia"], refine=refine), *images)
        for refine in ("none", "second", "both")
    )
    assert len(none) == len(second) == len(both) > 10
    for grid in (none.points0, none.points1, second.points0):
        np.testing.assert_array_equal(grid % 8, 0)
    moves0, moves1 = both.points0 - none.points0, both.points1 - none.points1
    # Half of what each direction alone would do, which is at most 4 pixels.
    np.testing.assert_allclose(2 * moves1, second.points1 - none.points1, atol=1e-4)
    assert 0 < np.abs(moves0).max() <= 2.0001
    # The other direction is what the images give when they are exchanged after the transformer:
    # it differs from the first.
    assert np.abs(moves0 - moves1).max() > 0


def test_symmetric_does_not_depend_on_the_order(checkpoints: dict[str, str]) -> None:
    left, right = pictures()
    one_way = everything(checkpoints["kornia"])
    assert rows_of(run(one_way, left, right)) != rows_of(run(one_way, right, left).flipped())
    for refine in ("second", "both", "none"):
        matcher = everything(checkpoints["kornia"], symmetric=True, refine=refine)
        found = run(matcher, left, right)
        assert rows_of(found) == rows_of(run(matcher, right, left).flipped())
        assert len(found) >= len(run(one_way, left, right))


def rows_of(found: Correspondences) -> set[tuple[float, ...]]:
    table = np.c_[found.points0, found.points1, found.scores].tolist()
    return {tuple(row) for row in table}


def test_pairs_of_several_sizes_are_matched_as_alone(checkpoints: dict[str, str]) -> None:
    matcher = everything(checkpoints["kornia"])
    sizes = [(64, 96), (96, 64), (64, 96), (40, 56)]
    encoded = [matcher.encode(View(noise_picture(*size), None)) for size in sizes]
    pairs = list(itertools.combinations(encoded, 2))
    for pair, together in zip(pairs, matcher.match(pairs), strict=True):
        assert_same(matcher.match([pair])[0], together)
    assert matcher.match([]) == []


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_lower_precision(checkpoints: dict[str, str], precision: str) -> None:
    matcher = everything(checkpoints["small"], precision=precision)
    encoded = matcher.encode(View(noise_picture(96, 128), None))
    assert encoded.features.tokens.dtype == getattr(torch, precision)
    (found,) = matcher.match([(encoded, encoded)])
    assert found.points0.dtype == np.float32


# --- what comes out -------------------------------------------------------------------------------


def test_the_best_matches_are_kept(checkpoints: dict[str, str]) -> None:
    images = pictures()
    every, best = (
        run(everything(checkpoints["kornia"], max_matches=num), *images) for num in (0, 5)
    )
    assert len(best) == 5
    assert sorted(best.scores) == sorted(every.scores)[-5:]
    assert rows_of(best) < rows_of(every)


def test_the_border_and_the_threshold(checkpoints: dict[str, str]) -> None:
    images = pictures(96, 128)
    found = run(build(checkpoints["small"], threshold=0.0, border=2), *images)
    assert found.points0.min() >= 32
    assert (found.points0 <= np.array([128, 96]) - 48).all()
    every = run(everything(checkpoints["small"]), *images)
    limit = float(np.median(every.scores))
    some = run(build(checkpoints["small"], threshold=limit, border=1), *images)
    assert rows_of(some) == {row for row in rows_of(every) if row[-1] > limit}


@pytest.mark.parametrize(("limit", "size"), [(0, (51, 75)), (64, (51, 75)), (0, (96, 64))])
def test_points_are_scaled_exactly_on_each_axis(
    checkpoints: dict[str, str], limit: int, size: tuple[int, int]
) -> None:
    image = noise_picture(*size)
    found = run(everything(checkpoints["kornia"], resize=limit, refine="none"), image, image)
    grey = resize_to_multiples(image, limit, 8)
    cells = found.points0 * np.array(grey.shape[::-1]) / np.array(size[::-1]) / 8
    np.testing.assert_allclose(cells, cells.round(), atol=1e-4)
    assert len(found) > 5


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 200), st.sampled_from([8, 16]))
def test_sizes_for_the_network(height: int, width: int, limit: int, multiple: int) -> None:
    image = np.zeros((height, width), np.uint8)
    resized = resize_to_multiples(image, limit, multiple)
    assert all(side % multiple == 0 and side > 0 for side in resized.shape)
    factor = min(1.0, limit / max(height, width)) if limit else 1.0
    for side, new in zip((height, width), resized.shape, strict=True):
        assert abs(new - max(side * factor, multiple)) <= multiple / 2


def test_blank_and_tiny_images_match_nothing(checkpoints: dict[str, str]) -> None:
    matcher = everything(checkpoints["kornia"])
    picture = noise_picture(64, 96)
    for other in (np.full((64, 96, 3), 127, np.uint8), np.zeros((48, 200), np.uint8)):
        assert len(run(matcher, picture, other)) == len(run(matcher, other, other)) == 0
    for size in ((1, 1), (1, 50), (9, 9)):
        assert len(run(matcher, picture, picture[: size[0], : size[1]].copy())) == 0
    with pytest.raises(ValueError, match="this view has none"):
        matcher.encode(View(None, None))


# --- optimal transport ----------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 1000), st.floats(-2, 2))
def test_transport_keeps_the_masses(rows: int, columns: int, seed: int, bin_score: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(2, rows, columns, generator=generator)
    assignment = assign_with_dustbins(scores, bin_score, 1000)
    masses0 = torch.tensor([1.0] * rows + [float(columns)])
    masses1 = torch.tensor([1.0] * columns + [float(rows)])
    torch.testing.assert_close(assignment.sum(dim=1), masses1.expand(2, -1))
    torch.testing.assert_close(assignment.sum(dim=2), masses0.expand(2, -1), atol=1e-3, rtol=0)
    # Sinkhorn's iteration in the plain domain, in double precision.
    kernel = torch.full((2, rows + 1, columns + 1), bin_score, dtype=torch.float64)
    kernel[:, :-1, :-1] = scores
    plain = kernel.exp()
    for _ in range(1000):
        plain = plain * (masses0 / plain.sum(dim=2))[:, :, None]
        plain = plain * (masses1 / plain.sum(dim=1))[:, None, :]
    torch.testing.assert_close(assignment.double(), plain, atol=1e-4, rtol=1e-4)


def test_transport_leaves_unmatched_what_fits_nothing() -> None:
    scores = torch.full((1, 4, 3), -5.0)
    scores[0, [0, 1, 3], [2, 0, 1]] = torch.tensor([5.0, 5.0, -4.0])
    found = without_unmatched(assign_with_dustbins(scores, 0.0, 50))[0]
    assert found.nonzero().tolist() == [[0, 0], [0, 2], [1, 0], [1, 2]]
    assert (found > 0.5).nonzero().tolist() == [[0, 2], [1, 0]]


def test_sinkhorn_takes_the_score_of_its_dustbins_from_the_checkpoint(
    checkpoints: dict[str, str],
) -> None:
    assert load_network(checkpoints["kornia"])[1] is None
    assert load_network(checkpoints["transport"])[1] == -40
    images, options = pictures(), {"assignment": "sinkhorn", "sinkhorn_iterations": 200}
    trained = run(everything(checkpoints["transport"], **options), *images)
    assert len(trained) > 5
    assert trained.scores.max() <= 1
    # Weights that say nothing start from 1, above what random descriptors can reach.
    assert len(run(everything(checkpoints["kornia"], **options), *images)) == 0


# --- wrong input ----------------------------------------------------------------------------------


def test_checkpoints_of_something_else(checkpoints: dict[str, str], tmp_path: Path) -> None:
    state = torch.load(checkpoints["plain"], weights_only=True)
    cases = {
        "it has none of backbone.bn1.bias": {
            key: value for key, value in state.items() if key != "backbone.bn1.bias"
        },
        "it has besides depth.head": {**state, "depth.head": torch.zeros(2)},
        r"backbone.conv1.weight \(64, 1, 7, 7\) where it should be \(128, 1, 7, 7\)": {
            **state,
            "backbone.conv1.weight": torch.zeros(64, 1, 7, 7),
        },
        "'step' is not a tensor": {"step": 3},
        "it has no table of tensors": [1, 2],
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "other.ckpt")
        with pytest.raises(WeightsError, match=f"other.ckpt: not a checkpoint.*{message}"):
            build(str(tmp_path / "other.ckpt"))
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(WeightsError, match=r"text.ckpt: not a checkpoint of LoFTR"):
        build(str(tmp_path / "text.ckpt"))


def test_names_of_weights(checkpoints: dict[str, str]) -> None:
    for short, name in (("outdoor", "loftr-outdoor"), ("indoor_new", "loftr-indoor-new")):
        spec = Spec.parse("matchers", "loftr", {"weights": short})
        assert spec.config["weights"] == name
        assert spec.weights == weights.CHECKPOINTS[name].sha256
    with pytest.raises(ConfigError, match=r"loftr_indoor\.ckpt and give the path of the file"):
        Spec.parse("matchers", "loftr", {"weights": "indoor"})
    with pytest.raises(ConfigError, match="have no fine stage to run in both directions"):
        build(checkpoints["small"], refine="both")


def test_the_corrected_position_encoding_is_that_of_the_newer_indoor_weights(
    checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures()
    original, corrected, auto = (
        run(everything(checkpoints["kornia"], position_encoding=name), *images)
        for name in ("original", "corrected", "auto")
    )
    assert rows_of(auto) == rows_of(original) != rows_of(corrected)
    monkeypatch.setattr(loftr, "_CORRECTED", weights.digest(checkpoints["kornia"]))
    again = build.__wrapped__(checkpoints["kornia"], threshold=0.0, border=1)
    assert rows_of(run(again, *images)) == rows_of(corrected)


class LimitedNetwork:
    """Has memory for some pairs at once only."""

    stride = 8

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.batches: list[int] = []

    def match(self, pairs: list[Any]) -> list[CellMatches]:
        if len(pairs) > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        self.batches.append(len(pairs))
        none = torch.zeros(0, dtype=torch.int64)
        return [
            CellMatches(none, none, torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))
        ] * len(pairs)


def test_out_of_memory(checkpoints: dict[str, str]) -> None:
    encoded = everything(checkpoints["kornia"]).encode(View(noise_picture(64, 96), None))
    for limit, batches in ((7, [7]), (3, [3, 2, 2]), (1, [1] * 7)):
        network = LimitedNetwork(limit)
        matcher = loftr._LoFTR(loftr.Config(batch_size=7), network, "cuda")  # type: ignore[arg-type]
        assert len(matcher.match([(encoded, encoded)] * 7)) == 7
        assert network.batches == batches
    matcher = loftr._LoFTR(loftr.Config(), LimitedNetwork(0), "cuda")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"out of memory with one pair of images of 96 x 64"):
        matcher.match([(encoded, encoded)])


# --- tiles ----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(20, 60), st.integers(0, 15))
def test_tiles_cover_an_image_once(width: int, height: int, side: int, overlap: int) -> None:
    covered = np.zeros((height, width), np.int64)
    for window, core in tiles(width, height, side, overlap):
        covered[core.top : core.bottom, core.left : core.right] += 1
        assert window.right - window.left == min(side, width)
        assert window.bottom - window.top == min(side, height)
        # A core keeps away from those borders of its window that are inside of the image.
        for low, high, first, last, length in (
            (window.left, window.right, core.left, core.right, width),
            (window.top, window.bottom, core.top, core.bottom, height),
        ):
            assert first == 0 or first - low >= overlap // 2
            assert last == length or high - last >= overlap // 2
    assert (covered == 1).all()


# --- real images ----------------------------------------------------------------------------------


@cache
def fountain(folder: Path, *numbers: int) -> list[Image]:
    return [read_image(folder / "images" / f"{number:04d}.jpg").pixels for number in numbers]


def sampson_pixels(folder: Path, found: Correspondences, a: int, b: int) -> np.ndarray[Any, Any]:
    """Return the distances (M,) of matches between images from the true epipolar geometry."""
    model = read_model(folder / "gt")
    images = {image.name: image for image in model.images.values()}
    first, second = (images[f"{number:04d}.jpg"] for number in (a, b))
    pose = relative_pose(first.cam_from_world().matrix(), second.cam_from_world().matrix())
    cameras = [model.cameras[image.camera_id] for image in (first, second)]
    rays = [
        np.asarray(camera.cam_from_img(points.astype(np.float64)))
        for camera, points in zip(cameras, (found.points0, found.points1), strict=True)
    ]
    squared = squared_sampson_distance(rays[0], rays[1], essential_from_pose(pose))
    return np.sqrt(squared) * cameras[0].mean_focal_length()


def test_the_distilled_network_on_photographs(test_data: Path) -> None:
    folder = test_data / "fountain-P11"
    images = fountain(folder, 2, 3)
    found = run(build("coarse-16"), *images)
    assert len(found) > 300
    errors = sampson_pixels(folder, found, 2, 3)
    assert np.median(errors) < 3.5
    assert np.mean(errors < 16) > 0.97
    # At full size, in tiles: twice as fine a grid.
    tiled = run(build("coarse-16", resize=512, tile=512), *images)
    coarse = run(build("coarse-16", resize=512), *images)
    assert len(tiled) > 1.5 * len(coarse)
    errors = sampson_pixels(folder, tiled, 2, 3)
    assert np.median(errors) < 0.75 * np.median(sampson_pixels(folder, coarse, 2, 3))
    assert np.mean(errors < 16) > 0.97
    assert len(rows_of(tiled)) == len(tiled)


def test_there_is_no_constant_bias(test_data: Path) -> None:
    """A picture against itself, shrunk by a known factor: corner-origin pixels are multiplied."""
    (image,) = fountain(test_data / "fountain-P11", 5)
    matcher = build("coarse-16", threshold=0.05)
    for factor in (0.8, 0.7):
        size = round(1024 * factor), round(683 * factor)
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        found = run(matcher, image, np.asarray(small, np.uint8))
        away = found.points1 - found.points0 * np.array(size) / (1024, 683)
        right = np.abs(away).max(axis=1) < 12
        assert np.count_nonzero(right) > 400
        # A frame that is off by d pixels would show as (1 - factor) d; cells' centres are 8 off.
        assert np.abs(np.mean(away[right], axis=0) / (1 - factor)).max() < 2.5
