"""How stages report their progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], object]]]
"""Called with a stage's name and its number of steps; gives what is called with steps done."""


@contextmanager
def no_progress(stage: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Show nothing."""
    yield lambda steps: None
