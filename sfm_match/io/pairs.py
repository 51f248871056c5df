"""Lists of image pairs as text, one pair a line.

We write two names with a space between them. A name that a reader could mistake (with white space,
a double quote or a backslash in it, a ``#`` in front, or bytes that are no UTF-8) is written as a
JSON string; every other line is as hloc and COLMAP write and read it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfm_match.io.files import write_text
from sfm_match.spec import ConfigError
from sfm_match.types import Pair

# Surrogates stand for bytes of a file name that are no UTF-8; U+FEFF in front is a byte order mark.
_PLAIN_NAME = re.compile(r'(?!#)[^\s"\\\ud800-\udfff\ufeff]+')
_TOKEN = r'("(?:[^"\\]|\\.)*"|[^\s"]\S*)'
_TWO_TOKENS = re.compile(rf"{_TOKEN}\s+{_TOKEN}")
_SPACES = re.compile(r"\s+")
_JSON = json.JSONDecoder(strict=False)  # a tab typed between quotes is a tab

_MAX_LINE = 1 << 15  # two file names are shorter, however they are escaped
_MAX_SHOWN = 200
# A name is compared with all names to find similar ones: done for the first few wrong names.
_MAX_SUGGESTIONS = 5


@dataclass(frozen=True)
class PairList:
    """Pairs of images, and what was wrong on the way to them.

    Attributes:
        pairs: each pair once.
        problems: one message each.
    """

    pairs: list[Pair]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Problem:
    number: int
    line: str
    what: str
    unknown: tuple[str, ...] = ()


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a list of pairs (UTF-8); a reader finds the old file or the new one."""
    tokens = {name: _token(name) for name in _names(pairs)}
    write_text(path, "".join(f"{tokens[pair.a]} {tokens[pair.b]}\n" for pair in pairs))


def _names(pairs: Iterable[Pair]) -> Iterator[str]:
    for pair in pairs:
        yield pair.a
        yield pair.b


def _token(name: str) -> str:
    if _PLAIN_NAME.fullmatch(name):
        return name
    return json.dumps(name, ensure_ascii=not name.isprintable())


def read_pairs(path: Path, names: Collection[str]) -> PairList:
    """Read a list of pairs, as `write_pairs` writes it or as hloc and COLMAP do.

    Blank lines and lines that begin with ``#`` are left out. Names with spaces need no quotes where
    only one way to divide the line gives two known names. A bad line is a problem, not an error.

    Args:
        path: the file, in UTF-8.
        names: the images that there are.

    Returns:
        the pairs in the order of the file, each once, and the problems: lines that make no pair,
        with number and text; lines that repeat a pair are one problem together.

    Raises:
        ConfigError: the file cannot be read, or is not in UTF-8.
    """
    known = frozenset(names)
    pairs: dict[Pair, None] = {}
    problems: list[_Problem] = []
    repeated: list[_Problem] = []
    for number, line in read_lines(path):
        found = divide_names(line, known)
        if isinstance(found, str):
            problems.append(_Problem(number, line, found))
        elif unknown := tuple(name for name in dict.fromkeys(found) if name not in known):
            problems.append(_Problem(number, line, "", unknown))
        elif found[0] == found[1]:
            problems.append(_Problem(number, line, "the same image twice"))
        elif (pair := Pair.of(*found)) in pairs:
            repeated.append(_Problem(number, line, "repeats a pair"))
        else:
            pairs[pair] = None
    messages = _messages(problems, known)
    if repeated:
        num = len(repeated)
        lines = "1 line repeats a pair" if num == 1 else f"{num} lines repeat a pair"
        messages.append(f"{lines} that was given before, first {_where(repeated[0])}")
    return PairList(list(pairs), messages)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a list with their numbers; blank ones and comments are left out.

    Raises:
        ConfigError: the file cannot be read, or is not in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: the list of pairs cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: the list of pairs is not in UTF-8 (byte {error.start}): save it as UTF-8 text"
        ) from None
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped


def divide_names(line: str, known: Collection[str]) -> tuple[str, str] | str:
    """Return the two image names of a line, known or not, or what is wrong with it."""
    if len(line) > _MAX_LINE:
        return "too long for two image names"
    words = line.split()
    if len(words) == 2 and words[0] in known and words[1] in known:
        return words[0], words[1]
    quoted = _read_quoted(line) if '"' in line else None
    if quoted and quoted[0] in known and quoted[1] in known:
        return quoted
    plain = ((line[: gap.start()], line[gap.end() :]) for gap in _SPACES.finditer(line))
    fitting = [(left, right) for left, right in plain if left in known and right in known]
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        return "can be divided into two known names in several ways: put them in double quotes"
    if quoted:
        return quoted
    if len(words) == 2:
        return words[0], words[1]
    return "expected two known image names with a space between them; quote names that have spaces"


def _read_quoted(line: str) -> tuple[str, str] | None:
    tokens = _TWO_TOKENS.fullmatch(line)
    if tokens is None:
        return None
    try:
        name0, name1 = (_JSON.decode(t) if t.startswith('"') else t for t in tokens.groups())
    except json.JSONDecodeError:
        return None
    return name0, name1


def _messages(problems: Sequence[_Problem], known: Collection[str]) -> list[str]:
    unknown = dict.fromkeys(name for problem in problems for name in problem.unknown)
    hints = {name: _hint(name, known) for name in list(unknown)[:_MAX_SUGGESTIONS]}
    return [
        f"{_where(problem)}: "
        + (
            problem.what
            or "; ".join(
                f"no image named {name!r}{hints.get(name, '')}" for name in problem.unknown
            )
        )
        for problem in problems
    ]


def _hint(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _where(problem: _Problem) -> str:
    shown = problem.line[:_MAX_SHOWN] + "..." * (len(problem.line) > _MAX_SHOWN)
    return f"line {problem.number}: {shown!r}"
