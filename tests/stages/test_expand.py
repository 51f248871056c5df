"""Neighbours of neighbours: which are proposed, and that rounds of them can be done again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfm_match.stages.pairs import Config, propose_pairs
from sfm_match.stages.workspace import Workspace
from sfm_match.types import Pair
from tests.scenes import NAMES, call, database_rows, make_images, model_content, results, work_done

CHAIN = {Pair(a, b): 50 for a, b in ("ab", "bc", "cd")}


def pairs(*texts: str) -> list[Pair]:
    return [Pair.of(*text) for text in texts]


def propose(inliers: Mapping[Pair, int], *tried: str, **options: Any) -> list[Pair]:
    return propose_pairs(inliers, [*inliers, *pairs(*tried)], Config(**options))


def test_a_chain_is_closed_over_one_image() -> None:
    assert propose(CHAIN) == pairs("ac", "bd")
    assert propose(CHAIN | dict.fromkeys(pairs("ac", "bd"), 40)) == pairs("ad")


def test_what_was_tried_is_not_proposed_again() -> None:
    assert propose(CHAIN, "ac") == pairs("bd")
    assert propose(CHAIN, "bd", "ac") == []


def test_weak_pairs_are_no_links() -> None:
    weak = CHAIN | {Pair("b", "c"): 29}
    assert propose(weak) == []
    assert propose(weak, expand_inliers=29) == pairs("ac", "bd")


def test_each_image_gets_the_best_ones() -> None:
    # The hub h links all others; a and b to it most strongly.
    star = {Pair.of("h", name): num for name, num in zip("abcd", (200, 150, 100, 50), strict=True)}
    assert propose(star) == pairs("ab", "ac", "ad", "bc", "bd", "cd")
    # a is the best for all of them, and b for a.
    assert propose(star, neighbours=1) == pairs("ab", "ac", "ad")


def test_nothing_is_proposed_without_links() -> None:
    assert propose({}) == []
    assert propose({Pair("a", "b"): 100}) == []


@given(
    st.sets(
        st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdefg")).filter(
            lambda p: p[0] < p[1]
        )
    )
)
def test_proposed_are_exactly_the_pairs_at_distance_two(links: set[tuple[str, str]]) -> None:
    linked = {Pair(a, b): 99 for a, b in links}
    near = {
        name: {n for p in linked for n in (p.a, p.b) if name in (p.a, p.b)} for name in "abcdefg"
    }
    expected = [
        Pair(a, b)
        for a in "abcdefg"
        for b in "abcdefg"
        if a < b and Pair(a, b) not in linked and (near[a] & near[b]) - {a, b}
    ]
    assert propose(linked) == expected


OPTIONS = ("--seed", "0", "--threads", "1", "-q", "-o", "features.max_keypoints=600")
SPARSE = (
    *("--pairs", "sequential", "-o", "pairs.overlap=1", "-o", "pairs.quadratic=false"),
    *("-o", "pairs.expand=9", "-o", "pairs.expand_inliers=15"),
)


@pytest.fixture(scope="module")
def expanded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("expand")
    images, out = make_images(folder), folder / "out"
    assert call("run", images, out, *OPTIONS, *SPARSE).code == 0
    return images, out


def listed(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_run_adds_pairs_until_there_are_no_new_ones(expanded: tuple[Path, Path]) -> None:
    _, out = expanded
    assert len(listed(out / "pairs.txt")) == len(NAMES) - 1
    added = listed(out / "pairs_added.txt")
    stage = results(out)["stages"]["expand"]
    assert sum(stage["rounds"]) == len(added) > len(NAMES)
    assert 1 < len(stage["rounds"]) < 9
    assert not set(added) & set(listed(out / "pairs.txt"))
    assert (
        results(out)["stages"]["import"]["counts"]["matched_pairs"] == len(added) + len(NAMES) - 1
    )
    assert 0 < stage["linked"] <= len(added)


def test_the_same_run_again_adds_the_same_and_computes_nothing(expanded: tuple[Path, Path]) -> None:
    images, out = expanded
    before = (out / "pairs_added.txt").read_bytes()
    assert call("run", images, out, *OPTIONS, *SPARSE).code == 0
    assert (out / "pairs_added.txt").read_bytes() == before
    done = work_done(out)
    assert (done["match"][0], done["verify"][0], done["import"], done["map"]) == (
        0,
        0,
        False,
        False,
    )


def test_the_stages_one_by_one_come_to_the_same(
    expanded: tuple[Path, Path], tmp_path: Path
) -> None:
    images, reference = expanded
    out = tmp_path / "out"
    assert call("extract", images, out, *OPTIONS, *SPARSE).code == 0
    for stage in ("pairs", "match", "verify"):
        assert call(stage, out, "-q", "--threads", "1").code == 0
    early = call("import", out, "-q")
    assert (early.code, early.stderr) == (1, f"error: {out}: pairs.expand is 9; expand first\n")
    for stage in ("expand", "expand", "match", "verify", "import", "map"):
        assert call(stage, out, "-q", "--threads", "1").code == 0
    for name in ("pairs.txt", "pairs_added.txt"):
        assert (out / name).read_bytes() == (reference / name).read_bytes()
    assert database_rows(out / "database.db") == database_rows(reference / "database.db")
    assert model_content(out / "model") == model_content(reference / "model")


def test_new_pairs_and_no_expansion_forget_what_was_added(
    expanded: tuple[Path, Path], tmp_path: Path
) -> None:
    images, reference = expanded
    out = Path(shutil.copytree(reference, tmp_path / "out"))
    assert call("run", images, out, *OPTIONS, *SPARSE, "-o", "pairs.expand=0").code == 0
    counts = results(out)["stages"]["import"]["counts"]
    assert counts["matched_pairs"] == len(NAMES) - 1
    assert not (out / "pairs_added.txt").exists()


def test_an_expansion_that_was_stopped_is_done_again(
    expanded: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, reference = expanded
    out = Path(shutil.copytree(reference, tmp_path / "out"))
    with monkeypatch.context() as patch:
        real, calls = Workspace.pairs_to_match, [0]

        def stop(space: Workspace) -> list[Pair]:
            calls[0] += 1
            if calls[0] == 4:  # when the second round is matched
                raise KeyboardInterrupt
            return real(space)

        patch.setattr(Workspace, "pairs_to_match", stop)
        assert call("expand", out, "-q", "--threads", "1").code == 130
    assert not (out / "pairs_added.txt").exists()
    assert call("import", out, "-q").code == 1
    assert call("run", images, out, *OPTIONS, *SPARSE).code == 0
    assert (out / "pairs_added.txt").read_bytes() == (reference / "pairs_added.txt").read_bytes()
    assert work_done(out)["import"] is False
