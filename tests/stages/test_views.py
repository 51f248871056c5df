"""Matchers that need images see them upright; what they find is in the rasters of the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from sfm_match.geometry.raster import inverse_orientation, points_to_upright, upright
from sfm_match.io.images import ImageError
from sfm_match.io.store import Store
from sfm_match.spec import Spec
from sfm_match.stages.match import match, match_digest
from sfm_match.stages.pairwise import PairsReport
from sfm_match.stages.scan import Source, scan
from sfm_match.stages.views import (
    Placement,
    Views,
    in_file_rasters,
    in_upright_pictures,
    load_upright,
)
from sfm_match.types import Correspondences, Features, Image, Pair
from tests import plugin_matcher
from tests.pictures import noise_picture
from tests.scenes import truncate

HEIGHT, WIDTH = 150, 260
SPEC = Spec("matchers", "points", 1, {"noise": 0.0})


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_matcher.register(monkeypatch)


def save(path: Path, picture: Image, orientation: int = 1) -> None:
    """Write a picture so that a viewer that obeys EXIF shows it as it is."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    raster = upright(picture, inverse_orientation(orientation))
    PIL.Image.fromarray(raster).save(path, exif=exif)


def run(
    folder: Path, pairs: list[Pair], masks: Path | None = None, workers: int | None = None
) -> tuple[dict[Pair, Correspondences], PairsReport]:
    sources = scan(folder, masks).images
    digests = {name: source.digest for name, source in sources.items()}
    store = Store(folder.parent / "correspondences", Correspondences)
    report = match(pairs, digests, SPEC, None, store, sources=sources, workers=workers)
    entries = [(p, match_digest(p, digests)) for p in pairs]
    return {p: store.read(p, d) for p, d in entries if (p, d) in store}, report


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("orientation", range(2, 9))
def test_points_are_found_upright_and_stored_in_the_raster_of_the_file(
    folder: Path, orientation: int
) -> None:
    picture = noise_picture(HEIGHT, WIDTH)
    save(folder / "plain.png", picture)
    save(folder / "turned.png", picture, orientation)
    pair = Pair("plain.png", "turned.png")
    found, _ = run(folder, [pair])
    assert len(found[pair]) > 100
    with PIL.Image.open(folder / pair.b) as file:
        size = np.array(file.size, np.int32)
    assert (size.tolist() == [HEIGHT, WIDTH]) == (orientation > 4)
    assert (found[pair].points1 <= size).all()
    back = points_to_upright(found[pair].points1, size, orientation)
    np.testing.assert_allclose(back, found[pair].points0, atol=1e-4)
    # And there and back again, as refiners of correspondences need it.
    placements = [load_upright(source)[1] for source in scan(folder).images.values()]
    seen = in_upright_pictures(found[pair], *placements)
    np.testing.assert_allclose(seen.points0, seen.points1, atol=1e-4)
    again = in_file_rasters(seen, *placements)
    np.testing.assert_allclose(again.points1, found[pair].points1, atol=1e-4)


def test_nothing_is_found_on_the_black_of_a_mask(folder: Path) -> None:
    picture = noise_picture(HEIGHT, WIDTH)
    save(folder / "a.png", picture)
    save(folder / "b.png", picture, 6)
    masks = folder.parent / "masks"
    masks.mkdir()
    mask = np.full((WIDTH, HEIGHT), 255, np.uint8)  # of b, in its raster
    mask[: WIDTH // 2] = 0
    PIL.Image.fromarray(mask).save(masks / "b.png.png")
    pair = Pair("a.png", "b.png")
    full, masked = run(folder, [pair])[0][pair], run(folder, [pair], masks)[0][pair]
    assert masked.points1[:, 1].min() >= WIDTH // 2 > full.points1[:, 1].min()
    rows = full.points1[:, 1] >= WIDTH // 2
    np.testing.assert_array_equal(masked.points0, full.points0[rows])
    np.testing.assert_array_equal(masked.scores, full.scores[rows])


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_cannot_be_decoded_is_reported_once_and_left_out(
    folder: Path, workers: int
) -> None:
    for i, name in enumerate("abcd"):
        save(folder / f"{name}.png", noise_picture(HEIGHT, WIDTH)[:, 10 * i : 10 * i + 200])
    truncate(folder / "b.png")
    names = [f"{name}.png" for name in "abcd"]
    pairs = [Pair(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found, report = run(folder, pairs, workers=workers)
    assert sorted(found) == [pair for pair in pairs if "b.png" not in (pair.a, pair.b)]
    assert list(report.failures) == ["b.png"]
    assert str(folder / "b.png") in report.failures["b.png"]
    assert (report.computed, report.reused, report.num_encoded) == (3, 0, 3)
    # It is tried again, and the others are not done again.
    save(folder / "b.png", noise_picture(HEIGHT, WIDTH)[:, :200])
    found, report = run(folder, pairs, workers=workers)
    assert (report.computed, report.reused, report.failures) == (3, 3, {})
    assert sorted(found) == pairs


def test_an_image_that_changes_meanwhile_is_left_out(folder: Path) -> None:
    save(folder / "a.png", noise_picture(HEIGHT, WIDTH))
    (before,) = scan(folder).images.values()
    save(folder / "a.png", noise_picture(HEIGHT, WIDTH, seed=1))
    with pytest.raises(ImageError, match=r"a\.png: was changed during the run; run again"):
        load_upright(before)


def test_features_are_turned_with_their_image_and_only_with_it(folder: Path) -> None:
    save(folder / "a.png", noise_picture(HEIGHT, WIDTH), 6)
    (source,) = scan(folder).images.values()
    store = Store(folder.parent / "features", Features)
    features = Features(
        keypoints=np.array([[20, 30]], np.float32),
        scores=np.ones(1, np.float32),
        descriptors=np.ones((1, 1), np.float32),
        image_size=np.array([HEIGHT, WIDTH], np.int32),
    )
    with store.writer() as writer:
        writer.add("a.png", source.digest, features)

    def view(*needs: str) -> tuple[Image | None, list[list[float]] | None, Placement | None]:
        digests = {"a.png": source.digest}
        views = Views(frozenset(needs), sources_of(source), store, digests)
        (image, seen), placement = views("a.png")
        return image, None if seen is None else seen.keypoints.tolist(), placement

    assert view("features") == (None, [[20, 30]], None)
    image, keypoints, placement = view("image", "features")
    assert image is not None
    assert placement is not None
    assert image.shape == (HEIGHT, WIDTH, 3)
    # A quarter turn clockwise: the file's left edge is the picture's top.
    assert keypoints == [[WIDTH - 30, 20]]
    assert placement.in_file(np.array(keypoints, np.float32)).tolist() == [[20, 30]]
    assert placement.in_upright(features.keypoints).tolist() == keypoints
    assert view("image")[1] is None


def sources_of(source: Source) -> dict[str, Source]:
    return {source.name: source}
