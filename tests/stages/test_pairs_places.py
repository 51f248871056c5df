"""Pairs by GPS and by COLMAP models."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from sfm_match.io.gps import GpsPosition
from sfm_match.io.model import ModelError
from sfm_match.spec import ConfigError
from sfm_match.stages.pairs import Config, ImageSet, make_pairs
from sfm_match.types import Pair
from tests.colmap_scene import Scene

METRE = 1 / 111_195  # of latitude, in degrees, near enough


def north(*metres: float, altitude: float | None = None) -> dict[str, GpsPosition]:
    """Return positions so many metres north of 47 N 8 E, named by their metres."""
    return {f"{m:g}": GpsPosition(47 + m * METRE, 8.0, altitude) for m in metres}


def test_spatial_pairs_the_nearest() -> None:
    where = north(0, 10, 30, 70, 150)
    found = make_pairs(ImageSet(list(where), positions=where), Config("spatial", neighbours=1))
    # 30 is nearest to 10 and 70 to 30; a pair counts where either chose the other.
    expected = [Pair.of(*two) for two in (("0", "10"), ("10", "30"), ("150", "70"), ("30", "70"))]
    assert found.pairs == sorted(expected)
    assert found.counts == {"spatial": 4}
    assert found.problems == []


def test_spatial_pairs_within_the_largest_distance() -> None:
    where = north(0, 10, 30, 70, 150)
    config = Config("spatial", neighbours=4, max_distance=45)
    found = make_pairs(ImageSet(list(where), positions=where), config)
    expected = [("0", "10"), ("0", "30"), ("10", "30"), ("30", "70")]
    assert found.pairs == [Pair(*two) for two in expected]


def test_spatial_across_the_date_line_and_the_pole() -> None:
    where = {
        "east": GpsPosition(0.0, 179.9999),
        "west": GpsPosition(0.0, -179.9999),
        "far": GpsPosition(0.0, 170.0),
        "pole a": GpsPosition(89.9999, 0.0),
        "pole b": GpsPosition(89.9999, 180.0),
    }
    config = Config("spatial", max_distance=50)
    found = make_pairs(ImageSet(sorted(where), positions=where), config)
    assert found.pairs == [Pair("east", "west"), Pair("pole a", "pole b")]


def test_altitudes_count_if_wanted() -> None:
    where = north(0, 10, altitude=0.0) | {"up": GpsPosition(47.0, 8.0, 100.0)}
    images = ImageSet(sorted(where), positions=where)
    level = Config("spatial", max_distance=20)
    assert len(make_pairs(images, level).pairs) == 3
    steep = Config("spatial", max_distance=20, ignore_altitude=False)
    assert make_pairs(images, steep).pairs == [Pair("0", "10")]
    some = ImageSet(["0", "10"], positions=north(0, altitude=1.0) | north(10))
    with pytest.raises(ConfigError, match="'10' has no altitude: leave altitudes out"):
        make_pairs(some, steep)


@pytest.mark.parametrize(
    ("unplaced", "pairs", "fate"),
    [
        ("leave_out", [("0", "10")], "no pairs of them"),
        ("exhaustive", [("0", "10"), ("0", "x y"), ("10", "x y")], "paired with every image"),
    ],
)
def test_images_without_gps_are_reported(
    unplaced: str, pairs: list[tuple[str, str]], fate: str
) -> None:
    images = ImageSet(["0", "10", "x y"], positions=north(0, 10))
    config = Config("spatial", unplaced=unplaced)  # type: ignore[arg-type]
    found = make_pairs(images, config)
    assert sorted(found.pairs) == [Pair(*two) for two in pairs]
    (problem,) = found.problems
    assert problem.startswith("1 of 3 images have no GPS position, such as 'x y': ")
    assert fate in problem


def test_spatial_without_any_gps_says_so() -> None:
    with pytest.raises(ConfigError, match="none of the 2 images has one in its EXIF data"):
        make_pairs(ImageSet(["a", "b"]), Config("spatial"))


def model_of(scene: Scene, folder: Path) -> str:
    folder.mkdir()
    scene.truth.write(folder)
    return str(folder)


def thinned(folder: str) -> pycolmap.Reconstruction:
    """Take a random share of its points from each image of a model but the first, and write it."""
    model = pycolmap.Reconstruction(folder)
    rng = np.random.default_rng(0)
    for number, image_id in enumerate(sorted(model.images)):
        rows = [i for i, p in enumerate(model.images[image_id].points2D) if p.has_point3D()]
        for row in rng.permutation(rows)[: len(rows) * number // 8].tolist():
            if model.images[image_id].points2D[row].has_point3D():  # its track may be gone
                model.delete_observation(image_id, row)
    model.write(folder)
    return model


def true_shares(model: pycolmap.Reconstruction) -> dict[Pair, int]:
    seen = {
        image.name: {p.point3D_id for p in image.points2D if p.has_point3D()}
        for image in model.images.values()
    }
    return {Pair(a, b): len(seen[a] & seen[b]) for a in seen for b in seen if a < b}


def test_covisibility_counts_shared_points(scene: Scene, tmp_path: Path) -> None:
    model = model_of(scene, tmp_path / "model")
    shares = true_shares(thinned(model))
    names = scene.names
    middle = int(np.median(list(shares.values())))
    config = Config("covisibility", model=model, min_shared=middle)
    found = make_pairs(ImageSet(names), config)
    assert set(found.pairs) == {pair for pair, num in shares.items() if num >= middle}
    assert 0 < len(found.pairs) < len(shares)
    best = make_pairs(ImageSet(names), Config("covisibility", model=model, neighbours=1)).pairs
    most = {name: max(n for p, n in shares.items() if name in (p.a, p.b)) for name in names}
    assert all(shares[pair] in (most[pair.a], most[pair.b]) for pair in best)
    assert {name for pair in best for name in (pair.a, pair.b)} == set(names)


def test_poses_pair_the_nearest_that_look_the_same_way(scene: Scene, tmp_path: Path) -> None:
    model = model_of(scene, tmp_path / "model")
    images = {image.name: image for image in scene.truth.images.values()}
    names = sorted(images)
    config = Config("poses", model=model, neighbours=1, max_angle=180)
    expected = set()
    for name in names:
        away = {
            np.linalg.norm(
                images[name].projection_center() - images[other].projection_center()
            ): other
            for other in names
            if other != name
        }
        expected.add(Pair.of(name, away[min(away)]))
    assert set(make_pairs(ImageSet(names), config).pairs) == expected
    nothing = Config("poses", model=model, max_angle=1e-6)
    assert make_pairs(ImageSet(names), nothing).pairs == []
    near = Config("poses", model=model, max_distance=1e-6, max_angle=180)
    assert make_pairs(ImageSet(names), near).pairs == []


def test_images_that_are_not_in_the_model_are_reported(scene: Scene, tmp_path: Path) -> None:
    model = model_of(scene, tmp_path / "model")
    names = sorted(image.name for image in scene.truth.images.values())
    config = Config("poses", model=model, unplaced="exhaustive", max_angle=1e-6)
    found = make_pairs(ImageSet([*names, "zzz new.jpg"]), config)
    assert found.pairs == [Pair(name, "zzz new.jpg") for name in names]
    (problem,) = found.problems
    assert problem.startswith(f"1 of {len(names) + 1} images are not in the model {model}, such as")
    with pytest.raises(ModelError, match=r"none of the 1 images, such as 'new', is in the model"):
        make_pairs(ImageSet(["new"]), Config("poses", model=model))


def test_a_model_of_poses_only_cannot_tell_covisibility(test_data: Path) -> None:
    model = str(test_data / "fountain-P11" / "gt")
    names = [f"{i:04}.jpg" for i in range(11)]
    with pytest.raises(ModelError, match=r"has no points.*'poses' needs none"):
        make_pairs(ImageSet(names), Config("covisibility", model=model))
    # The cameras stand on an arc, in the order of their names.
    found = make_pairs(ImageSet(names), Config("poses", model=model, neighbours=1))
    assert {Pair(a, b) for a, b in pairwise(names)} >= set(found.pairs)
    assert len(found.pairs) >= 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "covisibility"}, "the method 'covisibility' needs a COLMAP model: pass -o "),
        ({"method": "sequential+poses"}, "the method 'poses' needs a COLMAP model"),
        ({"method": "spatial", "model": "m"}, "the method 'spatial' reads no model"),
    ],
)
def test_models_that_are_missing_or_would_not_be_read(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_pairs(ImageSet(["a", "b"]), Config(**options))  # type: ignore[arg-type]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a folder with a COLMAP model"):
        make_pairs(ImageSet(["a"]), Config("poses", model=str(tmp_path / "none")))
