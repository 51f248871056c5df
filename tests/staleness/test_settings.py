"""After a change of a setting, what depends on it is computed again, and only that."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tests.scenes import (
    NUM_PAIRS,
    call,
    read_everything,
    results,
    work_done,
)
from tests.staleness.changes import (
    FIXED,
    FROM_EXTRACT,
    FROM_IMPORT,
    FROM_MAP,
    FROM_MATCH,
    FROM_VERIFY,
    NUM,
    UNCHANGED,
    Made,
    assert_same,
    run,
)


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
