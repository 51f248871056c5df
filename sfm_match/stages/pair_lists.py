"""The pairs of an output folder: those that were chosen, and those that were added to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sfm_match.io.pairs import PairList, read_pairs, write_pairs
from sfm_match.logs import log
from sfm_match.spec import ConfigError
from sfm_match.types import Pair


class PairLists:
    """`pairs.txt`, and `pairs_added.txt` where the recipe expands it."""

    def __init__(self, out: Path, rounds: int) -> None:
        """Use the lists of an output folder.

        Args:
            out: the folder.
            rounds: in how many rounds pairs are added, `pairs.expand`.
        """
        self._out, self._rounds = out, rounds
        self._chosen, self._added = out / "pairs.txt", out / "pairs_added.txt"
        self._adding: list[Pair] | None = None

    def choose(self, pairs: Sequence[Pair]) -> None:
        """Write the pairs that were chosen; none are added to them yet."""
        self._added.unlink(missing_ok=True)
        write_pairs(self._chosen, pairs)

    def add(self, pairs: Sequence[Pair]) -> None:
        """Write the pairs that are added to those that were chosen."""
        write_pairs(self._added, pairs)

    @contextmanager
    def adding(self) -> Iterator[list[Pair]]:
        """Begin at `pairs.txt` again; what is put on the list given counts as added meanwhile."""
        self._added.unlink(missing_ok=True)
        self._adding = []
        try:
            yield self._adding
        finally:
            self._adding = None

    def check_expanded(self) -> None:
        """Raise where pairs are still to be added to those of `pairs.txt`.

        Raises:
            ConfigError: the recipe says so.
        """
        if self._rounds and self._adding is None and not self._added.exists():
            raise ConfigError(f"{self._out}: pairs.expand is {self._rounds}; expand first")

    def read(self, names: Collection[str]) -> PairList:
        """Return all pairs of the given images, each once, and what was wrong with the lists.

        Raises:
            ConfigError: there is no `pairs.txt`.
        """
        found = read_pairs(self._chosen, names)
        added = PairList(self._adding or [])
        if self._adding is None and self._rounds and self._added.exists():
            added = read_pairs(self._added, names)
        pairs = list(dict.fromkeys(found.pairs + added.pairs))
        return PairList(pairs, found.problems + added.problems)

    def ready(
        self, pairs: Sequence[Pair], is_ready: Callable[[Pair], bool], first: str
    ) -> list[Pair]:
        """Return the pairs that have been through a stage.

        Raises:
            ConfigError: none has been through the stage `first`.
        """
        found = [pair for pair in pairs if is_ready(pair)]
        if pairs and not found:
            raise ConfigError(f"{self._out}: no pair is ready with this recipe; {first} first")
        return found


def report_problems(problems: Iterable[str]) -> None:
    """Log what was wrong with a list of pairs."""
    for problem in problems:
        log.warning("pairs: %s", problem)
