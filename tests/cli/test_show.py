"""Pictures of what a run has found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.cli.finished import Scene
from tests.scenes import NAMES, call

FIRST, SECOND = NAMES[:2]


def test_a_pair_is_drawn_into_the_output_folder(copy: Path) -> None:
    outcome = call("show", copy, FIRST, SECOND)
    assert outcome.code == 0
    path = copy / "pictures" / f"{FIRST}--{SECOND}.png"
    assert outcome.stdout == f"{path}\n"
    pixels = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
    assert pixels.shape[1] > 1500
    # Lines of inliers are green, nothing in the muted photographs is.
    assert ((pixels[..., 1] > 180) & (pixels[..., 0] < 100)).sum() > 1000


def test_matches_are_drawn_by_their_errors_as_svg(scene: Scene, copy: Path, tmp_path: Path) -> None:
    path = tmp_path / "matches.svg"
    arguments = ("--truth", scene.truth, "--to", path, "--max-lines", "25", "--draw", "inliers")
    outcome = call("show", copy, FIRST, SECOND, *arguments, "--json")
    assert outcome.code == 0
    content = json.loads(outcome.stdout)
    assert content["picture"] == str(path)
    (caption,) = content["panels"]
    assert "median error 0." in caption
    assert caption.endswith("25 drawn")
    assert path.read_text().startswith("<?xml")
    assert not (copy / "pictures").exists()


def test_one_image_is_drawn_with_its_graph(copy: Path) -> None:
    outcome = call("show", copy, FIRST, "--graph", "knn", "--neighbours", "3", "--json")
    content = json.loads(outcome.stdout)
    assert Path(content["picture"]).name == f"{FIRST}.png"
    keypoints, graph = content["panels"]
    assert int(keypoints.removesuffix(" keypoints")) > 100
    assert graph.startswith("3 nearest neighbours: ")


def test_what_is_drawn_is_part_of_the_default_name(copy: Path) -> None:
    call("show", copy, FIRST, SECOND, "--draw", "edges", "--draw", "keypoints")
    assert [path.name for path in (copy / "pictures").iterdir()] == [
        f"{FIRST}--{SECOND}--edges--keypoints.png"
    ]


def test_nothing_else_of_the_folder_is_touched(copy: Path) -> None:
    def state() -> dict[Path, bytes]:
        files = (path for path in copy.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in files if path.name != "log.txt"}

    before = state()
    assert call("show", copy, FIRST).code == 0
    assert call("show", copy, FIRST, "nothing").code == 1
    after = state()
    assert after.pop(copy / "pictures" / f"{FIRST}.png")
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((f"{FIRST}x",), f"error: no image named '{FIRST}x'"),
        ((FIRST, SECOND, "--draw", "matchs"), "--draw matchs: no such thing; did you mean 'match"),
        ((FIRST, "--draw", "maps"), "the extractor says nothing of all pixels"),
        ((FIRST, "--truth", "anything"), "--truth tells the errors of matches: give two images"),
        ((FIRST, SECOND, "--to", "a.jpg"), "a.jpg: pictures are PNG or SVG"),
        ((FIRST, SECOND, "--graph", "voronoi"), "no graph 'voronoi'; have delaunay, knn"),
        ((FIRST, SECOND, "-o", "matcher.ratio=0.6"), "have not been matched with this recipe"),
    ],
)
def test_wrong_input_is_answered_in_one_line(
    copy: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = call("show", copy, *arguments)
    assert outcome.code == 1
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    assert message in line
    assert not (copy / "pictures").exists()


def test_matches_need_two_images(scene: Scene) -> None:
    outcome = call("show", scene.out, FIRST, "--draw", "matches")
    assert outcome.code == 1
    assert "--draw matches: is drawn between two images; name the other one too" in outcome.stderr
