"""Stores: folders of immutable shards, with one writer or many and any number of readers.

A kill loses at most the items of the open shard. Processes write at once without a lock, each its
own shards. An item is found by its key and the digest of what it was made from; where two shards
hold it, the newer one wins. Nothing is ever changed in place.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np

from sfm_match.io.columns import LAYOUTS, Array, Layout, split, stack
from sfm_match.io.files import write_text
from sfm_match.io.shard import (
    SLAB_ROWS,
    SUFFIX,
    DamagedShardError,
    Key,
    Shard,
    StoreError,
    write_shard,
)
from sfm_match.spec import Spec

Item = TypeVar("Item")
Entry = tuple[Key, bytes]
"""A key and the SHA-256 of what the item was made from."""

_DESCRIPTION = "store.json"
_MAX_OPEN_FILES = 32


class Store(Generic[Item]):
    """A store of `Features`, `Matches`, `Correspondences` or `TwoView`.

    Attributes:
        num_reads: how many items have been read from the disk.
    """

    def __init__(self, folder: Path, item_type: type[Item]) -> None:
        """Index the shards of a folder; a folder that does not exist is an empty store."""
        self.folder = folder
        self.num_reads = 0
        self._layout: Layout[Item] = LAYOUTS[item_type]
        self._shards: dict[str, Shard] = {}
        self._index: dict[Key, dict[bytes, tuple[Shard, int]]] = {}
        self._open: OrderedDict[str, Shard] = OrderedDict()
        self._lock = threading.Lock()
        self.refresh()

    @classmethod
    def create(cls, parent: Path, item_type: type[Item], spec: Spec) -> Store[Item]:
        """Open the store of a spec below `parent`; its folder says what it holds."""
        folder = parent / spec.folder_name
        folder.mkdir(parents=True, exist_ok=True)
        description = folder / _DESCRIPTION
        if not description.exists():
            content = {"item": item_type.__name__, "spec": spec.payload}
            write_text(description, json.dumps(content, indent=1))
        return cls(folder, item_type)

    def refresh(self) -> None:
        """Take up the shards that were published since the store was opened."""
        if not self.folder.is_dir():
            return
        with self._lock:
            for name in (path.name for path in shard_files(self.folder)):
                if name not in self._shards:
                    self._add_shard(name)

    def _add_shard(self, name: str) -> None:
        shard = Shard(self.folder / name, self._layout)
        for row, (key, digest) in enumerate(zip(shard.keys, shard.digests, strict=True)):
            self._index.setdefault(key, {})[digest] = (shard, row)
        self._shards[name] = shard
        shard.close()

    def __contains__(self, entry: Entry) -> bool:
        key, digest = entry
        return digest in self._index.get(key, ())

    def __len__(self) -> int:
        return len(self._index)

    def entries(self) -> list[Entry]:
        """Return the newest entry of each key, sorted by key."""
        keys = sorted(
            self._index, key=lambda key: (key,) if isinstance(key, str) else (key.a, key.b)
        )
        return [(key, max(self._index[key], key=lambda d: self._order(key, d))) for key in keys]

    def _order(self, key: Key, digest: bytes) -> tuple[str, int]:
        shard, row = self._index[key][digest]
        return shard.path.name, row

    def missing(self, entries: Iterable[Entry]) -> list[Entry]:
        """Return the entries that the store does not hold."""
        return [entry for entry in entries if entry not in self]

    def num_rows(self, key: Key, digest: bytes) -> int:
        """Return how many keypoints, matches or inlier flags an item has, without reading it.

        Raises:
            KeyError: there is none of that key made from that.
            StoreError: the shard is damaged.
        """
        shard, row = self._find(key, digest)
        with self._lock:
            return self._opened(shard).num_rows(row)

    def read(self, key: Key, digest: bytes) -> Item:
        """Read one item.

        Raises:
            KeyError: there is none of that key made from that.
            StoreError: the shard is damaged.
        """
        shard, row = self._find(key, digest)
        return self._layout.from_arrays(self._read_run(shard, row, row + 1, None)[0])

    def _find(self, key: Key, digest: bytes) -> tuple[Shard, int]:
        if (key, digest) not in self:
            raise KeyError(f"{self.folder} holds nothing current for {key}")
        return self._index[key][digest]

    def items(self, entries: Collection[Entry]) -> Iterator[tuple[Key, Item]]:
        """Read many items, in the order in which they lie on the disk."""
        for key, arrays in self.arrays(entries):
            yield key, self._layout.from_arrays(arrays)

    def arrays(
        self, entries: Collection[Entry], columns: Collection[str] | None = None
    ) -> Iterator[tuple[Key, dict[str, Array | None]]]:
        """Read some columns of many items, in the order in which they lie on the disk.

        Neighbouring items are read together, in slices of bounded size.
        """
        located = sorted(
            ((*self._index[key][digest], key) for key, digest in entries),
            key=lambda found: (found[0].path.name, found[1]),
        )
        first = 0
        while first < len(located):
            shard, row, _ = located[first]
            last = first
            while last < len(located) and located[last][:2] == (shard, row + last - first):
                last += 1
            stop = shard.stop_within(row, row + last - first, SLAB_ROWS)
            for offset, arrays in enumerate(self._read_run(shard, row, stop, columns)):
                yield located[first + offset][2], arrays
            first += stop - row

    def _read_run(
        self, shard: Shard, start: int, stop: int, columns: Collection[str] | None
    ) -> list[dict[str, Array | None]]:
        with self._lock:
            stacked = self._opened(shard).read(start, stop, columns)
            self.num_reads += stop - start
        return split(self._layout, stacked, stop - start)

    def _opened(self, shard: Shard) -> Shard:
        """Note that a shard is about to be read, and close the one read longest ago."""
        self._open[shard.path.name] = shard
        self._open.move_to_end(shard.path.name)
        if len(self._open) > _MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return shard

    def writer(
        self, max_items: int = 4096, max_bytes: int = 32 << 20, max_seconds: float = 10.0
    ) -> Writer[Item]:
        """Return a writer that publishes a shard every so many items, bytes or seconds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Writer(self, self._layout, max_items, max_bytes, max_seconds)

    def close(self) -> None:
        """Close all files. The store may be used again."""
        with self._lock:
            for shard in self._open.values():
                shard.close()
            self._open.clear()


class Writer(Generic[Item]):
    """Collects items and publishes them as shards; leaving the context publishes the last one.

    Use it from one thread. What was added before an exception or Ctrl-C is published too.
    """

    def __init__(
        self,
        store: Store[Item],
        layout: Layout[Item],
        max_items: int,
        max_bytes: int,
        max_seconds: float,
    ) -> None:
        self._store = store
        self._layout = layout
        self._limits = (max_items, max_bytes, max_seconds)
        self._entries: list[Entry] = []
        self._items: list[Item] = []
        self._bytes = 0
        self._since = 0.0

    def __enter__(self) -> Writer[Item]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()

    def add(self, key: Key, digest: bytes, item: Item) -> None:
        """Add an item made from what has the digest (SHA-256, 32 bytes)."""
        if not self._items:
            self._since = time.monotonic()
        self._entries.append((key, digest))
        self._items.append(item)
        self._bytes += _num_bytes(self._layout, item)
        max_items, max_bytes, max_seconds = self._limits
        if (
            len(self._items) >= max_items
            or self._bytes >= max_bytes
            or time.monotonic() - self._since >= max_seconds
        ):
            self.flush()

    def flush(self) -> None:
        """Publish what was added so far as one shard."""
        if not self._items:
            return
        keys, digests = zip(*self._entries, strict=True)
        write_shard(
            self._store.folder,
            self._layout.type.__name__,
            keys,
            digests,
            stack(self._layout, self._items),
        )
        self._entries, self._items, self._bytes = [], [], 0
        self._store.refresh()


def _num_bytes(layout: Layout[Any], item: Any) -> int:
    fields = [getattr(item, column.name) for column in layout.columns]
    return sum(field.nbytes for field in fields if isinstance(field, np.ndarray))


def damaged_shards(folder: Path) -> Iterator[DamagedShardError]:
    """Read every shard of a store in full; yield what is wrong with those that are damaged.

    Raises:
        StoreError: what the store holds is not known, or the system cannot read a shard.
    """
    description = folder / _DESCRIPTION
    try:
        item_name = json.loads(description.read_text(encoding="utf-8"))["item"]
        layout = next(layout for kind, layout in LAYOUTS.items() if kind.__name__ == item_name)
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise StoreError(
            f"{description}: does not say what the store holds; delete {folder} and run again"
        ) from error
    for path in shard_files(folder):
        shard = Shard(path, layout)
        try:
            shard.check()
        except DamagedShardError as damage:
            yield damage
        finally:
            shard.close()


def shard_files(folder: Path) -> list[Path]:
    """Return the shards of a store, in order of writing."""
    return sorted(folder.glob(f"[!.]*{SUFFIX}"))
