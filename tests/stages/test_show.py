"""What the stores hold of an image and of a pair, in upright pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pycolmap
import pytest

from sfm_match import Recipe, Run
from sfm_match.geometry.raster import inverse_orientation, upright
from sfm_match.io.images import ImageError, read_image
from sfm_match.spec import ConfigError
from sfm_match.stages.show import show_dense, show_image, show_pair
from sfm_match.stages.workspace import Workspace
from sfm_match.types import Pair
from tests import plugin_matcher
from tests.scenes import NAMES, SIZE, make_images, make_truth, truncate

FIRST, SECOND = NAMES[:2]


def recipe_of(folder: Path, *settings: str, name: str = "sift") -> Recipe:
    return Recipe.load(name, *settings, images={"path": str(folder / "images")})


def space_of(folder: Path, *settings: str, name: str = "sift") -> Workspace:
    return Workspace(folder / "out", recipe_of(folder, *settings, name=name), wait=False)


def run_to(folder: Path, *stages: str, settings: tuple[str, ...] = (), name: str = "sift") -> Run:
    run = Run(folder / "out", recipe_of(folder, *settings, name=name), threads=1)
    for stage in stages:
        getattr(run, stage)()
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images, verified; the second is turned in its file, and EXIF says so."""
    folder = tmp_path_factory.mktemp("show")
    make_images(folder, NAMES[:3])
    path = folder / "images" / SECOND
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    raster = upright(read_image(path).pixels, inverse_orientation(6))
    PIL.Image.fromarray(raster).save(path, exif=exif, quality=95)
    run_to(folder, "extract", "pairs", "match", "verify")
    return folder


def test_an_image_comes_with_its_keypoints_upright(made: Path) -> None:
    space = space_of(made)
    shown = show_image(space, SECOND)
    assert shown.image.shape == (SIZE[1], SIZE[0], 3)
    assert len(shown.points) == len(shown.scores) > 100
    assert (shown.points <= SIZE).all()
    digest = space.image_digests()[SECOND]
    in_file = space.features.read(SECOND, digest).keypoints
    # EXIF 6: the file's rows are the picture's columns, from right to left.
    np.testing.assert_allclose(shown.points[:, 0], SIZE[0] - in_file[:, 1], atol=1e-3)
    np.testing.assert_allclose(shown.points[:, 1], in_file[:, 0], atol=1e-3)


def test_a_pair_comes_in_the_order_of_the_names(made: Path) -> None:
    there = show_pair(space_of(made), FIRST, SECOND)
    back = show_pair(space_of(made), SECOND, FIRST)
    np.testing.assert_array_equal(there.points0, back.points1)
    np.testing.assert_array_equal(there.points1, back.points0)
    assert there.inliers is not None
    assert 30 < there.inliers.sum() <= len(there.scores) == len(there.points0)
    np.testing.assert_array_equal(there.images[1].image, back.images[0].image)
    # Neighbouring photographs: what lies left in one lies left in the other, turned or not.
    inliers0, inliers1 = there.points0[there.inliers], there.points1[there.inliers]
    for axis in (0, 1):
        assert np.corrcoef(inliers0[:, axis], inliers1[:, axis])[0, 1] > 0.7


def test_errors_are_those_of_the_true_poses(made: Path, tmp_path: Path) -> None:
    truth = make_truth(tmp_path)
    other = NAMES[2]
    shown = show_pair(space_of(made), FIRST, other, truth=truth)
    assert shown.inliers is not None
    assert shown.errors is not None
    assert np.median(shown.errors[shown.inliers]) < 0.5
    # In pixels of this image, not of the larger one that the model's camera is of.
    model = pycolmap.Reconstruction(truth)
    a, b = (model.find_image_with_name(name) for name in (FIRST, other))
    assert a is not None
    assert b is not None
    camera = model.cameras[1]
    camera.rescale(*SIZE)
    relative = b.cam_from_world() * a.cam_from_world().inverse()
    tx, ty, tz = relative.translation
    E = np.array([[0, -tz, ty], [tz, 0, -tx], [-ty, tx, 0]]) @ relative.rotation.matrix()
    ray0, ray1 = (
        np.append(camera.cam_from_img(points[:1].astype(float))[0], 1)
        for points in (shown.points0, shown.points1)
    )
    lines = E @ ray0, E.T @ ray1
    distances = [abs(ray1 @ E @ ray0) / np.hypot(*line[:2]) for line in lines]
    expected = max(distances) * camera.mean_focal_length()
    assert shown.errors[0] == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_a_pair_that_is_not_verified_has_no_inliers(made: Path) -> None:
    shown = show_pair(space_of(made, "verify.min_num_inliers=20"), FIRST, SECOND)
    assert shown.inliers is None
    assert shown.errors is None
    assert len(shown.scores) > 30


def test_unknown_names_are_answered_with_the_nearest(made: Path) -> None:
    with pytest.raises(
        ConfigError, match=f"no image named '0{FIRST}' in .*; did you mean '{FIRST}"
    ):
        show_pair(space_of(made), f"0{FIRST}", SECOND)
    with pytest.raises(ConfigError, match=f"there are {NAMES[0]}, {NAMES[1]}, {NAMES[2]}$"):
        show_image(space_of(made), "zzzzzzzz")
    with pytest.raises(ConfigError, match="a pair has two different images"):
        show_pair(space_of(made), FIRST, FIRST)


def test_what_is_not_there_yet_is_named(made: Path) -> None:
    with pytest.raises(ConfigError, match="extract first"):
        show_image(space_of(made, "features.max_keypoints=77"), FIRST)
    with pytest.raises(ConfigError, match=f"{FIRST} and {SECOND} have not been matched with this"):
        show_pair(space_of(made, "matcher.ratio=0.5"), FIRST, SECOND)


def test_the_images_that_one_is_matched_with_are_named(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    run_to(folder, settings=("matcher.ratio=0.6",)).workspace.lists.choose([Pair(FIRST, NAMES[2])])
    run_to(folder, "match", settings=("matcher.ratio=0.6",))
    space = space_of(folder, "matcher.ratio=0.6")
    with pytest.raises(ConfigError, match=f"; {FIRST} has with {NAMES[2]}$"):
        show_pair(space, FIRST, SECOND)


def test_the_truth_must_have_both_images(made: Path, tmp_path: Path) -> None:
    truth = make_truth(tmp_path, (FIRST, *NAMES[3:]))
    with pytest.raises(ConfigError, match=f"truth: has no pose of {SECOND}; did you mean"):
        show_pair(space_of(made), FIRST, SECOND, truth=truth)
    with pytest.raises(FileNotFoundError, match="is not a folder with a COLMAP model"):
        show_pair(space_of(made), FIRST, SECOND, truth=tmp_path / "nowhere")


def test_a_damaged_image_is_named(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    shutil.copytree(made / "images", folder / "images", dirs_exist_ok=True)
    (folder / "images" / FIRST).write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=f"{FIRST}: is left out: "):
        show_image(space_of(folder), FIRST)


def test_a_matcher_without_features_shows_its_points_and_then_its_tracks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_matcher.register(monkeypatch)
    make_images(tmp_path, NAMES[:2])
    recipe = tmp_path / "points.toml"
    recipe.write_text('[matcher]\nname = "points"\n')
    run_to(tmp_path, "extract", "pairs", "match", name=str(recipe))
    space = space_of(tmp_path, name=str(recipe))
    before = show_pair(space, FIRST, SECOND)
    assert len(before.scores) > 30
    assert before.inliers is None
    assert len(before.images[0].points) == 0
    assert show_dense(space, before.images[0].image, "cpu") is None

    run_to(tmp_path, "tracks", "verify", name=str(recipe))
    after = show_pair(space_of(tmp_path, name=str(recipe)), FIRST, SECOND)
    assert after.inliers is not None
    assert len(after.images[0].points) >= len(after.scores) > 30
    assert set(map(tuple, after.points0.tolist())) <= set(
        map(tuple, after.images[0].points.tolist())
    )


def test_sift_says_nothing_of_all_pixels(made: Path) -> None:
    space = space_of(made)
    assert show_dense(space, show_image(space, FIRST).image, "cpu") is None


def test_a_cut_image_fails_as_such(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    truncate(folder / "images" / FIRST)
    with pytest.raises(ImageError, match=FIRST):
        show_image(space_of(folder), FIRST)
