from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from sfm_match.io.store import Store
from sfm_match.spec import ConfigError, Spec
from sfm_match.stages.match import match_digest
from sfm_match.stages.recipe import Recipe
from sfm_match.stages.refine import RefineReport, refine
from sfm_match.stages.scan import Sources, scan
from sfm_match.types import ArrayF64, Correspondences, Image, Pair
from tests.pictures import noise_picture
from tests.scenes import truncate

pytestmark = pytest.mark.usefixtures("one_thread")

MATCHER = Spec("matchers", "points", 1, {})
REFINER = Spec.parse("refiners", "photometric", {"search": 4.0}, (MATCHER,))
SHIFTS = {"a.png": (0, 0), "b.png": (9, 4), "c.png": (3, 11)}
WIDTH, HEIGHT = 220, 160
TURNED = 6  # what EXIF calls a raster that has to be turned clockwise to be upright


def save(path: Path, picture: Image, orientation: int) -> None:
    image = PIL.Image.fromarray(picture if orientation == 1 else np.rot90(picture).copy())
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


@dataclass
class Folder:
    """Three pictures that are shifted against each other, and correspondences up to 3 px off."""

    path: Path
    turned: str

    def __post_init__(self) -> None:
        (self.path / "images").mkdir()
        picture = noise_picture(HEIGHT + 20, WIDTH + 20)
        for name, (x, y) in SHIFTS.items():
            part = picture[y : y + HEIGHT, x : x + WIDTH]
            save(self.path / "images" / name, part, TURNED if name == self.turned else 1)
        self.pairs = [Pair("a.png", "b.png"), Pair("a.png", "c.png"), Pair("b.png", "c.png")]
        digests = self.digests()
        with self.found.writer() as writer:
            for seed, pair in enumerate(self.pairs):
                writer.add(pair, match_digest(pair, digests), self.coarse(pair, seed))

    def in_file(self, name: str, upright: ArrayF64) -> ArrayF64:
        """Return points of an upright picture in its file's raster."""
        if name != self.turned:
            return upright
        return np.asarray(np.stack([upright[:, 1], WIDTH - upright[:, 0]], axis=1))

    def upright(self, name: str, points: ArrayF64) -> ArrayF64:
        if name != self.turned:
            return points
        return np.stack([WIDTH - points[:, 1], points[:, 0]], axis=1)

    def coarse(self, pair: Pair, seed: int) -> Correspondences:
        rng = np.random.default_rng(seed)
        scene = rng.uniform((45, 40), (WIDTH - 30, HEIGHT - 25), (60, 2))
        points = [scene - SHIFTS[name] for name in (pair.a, pair.b)]
        points[1] = points[1] + rng.uniform(-3, 3, scene.shape)
        return Correspondences(
            points0=self.in_file(pair.a, points[0]).astype(np.float32),
            points1=self.in_file(pair.b, points[1]).astype(np.float32),
            scores=np.ones(60, np.float32),
        )

    def error(self, pair: Pair, found: Correspondences) -> float:
        """Return the median distance of points from their true partners, in pixels."""
        points0, points1 = (
            self.upright(name, points.astype(np.float64)) + SHIFTS[name]
            for name, points in ((pair.a, found.points0), (pair.b, found.points1))
        )
        return float(np.median(np.linalg.norm(points1 - points0, axis=1)))

    @property
    def sources(self) -> Sources:
        return scan(self.path / "images")

    def digests(self) -> dict[str, bytes]:
        return {name: source.digest for name, source in self.sources.images.items()}

    @property
    def found(self) -> Store[Correspondences]:
        return Store.create(self.path / "correspondences", Correspondences, MATCHER)

    def refine(
        self, workers: int = 1, cache_bytes: int = 1 << 30, out: str = "correspondences"
    ) -> tuple[dict[Pair, Correspondences], RefineReport]:
        digests, steps = self.digests(), list[int]()
        store = Store.create(self.path / out, Correspondences, REFINER)
        report = refine(
            self.pairs,
            digests,
            REFINER,
            None,
            self.found,
            store,
            sources=self.sources.images,
            workers=workers,
            cache_bytes=cache_bytes,
            progress=steps.append,
        )
        done = [pair for pair in self.pairs if (pair, match_digest(pair, digests)) in store]
        assert sum(steps) == len(done)
        return {pair: store.read(pair, match_digest(pair, digests)) for pair in done}, report


@pytest.mark.parametrize("turned", ["", "b.png"])
@pytest.mark.parametrize("workers", [1, 2])
def test_points_become_precise_in_the_rasters_of_the_files(
    tmp_path: Path, turned: str, workers: int
) -> None:
    folder = Folder(tmp_path, turned)
    refined, report = folder.refine(workers)
    assert list(refined) == folder.pairs
    for i, (pair, found) in enumerate(refined.items()):
        assert len(found) > 40
        assert folder.error(pair, folder.coarse(pair, i)) > 1
        assert folder.error(pair, found) < 0.02
    assert (report.computed, report.reused, report.correspondences) == (3, 0, 180)
    assert report.refined == sum(map(len, refined.values()))
    assert (report.num_encoded, report.num_cache_hits) == (3, 3)
    # Nothing is done again; what was found is still there.
    again, report = folder.refine(workers)
    assert (report.computed, report.reused, report.num_encoded) == (0, 3, 0)
    for pair in folder.pairs:
        np.testing.assert_array_equal(again[pair].points1, refined[pair].points1)
    # A cache that holds one image gives the same.
    small, report = folder.refine(workers, cache_bytes=1, out="elsewhere")
    assert report.num_encoded > 3
    for pair in folder.pairs:
        np.testing.assert_array_equal(small[pair].points1, refined[pair].points1)


def test_an_image_that_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "")
    digests = folder.digests()
    path = folder.path / "images" / "b.png"
    before = path.read_bytes()
    truncate(path)
    with folder.found.writer() as writer:  # as if it had been matched before it broke
        for seed, pair in enumerate(folder.pairs):
            writer.add(pair, match_digest(pair, folder.digests()), folder.coarse(pair, seed))
    refined, report = folder.refine()
    assert list(refined) == [Pair("a.png", "c.png")]
    assert list(report.failures) == ["b.png"]
    path.write_bytes(before)
    assert folder.digests() == digests
    refined, report = folder.refine()
    assert list(refined) == folder.pairs
    assert (report.computed, report.reused) == (2, 1)


def test_the_table_refiner() -> None:
    recipe = Recipe.load("coarse-loftr")
    assert recipe.refiner is not None
    assert recipe.refiner.name == "photometric"
    assert recipe.refiner.inputs == (recipe.matcher,)
    assert recipe.tracks is not None
    assert recipe.tracks.inputs == (recipe.refiner,)
    other = Recipe.load("coarse-loftr", "refiner.radius=9")
    assert other.fingerprints["matches"] == recipe.fingerprints["matches"]
    assert other.fingerprints["refined"] != recipe.fingerprints["refined"]
    assert other.fingerprints["tracks"] != recipe.fingerprints["tracks"]
    with pytest.raises(
        ConfigError, match=r"refiner\.radios: no such option; did you mean 'radius'"
    ):
        Recipe.load("coarse-loftr", "refiner.radios=9")
    with pytest.raises(ConfigError, match=r"refiner\.name: the matcher 'nearest' matches features"):
        Recipe.load("sift", "refiner.name=photometric")
