"""Panels laid out, and the files they become."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest

from sfm_match.report.colours import error_scale
from sfm_match.report.figures import compose, picture_bytes, save_figure
from sfm_match.report.pictures import Panel, draw_matches, draw_picture
from sfm_match.spec import ConfigError

RNG = np.random.default_rng(0)
RED = np.zeros((60, 100, 3), np.uint8)
RED[:] = 255, 0, 0
TALL = np.full((120, 80), 90, np.uint8)


def matches(num: int = 20, caption: str = "") -> Panel:
    points0, points1 = RNG.uniform(0, (100, 60), (num, 2)), RNG.uniform(0, (80, 120), (num, 2))
    errors = RNG.uniform(0, 9, num)
    scale = error_scale()
    return draw_matches(RED, TALL, points0, points1, errors, scale=scale, caption=caption)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_a_row_fills_the_width_in_one_height() -> None:
    figure = compose([[draw_picture(RED, "one"), draw_picture(TALL, "two")]], width=10)
    first, second = (axes.get_position().transformed(figure.transSubfigure) for axes in figure.axes)
    assert first.height == pytest.approx(second.height)
    assert first.width / first.height == pytest.approx(100 / 60)
    assert second.width / second.height == pytest.approx(80 / 120)
    assert second.x1 == pytest.approx(1500 - 30)  # ten inches less the margin, in pixels


def test_rows_lie_below_each_other_and_inside() -> None:
    figure = compose([[matches()], [draw_picture(RED, "a"), matches()]], "title")
    boxes = [axes.get_position() for axes in figure.axes if axes.get_position().height > 0.05]
    assert len(boxes) == 3
    assert boxes[0].y0 > boxes[1].y1
    assert boxes[1].y0 == pytest.approx(boxes[2].y0)
    assert all(0 < b.x0 < b.x1 < 1 and 0 < b.y0 < b.y1 < 1 for b in boxes)


def test_the_picture_is_where_the_panel_is() -> None:
    found = pixels(picture_bytes(compose([[draw_picture(RED, "")]], width=4)))
    is_red = (found == [255, 0, 0]).all(axis=2)
    rows, columns = np.flatnonzero(is_red.any(axis=1)), np.flatnonzero(is_red.any(axis=0))
    assert len(columns) / len(rows) == pytest.approx(100 / 60, rel=0.01)
    assert is_red[rows[0] : rows[-1], columns[0] : columns[-1]].all()
    assert columns[0] == pytest.approx(30, abs=1)  # the margin
    assert (found[:, :25] == 255).all()


def test_a_dot_is_drawn_on_the_pixel_that_it_is_on() -> None:
    black = np.zeros((50, 100), np.uint8)
    panel = draw_matches(
        black, black, np.array([[30.5, 20.5]]), np.array([[30.5, 20.5]]), colour="#00ff00"
    )
    found = pixels(picture_bytes(compose([[panel]], width=8)))
    is_green = (found == [0, 255, 0]).all(axis=2)
    is_inside = (found.sum(axis=2) < 3 * 255).any(axis=0)
    left = np.flatnonzero(is_inside)[0]
    scale = (np.flatnonzero(is_inside)[-1] + 1 - left) / panel.size[0]
    columns = np.flatnonzero(is_green.any(axis=0))
    assert (columns[0] + 2 - left) / scale == pytest.approx(30.5, abs=0.6)


def test_the_same_figure_gives_the_same_bytes() -> None:
    for picture_format in ("png", "svg"):
        first, second = (
            picture_bytes(compose([[draw_picture(RED, "a")]], "t"), picture_format)
            for _ in range(2)
        )
        assert first == second


def test_svg_has_a_path_for_each_line(tmp_path: Path) -> None:
    save_figure(compose([[matches(17)]]), tmp_path / "a.SVG")
    root = ElementTree.parse(tmp_path / "a.SVG").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    lines = [
        group
        for group in root.iter("{http://www.w3.org/2000/svg}g")
        if group.get("id", "").startswith("LineCollection")
    ]
    assert [len(group.findall("{http://www.w3.org/2000/svg}path")) for group in lines] == [17]


def test_a_legend_that_does_not_fit_is_left_out() -> None:
    def texts(caption: str) -> list[str]:
        return [text.get_text() for text in compose([[matches(caption=caption)]], width=5).texts]

    assert texts("x") == ["x", "8", "0.25", "epipolar error, px"]
    assert texts("x" * 24) == ["x" * 24, "8", "0.25"]
    assert texts("x" * 40) == ["x" * 40]


def test_a_caption_that_does_not_fit_is_cut() -> None:
    figure = compose([[draw_picture(TALL, "a caption that is long " * 9)] * 2], "t" * 200, width=8)
    assert len(figure.texts) == 3
    for text in figure.texts:
        assert text.get_text().endswith("\u2026")
        assert len(text.get_text()) > 20
        assert text.get_window_extent().x1 < 8 * 150
    assert figure.texts[1].get_window_extent().x1 < figure.texts[2].get_window_extent().x0


def test_names_with_dollar_signs_are_no_formulas() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture_bytes(compose([[draw_picture(RED, "$x^{$ and $y$")]], "a$b$_{"))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.pdf"])
def test_other_suffixes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.png or \.svg"):
        save_figure(compose([[draw_picture(RED, "")]]), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_large_pictures_are_reduced_to_what_is_seen() -> None:
    large = np.zeros((3000, 4000), np.uint8)
    assert len(picture_bytes(compose([[draw_picture(large, "")]]), "svg")) < 100_000
