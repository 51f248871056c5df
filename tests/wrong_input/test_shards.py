"""A damaged shard is named, and after `repair` its items are computed again, and only those."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sfm_match.io.store import Store
from sfm_match.types import Matches
from tests.kill_at_steps import BASE
from tests.resume.runs import OUTPUTS, Reference
from tests.scenes import NAMES, NUM_PAIRS, call, model_content, read_everything, work_done

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "another file": lambda data: b"not a shard\n",
    "no beginning": lambda data: bytes(200) + data[200:],
    "no end": lambda data: data[:-4000] + bytes(4000),
    "a hole": lambda data: (
        data[: len(data) // 3] + bytes(len(data) // 2 - len(data) // 3) + data[len(data) // 2 :]
    ),
}
NUM_ITEMS = {"extract": len(NAMES), "match": NUM_PAIRS, "verify": NUM_PAIRS}


def the_shard(out: Path, stage: str) -> Path:
    (shard,) = (out / OUTPUTS[stage]).glob("*/*.h5")
    return shard


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("stage", NUM_ITEMS)
def test_repair_deletes_the_damaged_shard_and_a_run_renews_its_items(
    finished: Reference, tmp_path: Path, stage: str, damage: str
) -> None:
    out = Path(shutil.copytree(finished.out, tmp_path / "out"))
    shard = the_shard(out, stage)
    shard.write_bytes(DAMAGES[damage](shard.read_bytes()))
    repaired = call("repair", out)
    assert repaired.code == 0
    assert repaired.stdout.startswith(f"deleted {shard}: damaged (")
    assert len(repaired.stdout.splitlines()) == 1
    assert not shard.exists()
    assert call("repair", out).stdout == "nothing is damaged\n"
    assert call("run", finished.images, out, *BASE).code == 0
    computed = {name: work_done(out)[name][0] for name in NUM_ITEMS}
    assert computed == {**dict.fromkeys(NUM_ITEMS, 0), stage: NUM_ITEMS[stage]}
    assert read_everything(out) == finished.items
    assert model_content(out / "model") == finished.model


@pytest.mark.parametrize("damage", ["truncated", "empty", "no beginning"])
@pytest.mark.parametrize("stage", NUM_ITEMS)
def test_a_run_names_the_damaged_shard_and_the_remedy(
    finished: Reference, tmp_path: Path, stage: str, damage: str
) -> None:
    out = Path(shutil.copytree(finished.out, tmp_path / "out"))
    shard = the_shard(out, stage)
    shard.write_bytes(DAMAGES[damage](shard.read_bytes()))
    outcome = call("run", finished.images, out, *BASE)
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {shard}: the shard is damaged (")
    assert "`sfm-match repair` deletes it" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert shard.exists()


def test_a_hole_that_only_a_later_stage_reads_is_named_there(
    finished: Reference, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished.out, tmp_path / "out"))
    shard = the_shard(out, "match")
    shard.write_bytes(DAMAGES["a hole"](shard.read_bytes()))
    outcome = call("verify", out, *BASE, "-o", "verify.min_num_inliers=20")
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {shard}: the shard is damaged (")


def test_the_shards_beside_a_damaged_one_are_kept(finished: Reference, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished.out, tmp_path / "out"))
    (tmp_path / "images").mkdir()
    images = tmp_path / "images"
    for name in NAMES[:5]:
        shutil.copy(finished.images / name, images)
    shutil.rmtree(out / "features")
    assert call("extract", images, out, *BASE).code == 0
    first = the_shard(out, "extract")
    assert call("extract", finished.images, out, *BASE).code == 0
    first.write_bytes(b"")
    assert call("repair", out).stdout.startswith(f"deleted {first}: ")
    assert call("run", finished.images, out, *BASE).code == 0
    assert work_done(out)["extract"] == (5, 1)
    assert read_everything(out) == finished.items


def test_a_shard_that_the_system_cannot_read_is_not_called_damaged(
    finished: Reference, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished.out, tmp_path / "out"))
    shard = the_shard(out, "match")
    shard.unlink()
    shard.mkdir()
    for command in (("run", finished.images, out, "-q"), ("repair", out)):
        outcome = call(*command)
        assert outcome.code == 1
        assert outcome.stderr == f"error: {shard}: the shard cannot be read: Is a directory\n"


def test_a_store_that_does_not_say_what_it_holds_is_named(
    finished: Reference, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished.out, tmp_path / "out"))
    description = the_shard(out, "match").with_name("store.json")
    description.write_text("{")
    outcome = call("repair", out)
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {description}: does not say what the store holds; ")


def test_num_rows_are_those_of_the_items(finished: Reference) -> None:
    store = Store(the_shard(finished.out, "match").parent, Matches)
    for entry in store.entries():
        assert store.num_rows(*entry) == len(store.read(*entry)) > 0
