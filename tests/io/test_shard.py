"""Damage of a shard is found, whatever its kind."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from sfm_match.io.columns import LAYOUTS
from sfm_match.io.shard import DamagedShardError, Shard, StoreError
from sfm_match.io.store import Store
from sfm_match.types import Features, Matches
from tests.io.test_store import DIGEST, some_features


def shard_of(folder: Path) -> Path:
    (path,) = folder.glob("*.h5")
    return path


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    with Store(tmp_path, Features).writer() as writer:
        for i in range(3):
            writer.add(f"{i}", DIGEST, some_features(4000, value=float(rng.random())))
    return tmp_path


def test_a_truncated_shard_is_named(filled: Path) -> None:
    path = shard_of(filled)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match=path.name):
        Store(filled, Features)


def test_a_flipped_bit_is_an_error_and_not_a_wrong_keypoint(filled: Path) -> None:
    path = shard_of(filled)
    content = bytearray(path.read_bytes())
    at = content.find(np.ones(64, np.float16).tobytes())
    assert at > 0
    content[at + 5] ^= 1
    path.write_bytes(content)
    store = Store(filled, Features)
    with pytest.raises(StoreError, match=path.name):
        list(store.items(store.entries()))


def test_every_chunk_that_became_zeros_is_noticed(filled: Path) -> None:
    path = shard_of(filled)
    content = path.read_bytes()
    with h5py.File(path) as file:
        columns = [file[f"columns/{name}"].id for name in file["columns"]]
        chunks = [c.get_chunk_info(i) for c in columns for i in range(c.get_num_chunks())]
    assert len(chunks) >= 4
    for chunk in chunks:
        hole = slice(chunk.byte_offset, chunk.byte_offset + chunk.size)
        path.write_bytes(content[: hole.start] + bytes(chunk.size) + content[hole.stop :])
        with pytest.raises(DamagedShardError):
            Shard(path, LAYOUTS[Features]).check()


def test_a_shard_of_another_type_is_refused(filled: Path) -> None:
    with pytest.raises(StoreError, match="holds Features, not Matches"):
        Store(filled, Matches)
