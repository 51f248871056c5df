"""A uniform sample of a stream of unknown length, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


class Reservoir:
    """Holds items so that each of all that were added is in it with the same chance.

    Algorithm R of Vitter, "Random sampling with a reservoir" (ACM TOMS 1985): item number t takes a
    random one of t places, if there is such a place.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        """Begin with nothing in it.

        Args:
            size: the most items it holds.
            rng: which of them.
        """
        self.size = size
        self.num_seen = 0
        self._rng = rng
        self._items: npt.NDArray[Any] | None = None

    @property
    def items(self) -> npt.NDArray[Any]:
        """The items, (min(size, num_seen), ...).

        Raises:
            ValueError: nothing was ever added, not even an empty array.
        """
        if self._items is None:
            raise ValueError("nothing was added to the reservoir: its items have no type")
        return self._items[: self.num_seen]

    def add(self, items: npt.NDArray[Any]) -> None:
        """Take items (N, ...), in their order; all calls take the same type and shape."""
        if self._items is None:
            self._items = np.empty((self.size, *items.shape[1:]), items.dtype)
        numbers = self.num_seen + np.arange(len(items))
        places = np.where(numbers < self.size, numbers, self._rng.integers(0, numbers + 1))
        taken = places < self.size
        # Where two want one place the later one has it: numpy assigns in order.
        self._items[places[taken]] = items[taken]
        self.num_seen += len(items)
