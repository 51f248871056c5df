"""After a change of another file, what depends on it is computed again, and only that."""

from __future__ import annotations

import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from sfm_match import spec
from tests.scenes import (
    call,
    model_content,
    read_everything,
    results,
)
from tests.staleness.changes import (
    ALL_PAIRS,
    FIXED,
    FROM_EXTRACT,
    FROM_IMPORT,
    FROM_MAP,
    NUM,
    UNCHANGED,
    Made,
    assert_same,
    run,
)


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
    assert "`sfm-match repair` deletes it" in outcome.stderr
    assert str(shard) in call("repair", made.out).stdout
    assert not shard.exists()
    assert run(made) == {**UNCHANGED, "match": ALL_PAIRS}
    assert read_everything(made.out).items() >= read_everything(base.out).items()


def test_a_database_or_model_that_was_deleted_is_made_again(made: Made, base: Made) -> None:
    (made.out / "database.db").unlink()
    assert run(made) == {**UNCHANGED, "import": True}
    shutil.rmtree(made.out / "model")
    assert run(made) == FROM_MAP
    assert_same(made, base)
