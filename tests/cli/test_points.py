"""`sfm-match match-points`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.pictures import noise_picture
from tests.scenes import call

NUM = 12


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shifted pictures and twelve points in each."""
    monkeypatch.chdir(tmp_path)
    picture = noise_picture(200, 260)
    cv2.imwrite("a.png", picture[:, :220])
    cv2.imwrite("b.png", picture[:, 30:250])
    points = np.random.default_rng(0).uniform((40, 10), (210, 190), (NUM, 2))
    np.savetxt("a.txt", points)
    np.savetxt("b.txt", points - [30, 0])
    return tmp_path


def test_right_matches_are_counted_and_drawn(folder: Path) -> None:
    ended = call("match-points", "a.png", "b.png", "a.txt", "b.txt")
    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout == "12 matches; 12 of 12 keypoints matched right (100.0%); a--b.png\n"
    picture = cv2.imread(str(folder / "a--b.png"))
    assert picture is not None
    assert picture.shape[1] > 1000


def test_json_and_options(folder: Path) -> None:
    points = np.loadtxt("b.txt")
    np.savetxt("b.txt", points[[1, 0, *range(2, NUM)]])  # two have the wrong number
    options = ("-o", "matcher.solver=sm", "-o", "matcher.graph=full", "--to", "x.svg", "--json")
    ended = call("match-points", "a.png", "b.png", "a.txt", "b.txt", *options)
    assert (ended.code, ended.stderr) == (0, "")
    content = json.loads(ended.stdout)
    assert (content["points"], content["matches"], content["correct"]) == (NUM, NUM, NUM - 2)
    assert content["accuracy"] == pytest.approx((NUM - 2) / NUM)
    assert sorted(pair[0] for pair in content["pairs"]) == list(range(NUM))
    assert content["picture"] == "x.svg"
    assert "<svg" in (folder / "x.svg").read_text()


@pytest.mark.usefixtures("folder")
def test_other_matchers_have_rootsift_at_the_points() -> None:
    ended = call("match-points", "a.png", "b.png", "a.txt", "b.txt", "--matcher", "nearest")
    assert ended.code == 0
    assert int(ended.stdout.split()[0]) > 9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--matcher", "loftr"), "loftr finds points of its own; choose a matcher of features"),
        (("--matcher", "pgm"), "no matcher named 'pgm'; did you mean 'pygm'"),
        (("-o", "matcher.solver=astar"), "matcher.solver: "),
        (("-o", "solver.name=rrwm"), "-o solver: only options of the matcher"),
        (("--to", "x.jpg"), "the name must end in .png or .svg"),
    ],
)
def test_wrong_options_are_one_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = call("match-points", "a.png", "b.png", "a.txt", "b.txt", *arguments)
    assert (ended.code, ended.stdout) == (1, "")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not list(folder.glob("a--b*"))


def test_wrong_points_are_one_line(folder: Path) -> None:
    points = np.loadtxt("a.txt")
    np.savetxt("few.txt", points[:5])
    points[3] = 500, 20
    np.savetxt("outside.txt", points)
    for name, message in (
        ("few.txt", "few.txt has 5 points, b.txt has 12: there must be as many in both"),
        ("outside.txt", "outside.txt: point 4 is at (500, 20), outside of a.png, which has 220 x"),
        ("none.txt", "none.txt: cannot be read"),
    ):
        ended = call("match-points", "a.png", "b.png", name, "b.txt")
        assert ended.code == 1
        assert message in ended.stderr
        assert ended.stderr.count("\n") == 1
