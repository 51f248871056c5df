"""After a change of the images, what depends on it is computed again, and only that."""

from __future__ import annotations

import shutil

import cv2
import numpy as np

from tests.scenes import (
    NUM_PAIRS,
    SIZE,
    database_rows,
    make_images,
    model_content,
    read_everything,
    results,
    stores,
    truncate,
)
from tests.staleness.changes import (
    FROM_IMPORT,
    NUM,
    ONE_IMAGE,
    PAIRS_OF_ONE,
    UNCHANGED,
    Made,
    assert_same,
    run,
)


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
    mask = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
    mask[: SIZE[1] // 2] = 0
    cv2.imwrite(str(masks / "02.jpg.png"), mask)
    assert run(made, setting) == ONE_IMAGE
    assert lowest_keypoint(made, "02.jpg") > SIZE[1] / 2 > lowest_keypoint(base, "02.jpg")
    mask[: SIZE[1] * 2 // 3] = 0
    cv2.imwrite(str(masks / "02.jpg.png"), mask)
    assert run(made, setting) == ONE_IMAGE
    assert lowest_keypoint(made, "02.jpg") > SIZE[1] * 2 / 3
    assert run(made, "images.masks=null") == FROM_IMPORT
    assert_same(made, base)


def lowest_keypoint(made: Made, name: str) -> float:
    """Return the smallest y of an image's current keypoints."""
    digest = bytes.fromhex(results(made.out)["images"][name])
    (store,) = (s for key, s in stores(made.out).items() if key.startswith("features/"))
    return float(store.read(name, digest).keypoints[:, 1].min())
