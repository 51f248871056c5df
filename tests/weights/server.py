"""A server of one checkpoint, with the failures of servers and networks, and its registration."""

from __future__ import annotations

import hashlib
import http.server
import re
import time
from pathlib import Path

import numpy as np
import pytest

from sfm_match import weights
from sfm_match.weights import Checkpoint

PAYLOAD = np.random.default_rng(0).integers(0, 256, 400_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves one payload, in the ways in which servers and networks fail."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.payload = PAYLOAD
        self.ranges = True
        self.cuts: list[int] = []  # of each coming request: the bytes sent before it is cut
        self.statuses: list[int] = []  # of each coming request: an error to answer with
        self.pause = 0.0  # seconds after every 20,000 bytes
        self.starts: list[int] = []  # of each request: the offset it asked for
        self.sent = 0  # bytes of payload, of all requests

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/net.pt"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        server.starts.append(int(asked[1]) if asked else 0)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start = int(asked[1]) if asked and server.ranges else 0
        if start and start >= len(server.payload):
            self.send_error(416)
            return
        body = server.payload[start:]
        self.send_response(206 if start else 200)
        if start:
            end = len(server.payload)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body = body[: server.cuts.pop(0)] if server.cuts else body
        for i in range(0, len(body), 20_000):
            try:
                self.wfile.write(body[i : i + 20_000])
            except ConnectionError:  # the client was killed
                return
            server.sent += len(body[i : i + 20_000])
            time.sleep(server.pause)

    def log_message(self, format: str, *args: object) -> None:
        pass


def register(url: str, monkeypatch: pytest.MonkeyPatch, *, commercial: bool = True) -> Checkpoint:
    checkpoint = Checkpoint(
        name="net-8",
        url=url,
        sha256=SHA256,
        size=len(PAYLOAD),
        licence="MIT" if commercial else "CC-BY-NC-4.0",
        commercial=commercial,
        paper="Nobody: Nothing, 2020",
        filename="net.pt",
    )
    monkeypatch.setattr(weights, "CHECKPOINTS", {"net-8": checkpoint})
    return checkpoint


def put(folder: Path, content: bytes = PAYLOAD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "net.pt"
    path.write_bytes(content)
    return path


def find(**options: Path | bool | None) -> Path:
    return weights.find("net-8", progress=False, **options)  # type: ignore[arg-type]
