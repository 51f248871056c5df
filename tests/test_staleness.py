"""After a change, exactly what depends on it is computed again, and nothing is thrown away."""

from __future__ import annotations

import shutil
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from sfm_match import spec
from tests.scenes import (
    NAMES,
    NUM_PAIRS,
    SIZE,
    call,
    database_rows,
    make_images,
    model_content,
    read_everything,
    results,
    stores,
    truncate,
    work_done,
)

FIXED = ("--seed", "0", "--threads", "1", "-q")
NUM = len(NAMES)
PAIRS_OF_ONE = NUM - 1

ALL_IMAGES, NO_IMAGE = (NUM, 0), (0, NUM)
ALL_PAIRS, NO_PAIR = (NUM_PAIRS, 0), (0, NUM_PAIRS)

UNCHANGED = {
    "extract": NO_IMAGE,
    "match": NO_PAIR,
    "verify": NO_PAIR,
    "import": False,
    "map": False,
}
FROM_MAP = {**UNCHANGED, "map": True}
FROM_IMPORT = {**FROM_MAP, "import": True}
FROM_VERIFY = {**FROM_IMPORT, "verify": ALL_PAIRS}
FROM_MATCH = {**FROM_VERIFY, "match": ALL_PAIRS}
FROM_EXTRACT = {**FROM_MATCH, "extract": ALL_IMAGES}
ONE_IMAGE = {
    **FROM_IMPORT,
    "extract": (1, NUM - 1),
    "match": (PAIRS_OF_ONE, NUM_PAIRS - PAIRS_OF_ONE),
    "verify": (PAIRS_OF_ONE, NUM_PAIRS - PAIRS_OF_ONE),
}


class Made(NamedTuple):
    images: Path
    out: Path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("staleness")
    images, out = make_images(folder), folder / "out"
    assert call("run", images, out, *FIXED).code == 0
    return Made(images, out)


@pytest.fixture
def made(base: Made, tmp_path: Path) -> Made:
    """A copy of the images and of the finished run."""
    images = shutil.copytree(base.images, tmp_path / "images")
    return Made(Path(images), Path(shutil.copytree(base.out, tmp_path / "out")))


def run(made: Made, *settings: str, code: int = 0, seed: int = 0) -> dict[str, Any]:
    """Run with settings; return what each stage did."""
    options = [part for setting in settings for part in ("-o", setting)]
    outcome = call("run", made.images, made.out, *FIXED, "--seed", str(seed), *options)
    assert outcome.code == code, outcome
    return work_done(made.out)


def assert_same(made: Made, base: Made) -> None:
    """Check that database and model are those of the base, bit for bit."""
    assert database_rows(made.out / "database.db") == database_rows(base.out / "database.db")
    assert model_content(made.out / "model") == model_content(base.out / "model")


def test_without_a_change_nothing_is_done_and_fast(made: Made, base: Made) -> None:
    files = {p: p.stat().st_mtime_ns for p in (made.out / "model").iterdir()}
    assert run(made) == UNCHANGED
    assert {p: p.stat().st_mtime_ns for p in (made.out / "model").iterdir()} == files
    assert sum(stage["seconds"] for stage in results(made.out)["stages"].values()) < 1.0
    assert read_everything(made.out) == read_everything(base.out)
    assert_same(made, base)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("features.max_keypoints=300", FROM_EXTRACT),
        ("features.upright=true", FROM_EXTRACT),
        ("matcher.ratio=0.7", FROM_MATCH),
        ("matcher.mutual=false", FROM_MATCH),
        ("verify.min_num_inliers=20", FROM_VERIFY),
        ("verify.ransac.max_error=3", FROM_VERIFY),
        ("camera.focal_factor=1.0", FROM_VERIFY),
        ("camera.model=SIMPLE_PINHOLE", FROM_VERIFY),
        ("camera.mode=single", FROM_IMPORT),  # the guessed intrinsics of each image stay the same
        ("camera.fixed=true", FROM_VERIFY),  # what is fixed counts as known
        ("mapper.mapper.filter_max_reproj_error=2", FROM_MAP),
        ("mapper.name=global", FROM_MAP),
        ("features.max_keypoints=8192", UNCHANGED),  # the default, named
        ("description=another", UNCHANGED),
    ],
)
def test_a_setting_renews_what_follows_it(
    made: Made, base: Made, setting: str, expected: dict[str, Any]
) -> None:
    before = read_everything(made.out)
    assert run(made, setting) == expected
    after = read_everything(made.out)
    assert after.items() >= before.items()
    assert len(after) == len(before) + sum(
        expected[stage][0] for stage in ("extract", "match", "verify")
    )
    # Going back computes nothing that was there; database and model hold one state at a time.
    back = {name: expected[name] for name in ("import", "map")}
    assert run(made) == {**UNCHANGED, **back}
    assert_same(made, base)


def test_another_seed_renews_what_is_random(made: Made, base: Made) -> None:
    assert run(made, seed=1) == FROM_VERIFY
    assert run(made) == FROM_IMPORT
    assert_same(made, base)


def test_threads_and_the_place_of_the_folders_renew_nothing(made: Made) -> None:
    moved = Made(made.images.rename(made.images.with_name("a b")), made.out.with_name("é"))
    made.out.rename(moved.out)
    assert call("run", moved.images, moved.out, "--seed", "0", "-q", "--threads", "2").code == 0
    assert work_done(moved.out) == UNCHANGED


def test_fewer_pairs_leave_the_others_where_they_are(made: Made, base: Made) -> None:
    found = run(made, "pairs.method=sequential", "pairs.overlap=1", "pairs.quadratic=false")
    assert found == {**FROM_IMPORT, "match": (0, NUM - 1), "verify": (0, NUM - 1)}
    assert len((made.out / "pairs.txt").read_text().splitlines()) == NUM - 1
    assert run(made) == FROM_IMPORT
    assert_same(made, base)


def test_the_result_does_not_depend_on_what_was_done_before(made: Made, base: Made) -> None:
    for kind in ("features", "matches", "two_views"):
        shutil.rmtree(made.out / kind)
    run(made, "pairs.method=sequential", "pairs.overlap=2", "pairs.quadratic=false")
    done = 2 * NUM - 3
    found = run(made)
    assert (found["match"], found["verify"]) == ((NUM_PAIRS - done, done),) * 2
    assert read_everything(made.out) == read_everything(base.out)
    assert_same(made, base)


def test_a_replaced_image_renews_itself_and_its_pairs(made: Made, base: Made) -> None:
    before = read_everything(made.out)
    other = make_images(made.images.parent / "other", ("06.jpg",)) / "06.jpg"
    shutil.copy(other, made.images / "02.jpg")
    assert run(made) == ONE_IMAGE
    assert read_everything(made.out).items() >= before.items()
    assert model_content(made.out / "model") != model_content(base.out / "model")
    shutil.copy(base.images / "02.jpg", made.images)
    assert run(made) == FROM_IMPORT
    assert_same(made, base)


def test_another_time_of_modification_renews_nothing(made: Made) -> None:
    for image in made.images.iterdir():
        image.touch()
    assert run(made) == UNCHANGED


def test_an_added_image_costs_itself_and_its_pairs(made: Made) -> None:
    shutil.copy(make_images(made.images.parent / "more", ("06.jpg",)) / "06.jpg", made.images)
    found = run(made)
    assert found == {
        "extract": (1, NUM),
        "match": (NUM, NUM_PAIRS),
        "verify": (NUM, NUM_PAIRS),
        "import": True,
        "map": True,
    }
    assert len(database_rows(made.out / "database.db")["images"]) == NUM + 1


def test_a_removed_image_costs_nothing_and_is_gone_from_the_model(made: Made, base: Made) -> None:
    before = read_everything(made.out)
    (made.images / "03.jpg").unlink()
    left = NUM_PAIRS - PAIRS_OF_ONE
    assert run(made) == {
        **FROM_IMPORT,
        "extract": (0, NUM - 1),
        "match": (0, left),
        "verify": (0, left),
    }
    assert read_everything(made.out) == before
    assert "03.jpg" not in model_content(made.out / "model")["poses"]
    assert not any("03.jpg" in row for row in database_rows(made.out / "database.db")["images"])
    shutil.copy(base.images / "03.jpg", made.images)
    assert run(made) == FROM_IMPORT
    assert_same(made, base)


def test_a_renamed_image_is_another_image(made: Made) -> None:
    (made.images / "03.jpg").rename(made.images / "x.jpg")
    assert run(made) == ONE_IMAGE


def test_an_image_that_fails_is_tried_again_and_only_it(made: Made, base: Made) -> None:
    truncate(made.images / "01.jpg")
    left = NUM_PAIRS - PAIRS_OF_ONE
    failed = {"extract": (0, NUM - 1), "match": (0, left), "verify": (0, left)}
    assert run(made, code=4) == {**FROM_IMPORT, **failed}
    assert list(results(made.out)["failures"]) == ["01.jpg"]
    assert run(made, code=4) == {**UNCHANGED, **failed}
    shutil.copy(base.images / "01.jpg", made.images)
    assert run(made) == FROM_IMPORT
    assert results(made.out)["failures"] == {}
    assert_same(made, base)


def test_an_edited_mask_renews_its_image(made: Made, base: Made) -> None:
    masks = made.images.parent / "masks"
    masks.mkdir()
    setting = f"images.masks={masks}"
    assert run(made, setting) == UNCHANGED  # no image has a mask yet
    mask = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
    mask[: SIZE[1] // 2] = 0
    cv2.imwrite(str(masks / "02.jpg.png"), mask)
    assert run(made, setting) == ONE_IMAGE
    assert lowest_keypoint(made, "02.jpg") > SIZE[1] / 2 > lowest_keypoint(base, "02.jpg")
    mask[: SIZE[1] * 2 // 3] = 0
    cv2.imwrite(str(masks / "02.jpg.png"), mask)
    assert run(made, setting) == ONE_IMAGE
    assert lowest_keypoint(made, "02.jpg") > SIZE[1] * 2 / 3
    (masks / "02.jpg.png").unlink()
    assert run(made, setting) == FROM_IMPORT
    assert_same(made, base)


def lowest_keypoint(made: Made, name: str) -> float:
    """Return the smallest y of an image's current keypoints."""
    digest = bytes.fromhex(results(made.out)["images"][name])
    (store,) = (s for key, s in stores(made.out).items() if key.startswith("features/"))
    return float(store.read(name, digest).keypoints[:, 1].min())


def test_other_weights_renew_everything_but_another_place_does_not(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = "sfm_match.extractors"
    point = EntryPoint("numbered", "tests.plugin_extractor", group)
    monkeypatch.setattr(spec, "entry_points", lambda group: [point] * (group == point.group))
    weights = made.images.parent / "weights.txt"
    features = ("features.name=numbered", f"features.weights={weights}")
    weights.write_text("800")
    assert run(made, *features) == FROM_EXTRACT
    assert run(made, *features) == UNCHANGED
    before = read_everything(made.out)
    weights.write_text("0700")  # another size, so that no clock decides what is seen
    assert run(made, *features) == FROM_EXTRACT
    assert read_everything(made.out).items() >= before.items()
    counts = results(made.out)["stages"]["import"]["counts"]
    assert counts["keypoints"] == 700 * NUM
    elsewhere = weights.rename(weights.with_name("elsewhere.txt"))
    assert run(made, features[0], f"features.weights={elsewhere}") == UNCHANGED
    elsewhere.write_text("800")
    assert run(made, features[0], f"features.weights={elsewhere}") == FROM_IMPORT


def test_edited_poses_renew_a_triangulation(made: Made, base: Made) -> None:
    poses = Path(shutil.copytree(base.out / "model", made.images.parent / "poses"))
    assert run(made, "mapper.name=global") == FROM_MAP
    others = Path(shutil.copytree(made.out / "model", made.images.parent / "others"))
    mapper = "mapper.name=triangulation"
    assert run(made, mapper, f"mapper.poses={poses}") == FROM_MAP
    points = model_content(made.out / "model")["points"]
    assert run(made, mapper, f"mapper.poses={poses}") == UNCHANGED
    shutil.rmtree(poses)
    others.rename(poses)
    assert run(made, mapper, f"mapper.poses={poses}") == FROM_MAP
    assert model_content(made.out / "model")["points"] != points


def test_a_new_model_has_no_evaluation_until_it_is_made(made: Made) -> None:
    truth = made.images.parent / "truth"
    shutil.copytree(made.out / "model", truth)
    assert call("run", made.images, made.out, *FIXED, "--truth", truth).code == 0
    assert results(made.out)["evaluation"]["num_registered"] == NUM
    run(made)
    assert results(made.out)["evaluation"]["num_registered"] == NUM
    (made.images / "05.jpg").unlink()
    run(made)
    assert "evaluation" not in results(made.out)


def test_a_damaged_shard_is_named_and_only_its_items_are_computed_again(
    made: Made, base: Made
) -> None:
    (shard,) = (made.out / "matches").glob("*/*.h5")
    content = bytearray(shard.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    shard.write_bytes(content)
    outcome = call("run", made.images, made.out, *FIXED, "-o", "verify.min_num_inliers=20")
    assert outcome.code == 1
    assert str(shard) in outcome.stderr
    assert "delete it and run again" in outcome.stderr
    shard.unlink()
    assert run(made) == {**UNCHANGED, "match": ALL_PAIRS}
    assert read_everything(made.out).items() >= read_everything(base.out).items()


def test_a_database_or_model_that_was_deleted_is_made_again(made: Made, base: Made) -> None:
    (made.out / "database.db").unlink()
    assert run(made) == {**UNCHANGED, "import": True}
    shutil.rmtree(made.out / "model")
    assert run(made) == FROM_MAP
    assert_same(made, base)
