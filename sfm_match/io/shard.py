"""One shard: an immutable HDF5 file with the items of one write, laid out in columns.

Layout::

    attributes  format, version, item, pixel_origin
    keys        uint8, JSON list: an image name, or a list of two
    digests     uint8 (n, 32), SHA-256 of what each item was made from
    offsets     int64 (n + 1,)
    columns/*   ragged columns (rows, ...), the others (n, ...)
    present/*   bool (n,), for optional columns
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sfm_match.io.columns import Layout, Stacked
from sfm_match.io.files import publish
from sfm_match.types import Pair

Key = str | Pair

FORMAT = "sfm_match shard"
VERSION = 1
SUFFIX = ".h5"
PARTIAL_SUFFIX = ".partial"
_CHUNK_BYTES = 256 << 10


class StoreError(OSError):
    """A store or shard that cannot be read; the message names the file and the remedy."""


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


def _write_dataset(group: h5py.Group, name: str, array: npt.NDArray[Any]) -> None:
    chunks = _chunks(array)
    # The checksum costs a tenth of a millisecond per megabyte and turns bit rot into an error.
    group.create_dataset(name, data=array, chunks=chunks, fletcher32=chunks is not None)


def write_shard(
    folder: Path, item_name: str, keys: Sequence[Key], digests: Sequence[bytes], stacked: Stacked
) -> Path:
    """Write a shard under a temporary name, flush it to the disk, rename it.

    The name begins with the time, so that sorted names are in order of writing.
    """
    path = folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}{SUFFIX}"
    partial = path.with_suffix(PARTIAL_SUFFIX)
    try:
        with h5py.File(partial, "w", libver="latest") as file:
            file.attrs.update(format=FORMAT, version=VERSION, item=item_name, pixel_origin="corner")
            _write_dataset(file, "keys", _encode_keys(keys))
            _write_dataset(
                file, "digests", np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
            )
            _write_dataset(file, "offsets", stacked.offsets)
            for name, values in stacked.values.items():
                _write_dataset(file, f"columns/{name}", values)
            for name, present in stacked.present.items():
                _write_dataset(file, f"present/{name}", present)
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


@dataclass(frozen=True)
class Shard:
    """An open shard. Reads are thread-safe (h5py serialises them)."""

    path: Path
    layout: Layout[Any]

    @cached_property
    def _file(self) -> h5py.File:
        file = h5py.File(self.path, "r")
        item_name = self.layout.type.__name__
        if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
            raise OSError(f"not a {FORMAT} of version {VERSION}")
        if file.attrs["item"] != item_name:
            raise OSError(f"holds {file.attrs['item']}, not {item_name}")
        return file

    def _read(self, name: str, rows: slice) -> npt.NDArray[Any]:
        try:
            array: npt.NDArray[Any] = self._file[name][rows]
        except (OSError, KeyError, RuntimeError) as error:
            raise StoreError(
                f"{self.path}: the shard is damaged ({error}); delete it and run again: only its "
                "items are computed again"
            ) from error
        return array

    @cached_property
    def keys(self) -> list[Key]:
        """The key of each item."""
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

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        file = self.__dict__.pop("_file", None)
        if file is not None:
            file.close()
