from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from sfm_match.extractors import r2d2
from sfm_match.geometry.raster import shrink
from sfm_match.io.images import read_image
from sfm_match.models.local_maxima import refine
from sfm_match.spec import Spec
from sfm_match.types import ArrayF64, Features, Image
from tests.components import parse
from tests.pictures import noise_picture

VARIANTS = ["r2d2-wasf-n16", "r2d2-wasf-n8-big", "r2d2-faster-wasf-n16"]


def extract(image: Image, **options: Any) -> Features:
    found: Features = parse("extractors", "r2d2", **options).build()(image)
    return found


# --- the pyramid ----------------------------------------------------------------------------------


def sizes(height: int, width: int, **options: Any) -> list[tuple[int, int]]:
    levels = r2d2.pyramid(torch.zeros(1, 3, height, width), r2d2.Config(**options))
    return [(level.shape[3], level.shape[2]) for _, level in levels]


def test_the_levels_lie_between_the_smallest_and_the_largest_size() -> None:
    expected = [(1024, 683), (861, 574), (724, 483), (609, 406), (512, 342), (431, 287), (362, 241)]
    expected += [(304, 203), (256, 171)]
    assert sizes(683, 1024) == expected
    assert sizes(1024, 683) == [size[::-1] for size in expected]
    assert sizes(1366, 2048, scale_factor=2) == [(1024, 683), (512, 342), (256, 171)]
    assert sizes(1366, 2048, scale_factor=2, max_size=2048, min_size=1024) == [
        (2048, 1366),
        (1024, 683),
    ]
    assert sizes(300, 400, scale_factor=2, min_size=201) == [(400, 300)]


def test_small_and_narrow_images_have_one_level_at_least() -> None:
    assert sizes(160, 200) == [(200, 160)]
    assert sizes(1, 1, min_size=0) == [(1, 1)]
    assert sizes(1, 3, min_size=0, scale_factor=2) == [(3, 1), (2, 1), (1, 1)]
    assert sizes(1, 4000) == sizes(1, 4000, max_size=1024)


def test_each_level_is_made_from_the_one_before() -> None:
    image = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    config = r2d2.Config(min_size=20, max_size=40, scale_factor=2)
    (scale1, level1), (scale2, level2) = r2d2.pyramid(image, config)
    assert (scale1, scale2) == (0.5, 0.25)

    def halved(values: torch.Tensor) -> torch.Tensor:
        # Between pixel centres, half the size is the mean of two by two.
        return torch.nn.functional.avg_pool2d(values, 2)

    torch.testing.assert_close(level1, halved(image))
    torch.testing.assert_close(level2, halved(halved(image)))


# --- refinement -----------------------------------------------------------------------------------

_inside = st.floats(-0.45, 0.45)


@settings(max_examples=50)
@given(x=_inside, y=_inside, along=st.floats(0.1, 3), ratio=st.floats(1, 5), angle=st.floats(0, 3))
def test_the_maximum_of_a_quadratic_is_found_exactly(
    x: float, y: float, along: float, ratio: float, angle: float
) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    curvature = turn @ np.diag([along, along * ratio]) @ turn.T
    rows, columns = np.mgrid[:7, :9]
    away = np.stack([columns - (4 + x), rows - (3 + y)], axis=-1)
    logits = torch.from_numpy(7 - np.einsum("...i,ij,...j", away, curvature, away))
    moved = refine(logits, torch.tensor([3]), torch.tensor([4]))
    np.testing.assert_allclose(moved.numpy(), [[x, y]], atol=1e-6)


def test_no_keypoint_leaves_its_pixel_or_moves_without_reason() -> None:
    where = torch.tensor([1]), torch.tensor([1])
    assert refine(torch.zeros(3, 3), *where).tolist() == [[0, 0]]
    saddle = torch.tensor([[0.0, 1, 0], [-1, 0, -1], [0, 1, 0]])
    assert refine(saddle, *where).tolist() == [[0, 0]]
    far = -((torch.arange(3.0) - 2.9) ** 2)  # its maximum is 1.9 pixels away
    assert refine(far[None, :] + far[:, None], *where).tolist() == [[0.5, 0.5]]
    corner = torch.tensor([0]), torch.tensor([0])
    assert refine(far[None, :] + far[:, None], *corner).abs().max() <= 0.5


def errors(image: Image, **options: Any) -> ArrayF64:
    """Return how keypoints (N, 2) differ between an image and itself moved by half a pixel."""
    height, width = (side // 2 - 4 for side in image.shape[:2])
    found = []
    for shift in (0, 1):
        crop = image[shift : shift + 2 * height, shift : shift + 2 * width]
        found.append(extract(shrink(crop, max(height, width)), **options).keypoints)
    reference, moved = found[0], found[1] + 0.5
    distances, rows = cKDTree(reference).query(moved)
    return np.asarray((moved - reference[rows])[distances < 1.5], np.float64)


def test_refinement_follows_a_shift_of_half_a_pixel() -> None:
    image = noise_picture(320, 400)
    whole, refined = errors(image, subpixel=False), errors(image)
    assert min(len(whole), len(refined)) > 50
    # Whole pixels are wrong by half a pixel in each direction, whatever is found.
    assert np.abs(whole).min() == pytest.approx(0.5)
    assert np.median(np.abs(refined)) < 0.25
    assert np.sqrt((refined**2).mean()) < 0.8 * np.sqrt((whole**2).mean())


# --- images ---------------------------------------------------------------------------------------


def mirrored(image: Image, **options: Any) -> ArrayF64:
    """Return by how much (x, y) keypoints of the image turned by 180 degrees are off."""
    found = extract(image, **options)
    turned = extract(np.ascontiguousarray(image[::-1, ::-1]), **options)
    back = found.image_size - turned.keypoints
    tree, centre = cKDTree(found.keypoints), np.zeros(2)
    for radius in (4.0, 2.0, 1.5):
        distances, rows = tree.query(back - centre)
        centre = np.median((back - found.keypoints[rows])[distances < radius], axis=0)
    return centre / 2


@pytest.mark.parametrize("weights", VARIANTS)
def test_keypoints_of_each_network_are_where_they_seem_to_be(weights: str, test_data: Path) -> None:
    photograph = read_image(test_data / "sacre_coeur/images/02928139_3448003521.jpg").pixels
    # With an odd side, pooling would not commute with turning.
    image = shrink(photograph, 400)[60:300, 40:280]
    assert np.abs(mirrored(image, weights=weights)).max() < 0.3
    raw = np.abs(mirrored(image, weights=weights, subpixel=False)).max()
    assert raw > 0.4  # so there was something to take off


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    image = noise_picture(150, 200)
    before = torch.get_num_threads()
    found = []
    for num in (1, 3):
        torch.set_num_threads(num)
        found.append(extract(image, min_size=50))
    torch.set_num_threads(before)
    assert len(found[0].keypoints) > 50
    np.testing.assert_array_equal(found[0].keypoints, found[1].keypoints)
    np.testing.assert_array_equal(found[0].descriptors, found[1].descriptors)


def test_images_of_one_size_may_pass_together() -> None:
    extractor: Any = parse("extractors", "r2d2").build()
    images = [noise_picture(90, 110, seed=seed) for seed in range(3)]
    images.insert(1, noise_picture(70, 80))
    for found, image in zip(extractor.many(images), images, strict=True):
        alone = extractor(image)
        assert found.image_size.tolist() == alone.image_size.tolist()
        np.testing.assert_allclose(found.keypoints, alone.keypoints, atol=0.05)
        np.testing.assert_allclose(found.scores, alone.scores, atol=0.01)
    assert extractor.many([]) == []


@pytest.mark.parametrize("weights", VARIANTS)
def test_tiny_images_have_keypoints_inside(weights: str) -> None:
    options = {"weights": weights, "min_reliability": 0, "min_repeatability": 0}
    for size in ((1, 1), (2, 3), (1, 9), (9, 40)):
        found = extract(np.full((*size, 3), 128, np.uint8), **options)
        assert (found.keypoints >= 0).all()
        assert (found.keypoints <= found.image_size).all()


def test_the_best_keypoints_come_first_and_thresholds_hold() -> None:
    image = noise_picture()
    every = extract(image)
    assert (np.diff(every.scores) <= 0).all()
    assert every.scores.min() >= 0.7 * 0.7
    best = extract(image, max_keypoints=20)
    np.testing.assert_array_equal(best.keypoints, every.keypoints[:20])
    strict = extract(image, min_repeatability=0.95)
    assert len(strict) < len(every)
    assert strict.scores.min() >= 0.7 * 0.95
    assert every.scales is not None
    assert (every.scales == 32).all()  # the image is smaller than the smallest level: one level


def test_thresholds_are_those_that_suit_the_weights(tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"of a training")
    for weights, usual in ((VARIANTS[0], 0.7), (str(own), 0.0)):
        config = Spec.parse("extractors", "r2d2", {"weights": weights}).config
        assert (config["min_reliability"], config["min_repeatability"]) == (usual, usual)
        named = {"weights": weights, "min_repeatability": 0.3}
        assert Spec.parse("extractors", "r2d2", named).config["min_repeatability"] == 0.3
    said = {"min_reliability": 0.7, "min_repeatability": 0.7}
    assert (
        Spec.parse("extractors", "r2d2", said).fingerprint
        == Spec.parse("extractors", "r2d2").fingerprint
    )


def golden(test_data: Path, name: str) -> tuple[ArrayF64, Any]:
    """Return expected keypoints (N, 3) x, y, scale, and the file, of the golden outputs."""
    golden = np.load(test_data / "golden" / f"r2d2_N16_fountain0003_{name}.npz")
    xys = golden["xys"].astype(np.float64)
    full = np.array([1024, 683])
    # The file has coordinates of integer centres multiplied by full / level.
    level = np.round(full * (32 / xys[:, 2:]))
    xys[:, :2] += 0.5 * full / level
    return xys, golden


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("scale1", {"min_size": 1024, "max_keypoints": 10_000}), ("multiscale", {})],
)
def test_the_authors_outputs_are_reproduced(
    test_data: Path, name: str, options: dict[str, int]
) -> None:
    image = read_image(test_data / "fountain-P11" / "images" / "0003.jpg").pixels
    found = extract(image, subpixel=False, precision="fp32", **options)
    expected, file = golden(test_data, name)
    assert found.scales is not None
    assert len(found) == len(expected)
    tree = cKDTree(np.column_stack([found.keypoints, found.scales]))
    near = tree.query(expected)
    distances, rows = np.asarray(near[0]), np.asarray(near[1])
    assert distances.max() < 1e-3
    assert len(set(rows.tolist())) == len(expected)
    np.testing.assert_allclose(found.scores[rows], file["scores"], atol=1e-4)
    descriptors = found.descriptors[rows[: len(file["descriptors"])]].astype(np.float32)
    np.testing.assert_allclose(descriptors, file["descriptors"], atol=1e-3)


def test_half_precision_finds_the_same() -> None:
    image = noise_picture(320, 400)
    exact, short = extract(image, precision="fp32"), extract(image, precision="bf16")
    distances, rows = map(np.asarray, cKDTree(exact.keypoints).query(short.keypoints))
    same = distances < 0.25
    assert same.mean() > 0.8
    products = (exact.descriptors[rows[same]].astype(float) * short.descriptors[same]).sum(axis=1)
    assert np.median(products) > 0.99


def test_the_precision_is_known_before_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    prints = []
    for able, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda able=able: {"avx512_bf16": able})
        automatic = Spec.parse("extractors", "r2d2", {"precision": "auto"})
        assert automatic.config["precision"] == precision
        chosen = Spec.parse("extractors", "r2d2", {"precision": precision})
        assert automatic.fingerprint == chosen.fingerprint
        prints.append(chosen.fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.slow
@pytest.mark.parametrize("weights", VARIANTS)
def test_two_photographs_of_a_fountain_match(test_data: Path, weights: str) -> None:
    from sfm_match.matchers import nearest
    from sfm_match.types import View

    folder = test_data / "fountain-P11" / "images"
    options = {"weights": weights, "resize": 512, "max_keypoints": 1000}
    features = [
        extract(read_image(folder / f"{n}.jpg").pixels, **options) for n in ("0004", "0005")
    ]
    for found in features:
        assert len(found) == 1000
        norms = np.linalg.norm(found.descriptors.astype(np.float64), axis=1)
        np.testing.assert_allclose(norms, 1, atol=1e-3)
        assert found.keypoints.min() >= 0
    matcher = nearest.build(nearest.Config(), "cpu", ())
    views = [matcher.encode(View(None, found)) for found in features]
    (matches,) = matcher.match([(views[0], views[1])])
    assert len(matches) > 300
