"""A machine without weights, and a server of one checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfm_match import weights
from sfm_match.weights import Checkpoint
from tests.weights.server import Server, register


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights or proxies; return the folder of its cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv(weights.ENV_FOLDERS, raising=False)
    monkeypatch.setattr(weights, "RETRY_SECONDS", 0.0)
    return tmp_path / "cache" / "sfm_match" / "weights"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def checkpoint(server: Server, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """The only checkpoint of the registry, published by the server."""
    return register(server.url, monkeypatch)
