"""One shard: an immutable HDF5 file with the items of one write, laid out in columns.

Layout::

    attributes  format, version, item, pixel_origin
    keys        uint8, JSON list: an image name, or a list of two
    digests     uint8 (n, 32), SHA-256 of what each item was made from
    offsets     int64 (n + 1,)
    columns/*   ragged columns (rows, ...), the others (n, ...); where one has the attribute `step`,
                its values are so many times the uint8 that are stored, as float16
    present/*   bool (n,), for optional columns
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sfm_match.io import compact
from sfm_match.io.columns import Layout, Stacked
from sfm_match.io.files import FileError, write_bytes
from sfm_match.types import Pair

Key = str | Pair

FORMAT = "sfm_match shard"
VERSION = 2
_READABLE = (1, 2)
SUFFIX = ".h5"
PARTIAL_SUFFIX = ".partial"
_CHUNK_BYTES = 256 << 10
_MEMORY_BLOCK = 1 << 20
SLAB_ROWS = 1 << 18
"""Rows of ragged columns that are read at once where many are wanted."""


class StoreError(FileError):
    """A store or shard that cannot be read; the message names the file and the remedy."""


class DamagedShardError(StoreError):
    """A shard whose content is not what was written.

    Attributes:
        path: the shard.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: the shard is damaged ({reason}); `sfm-match repair` deletes it, and running "
            "again computes its items again, and only those"
        )
        self.path, self.reason = path, reason


def _encode_keys(keys: Sequence[Key]) -> npt.NDArray[np.uint8]:
    # ASCII JSON holds any name: other alphabets, NUL, and the surrogates of undecodable bytes.
    text = json.dumps([key if isinstance(key, str) else [key.a, key.b] for key in keys])
    return np.frombuffer(text.encode("ascii"), np.uint8)


def _decode_keys(data: npt.NDArray[np.uint8]) -> list[Key]:
    return [key if isinstance(key, str) else Pair(*key) for key in json.loads(data.tobytes())]


def _chunks(array: npt.NDArray[Any]) -> tuple[int, ...] | None:
    if array.size == 0:
        return None
    rows = max(1, _CHUNK_BYTES // (array.nbytes // len(array)))
    return (min(rows, len(array)), *array.shape[1:])


def _write_dataset(group: h5py.Group, name: str, array: npt.NDArray[Any]) -> h5py.Dataset:
    chunks = _chunks(array)
    # The checksum turns bit rot into an error. That of zeros is zero, so that what a lost block
    # leaves would pass, were it not that zeros are no gzip data. Both cost 0.5 ms a megabyte.
    checked = {"compression": "gzip", "compression_opts": 0, "fletcher32": True} if chunks else {}
    return group.create_dataset(name, data=array, chunks=chunks, **checked)


def _write_column(group: h5py.Group, name: str, values: npt.NDArray[Any]) -> None:
    stored = compact.to_bytes(values)
    if stored is None:
        _write_dataset(group, name, values)
    else:
        _write_dataset(group, name, stored).attrs["step"] = compact.STEP


def write_shard(
    folder: Path, item_name: str, keys: Sequence[Key], digests: Sequence[bytes], stacked: Stacked
) -> Path:
    """Write a shard under a temporary name, flush it to the disk, rename it.

    The name begins with the time, so that sorted names are in order of writing.

    Raises:
        FileError: the disk is full, a limit is reached, or the folder cannot be written to.
    """
    path = folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}{SUFFIX}"
    content = _file_content(path.name, item_name, keys, digests, stacked)
    write_bytes(path, content, path.with_suffix(PARTIAL_SUFFIX))
    return path


def _file_content(
    name: str, item_name: str, keys: Sequence[Key], digests: Sequence[bytes], stacked: Stacked
) -> bytes:
    """Return the content of a shard's file; the name is for HDF5, to tell open files apart.

    It is made in memory: HDF5 crashes the process when it closes a file that it cannot write.
    """
    memory = {"driver": "core", "backing_store": False, "block_size": _MEMORY_BLOCK}
    with h5py.File(name, "w", libver="latest", **memory) as file:
        file.attrs.update(format=FORMAT, version=VERSION, item=item_name, pixel_origin="corner")
        _write_dataset(file, "keys", _encode_keys(keys))
        _write_dataset(file, "digests", np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32))
        _write_dataset(file, "offsets", stacked.offsets)
        for column, values in stacked.values.items():
            _write_column(file, f"columns/{column}", values)
        for column, present in stacked.present.items():
            _write_dataset(file, f"present/{column}", present)
        file.flush()
        content: bytes = file.id.get_file_image()
    return content


@dataclass(frozen=True)
class Shard:
    """An open shard. Reads are thread-safe (h5py serialises them)."""

    path: Path
    layout: Layout[Any]

    @cached_property
    def _file(self) -> h5py.File:
        file = h5py.File(self.path, "r")
        item_name = self.layout.type.__name__
        if file.attrs.get("format") != FORMAT or file.attrs.get("version") not in _READABLE:
            raise ValueError(f"not a {FORMAT} of version {' or '.join(map(str, _READABLE))}")
        if file.attrs["item"] != item_name:
            raise ValueError(f"holds {file.attrs['item']}, not {item_name}")
        return file

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            # With a number the system says so, of a file that may be whole; without one, HDF5 does.
            if isinstance(error, OSError) and error.errno is not None:
                reason = os.strerror(error.errno)
                raise StoreError(f"{self.path}: the shard cannot be read: {reason}") from error
            raise DamagedShardError(self.path, str(error)) from error

    def _read(self, name: str, rows: slice) -> npt.NDArray[Any]:
        with self._reading():
            dataset = self._file[name]
            array: npt.NDArray[Any] = dataset[rows]
            if "step" in dataset.attrs:
                return compact.from_bytes(array)
        return array

    @cached_property
    def keys(self) -> list[Key]:
        """The key of each item."""
        with self._reading():
            return _decode_keys(self._read("keys", slice(None)))

    @cached_property
    def digests(self) -> list[bytes]:
        """The digest of each item."""
        return [row.tobytes() for row in self._read("digests", slice(None))]

    @cached_property
    def _offsets(self) -> npt.NDArray[np.int64]:
        return self._read("offsets", slice(None))

    @cached_property
    def _present(self) -> dict[str, npt.NDArray[np.bool_]]:
        optional = [column.name for column in self.layout.columns if column.optional]
        return {name: self._read(f"present/{name}", slice(None)) for name in optional}

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def stop_within(self, start: int, stop: int, max_rows: int) -> int:
        """Return where a run of items from start has to end so as not to exceed the rows.

        At least one item is in the run, and none from `stop` on.
        """
        limit = int(self._offsets[start]) + max_rows
        end = int(np.searchsorted(self._offsets, limit, side="right")) - 1
        return min(max(end, start + 1), stop)

    def read(self, start: int, stop: int, columns: Collection[str] | None) -> Stacked:
        """Read the items start to stop - 1, each column in one slice (all, or those named)."""
        offsets = self._offsets[start : stop + 1]
        rows = slice(int(offsets[0]), int(offsets[-1]))
        wanted = [c for c in self.layout.columns if columns is None or c.name in columns]
        present = {c.name: self._present[c.name][start:stop] for c in wanted if c.optional}
        values = {
            c.name: self._read(f"columns/{c.name}", rows if c.ragged else slice(start, stop))
            for c in wanted
            if not c.optional or present[c.name].any()
        }
        return Stacked(offsets - offsets[0], values, present)

    def num_rows(self, row: int) -> int:
        """Return how many rows an item has in the ragged columns."""
        return int(self._offsets[row + 1] - self._offsets[row])

    def check(self) -> None:
        """Read everything, in pieces.

        Raises:
            DamagedShardError: the content is not what was written.
            StoreError: the file cannot be read.
        """
        if not len(self) == len(self.keys) == len(self.digests):
            raise DamagedShardError(self.path, "its keys, digests and items differ in number")
        start = 0
        while start < len(self):
            stop = self.stop_within(start, len(self), SLAB_ROWS)
            self.read(start, stop, None)
            start = stop

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        file = self.__dict__.pop("_file", None)
        if file is not None:
            file.close()
