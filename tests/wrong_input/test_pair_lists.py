"""A list of pairs with wrong lines: the lines are said and listed, the others are used."""

from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path

import pytest

from tests.kill_at_steps import BASE
from tests.resume.runs import Reference
from tests.scenes import NAMES, call, results

GOOD = tuple(" ".join(pair) for pair in combinations(NAMES[:4], 2))


def test_wrong_lines_are_named_and_the_others_used(finished: Reference, tmp_path: Path) -> None:
    images, pairs = Path(shutil.copytree(finished.images, tmp_path / "images")), tmp_path / "p.txt"
    (images / "zero.jpg").touch()
    wrong = ("00.jpg nowhere.jpg", "05.jpg 05.jpg", "01.jpg 00.jpg", "00.jpg zero.jpg", "03.jpg")
    pairs.write_text("\n".join(GOOD + wrong))
    outcome = call("run", images, tmp_path / "out", *BASE, "--pairs", pairs)
    assert outcome.code == 4
    found = results(tmp_path / "out")["stages"]["pairs"]
    assert found["pairs"] == len(GOOD)
    assert found["problems"] == [
        "line 7: '00.jpg nowhere.jpg': no image named 'nowhere.jpg'",
        "line 8: '05.jpg 05.jpg': the same image twice",
        "line 10: '00.jpg zero.jpg': no image named 'zero.jpg'",
        "line 11: '03.jpg': expected two known image names with a space between them; quote names "
        "that have spaces",
        "1 line repeats a pair that was given before, first line 9: '01.jpg 00.jpg'",
    ]
    told = [line for line in outcome.stderr.splitlines() if line.startswith("pairs: ")]
    assert told == [f"pairs: {problem}" for problem in found["problems"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"00.jpg nowhere.jpg\n", "pairs: none is left: line 1: '00.jpg nowhere.jpg': no image"),
        ("00.jpg 01.jpg\n".encode("utf-16"), "is not in UTF-8 (byte 0): save it as UTF-8 text"),
    ],
)
def test_a_list_without_a_pair_is_an_error(
    finished: Reference, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    outcome = call("run", finished.images, tmp_path / "out", *BASE, "--pairs", tmp_path / "p.txt")
    assert outcome.code == 1
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_a_list_that_is_not_there_is_known_before_the_work(
    finished: Reference, tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere.txt"
    outcome = call("run", finished.images, tmp_path / "out", *BASE, "--pairs", missing)
    assert (outcome.code, outcome.stderr) == (1, f"error: --pairs {missing}: no such file\n")
    assert not (tmp_path / "out").exists()
