"""Lists of pairs: round trips, other tools' lists, and what is said of bad lines."""

from __future__ import annotations

import time
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sfm_match.io.pairs import PairList, read_pairs, write_pairs
from sfm_match.spec import ConfigError
from sfm_match.types import Pair

NAMES = ["a.jpg", "b.jpg", "c.jpg", "my photo.jpg", "photo.jpg", "sub/d 1.png", "tab\tx"]

# Any characters, and often those that mean something in the file or to a reader of lines.
names = st.text(min_size=1, max_size=8) | st.text(
    'ab "\\#\n\r\t\ufeff\u2028\u00a0\x1c\x85', min_size=1
)


def read(tmp_path: Path, text: str, known: list[str] = NAMES) -> PairList:
    path = tmp_path / "pairs.txt"
    path.write_bytes(text.encode())
    return read_pairs(path, known)


@given(st.sets(names, min_size=2, max_size=8), st.data())
@example({"\ufeffa", "b", "#c", '"d"', "e\\", "f g", "cafe\u0301\udce9.jpg"}, None)
def test_every_name_survives(
    tmp_path_factory: pytest.TempPathFactory, known: set[str], data: st.DataObject | None
) -> None:
    pairs = [Pair(*both) for both in combinations(sorted(known), 2)]
    if data is not None:
        pairs = data.draw(st.permutations(pairs))
    path = tmp_path_factory.mktemp("pairs") / "pairs.txt"
    write_pairs(path, pairs)
    assert read_pairs(path, known) == PairList(pairs, [])
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") == len(text.splitlines()) == len(pairs)


def test_plain_names_are_written_as_other_tools_write_them(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_pairs(path, [Pair("a/Straße.jpg", "b#.jpg"), Pair("a b.jpg", "c.jpg"), Pair("#1", "x'y")])
    assert path.read_text(encoding="utf-8") == (
        "a/Straße.jpg b#.jpg\n" + '"a b.jpg" c.jpg\n' + '"#1" x\'y\n'
    )


def test_an_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_pairs(path, [])
    assert path.read_bytes() == b""
    assert read_pairs(path, NAMES) == PairList([], [])


def test_a_list_of_hloc_or_colmap(tmp_path: Path) -> None:
    text = (
        "\ufeff# a comment\r\nb.jpg a.jpg\r\n\r\n  c.jpg\tb.jpg  \r\n   # another\r\na.jpg   c.jpg"
    )
    assert read(tmp_path, text) == PairList(
        [Pair("a.jpg", "b.jpg"), Pair("b.jpg", "c.jpg"), Pair("a.jpg", "c.jpg")], []
    )


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("my photo.jpg a.jpg", Pair("a.jpg", "my photo.jpg")),
        ("a.jpg my photo.jpg", Pair("a.jpg", "my photo.jpg")),
        ("my photo.jpg sub/d 1.png", Pair("my photo.jpg", "sub/d 1.png")),
        ('"my photo.jpg" a.jpg', Pair("a.jpg", "my photo.jpg")),
        ('a.jpg "sub/d 1.png"', Pair("a.jpg", "sub/d 1.png")),
        (r'"a\u002ejpg" "b.jpg"', Pair("a.jpg", "b.jpg")),
        ('"tab\tx" a.jpg', Pair("a.jpg", "tab\tx")),
    ],
)
def test_names_with_spaces_with_and_without_quotes(tmp_path: Path, line: str, pair: Pair) -> None:
    assert read(tmp_path, line) == PairList([pair], [])


def test_quotes_that_are_part_of_a_name(tmp_path: Path) -> None:
    known = ['5" disk.jpg', '"quoted"', "b.jpg", "C:\\x.jpg"]
    text = '5" disk.jpg b.jpg\n"quoted" b.jpg\nC:\\x.jpg b.jpg\n'
    assert read(tmp_path, text, known).pairs == [
        Pair('5" disk.jpg', "b.jpg"),
        Pair('"quoted"', "b.jpg"),
        Pair("C:\\x.jpg", "b.jpg"),
    ]


def test_a_quoted_name_wins_over_a_name_with_quotes(tmp_path: Path) -> None:
    found = read(tmp_path, '"a b" c\n', ["a b", '"a b"', "c"])
    assert found == PairList([Pair("a b", "c")], [])


def test_a_name_that_begins_like_a_byte_order_mark(tmp_path: Path) -> None:
    pairs = [Pair("\ufeffa", "\ufeffb")]
    write_pairs(tmp_path / "pairs.txt", pairs)
    assert read_pairs(tmp_path / "pairs.txt", ["\ufeffa", "\ufeffb"]) == PairList(pairs, [])


def test_a_line_with_two_meanings_is_a_problem_until_it_is_quoted(tmp_path: Path) -> None:
    known = ["a", "a b", "b c", "c"]
    found = read(tmp_path, "a b c\n", known)
    assert found.pairs == []
    assert found.problems == [
        "line 1: 'a b c': can be divided into two known names in several ways: "
        "put them in double quotes"
    ]
    assert read(tmp_path, '"a b" c\n', known) == PairList([Pair("a b", "c")], [])


def test_problems_name_line_text_and_remedy(tmp_path: Path) -> None:
    text = "a.jpg bb.jpg\n\nb.jpg b.jpg\na.jpg\na.jpg b.jpg 0 0\na.jpg c.jpg\nxyzzy 12345\n"
    found = read(tmp_path, text)
    assert found.pairs == [Pair("a.jpg", "c.jpg")]
    expected = "expected two known image names with a space between them; quote names that have "
    assert found.problems == [
        "line 1: 'a.jpg bb.jpg': no image named 'bb.jpg', did you mean 'b.jpg'?",
        "line 3: 'b.jpg b.jpg': the same image twice",
        f"line 4: 'a.jpg': {expected}spaces",
        f"line 5: 'a.jpg b.jpg 0 0': {expected}spaces",
        "line 7: 'xyzzy 12345': no image named 'xyzzy'; no image named '12345'",
    ]


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("a.jpg b.jpg\nb.jpg a.jpg\n", "1 line repeats a pair"),
        ("a.jpg b.jpg\nb.jpg a.jpg\na.jpg b.jpg\n", "2 lines repeat a pair"),
    ],
)
def test_repeated_pairs_are_one_problem(tmp_path: Path, text: str, summary: str) -> None:
    assert read(tmp_path, text) == PairList(
        [Pair("a.jpg", "b.jpg")],
        [f"{summary} that was given before, first line 2: 'b.jpg a.jpg'"],
    )


@given(st.text(max_size=60))
def test_no_line_is_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("pairs") / "pairs.txt"
    path.write_text(text, encoding="utf-8", newline="")
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    meant = [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    assert read_pairs(path, ["?"]).pairs == []
    assert len(read_pairs(path, ["?"]).problems) == len(meant)


def test_a_line_without_end_is_a_short_problem(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, "x " * 20_000).problems
    assert problem.endswith("too long for two image names")
    assert len(problem) < 300


@pytest.mark.parametrize("text", ['"a.jpg b.jpg', r'"\x" b.jpg', '"a.jpg""b.jpg"', '""'])
def test_broken_quotes_are_a_problem(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert found.pairs == []
    assert len(found.problems) == 1
    assert repr(text) in found.problems[0]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.txt.*cannot be read: No such file"):
        read_pairs(tmp_path / "none.txt", NAMES)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("a.jpg b.jpg\n", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"not in UTF-8 \(byte 0\): save it as UTF-8"):
        read_pairs(path, NAMES)


def test_long_lists_are_read_fast(tmp_path: Path) -> None:
    known = [f"folder/img {i:04d}.jpg" for i in range(1000)]
    path = tmp_path / "pairs.txt"
    lines = (f"{a} {b}\n" for a, b in combinations(known[:300], 2))
    path.write_text("".join(lines) + "folder/img 0001.jpg nothing\n" * 20_000)
    start = time.process_time()
    found = read_pairs(path, known)
    assert time.process_time() - start < 3
    assert (len(found.pairs), len(found.problems)) == (44850, 20_000)


def test_characters_that_do_not_print_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    write_pairs(path, [Pair("a\n b", "caf\udce9 \u2028")])
    assert path.read_text(encoding="ascii") == '"a\\n b" "caf\\udce9 \\u2028"\n'
