"""Checkpoints: the search, the verification, the licence, and downloads that are broken off."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sfm_match import weights
from sfm_match.weights import Checkpoint, WeightsError

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


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights or proxies; return the folder of its cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv(weights.ENV_FOLDER, raising=False)
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


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# --- downloads ---


@pytest.mark.usefixtures("checkpoint")
def test_a_download_lands_in_the_cache_and_happens_once(server: Server, home: Path) -> None:
    assert find() == home / "net.pt"
    assert (home / "net.pt").read_bytes() == PAYLOAD
    assert not (home / "net.pt.part").exists()
    assert find() == home / "net.pt"
    assert server.starts == [0]


@pytest.mark.usefixtures("checkpoint")
def test_the_file_is_on_the_disk_before_it_has_its_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_when_synced: list[bool] = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: named_when_synced.append((home / "net.pt").exists())
    )
    find()
    assert named_when_synced == [False]


@pytest.mark.usefixtures("checkpoint")
def test_progress_goes_to_stderr_only_where_wanted(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find()
    assert capsys.readouterr() == ("", "")
    (home / "net.pt").unlink()
    weights.find("net-8")
    out, err = capsys.readouterr()
    assert out == ""
    assert "net.pt: 100%" in err


@pytest.mark.usefixtures("checkpoint")
def test_a_cut_connection_is_resumed_where_it_broke(server: Server, home: Path) -> None:
    server.cuts = [150_000, 100_000]
    assert find().read_bytes() == PAYLOAD
    assert server.starts == [0, 150_000, 250_000]
    assert server.sent == len(PAYLOAD)


@pytest.mark.usefixtures("checkpoint")
def test_what_a_failed_call_got_serves_the_next_call(server: Server, home: Path) -> None:
    server.cuts = [100_000] * weights.NUM_ATTEMPTS
    with pytest.raises(WeightsError, match="ended after 300000 of 400000 bytes"):
        find()
    assert (home / "net.pt.part").read_bytes() == PAYLOAD[:300_000]
    assert not (home / "net.pt").exists()
    assert find().read_bytes() == PAYLOAD
    assert server.sent == len(PAYLOAD)


@pytest.mark.usefixtures("checkpoint")
def test_a_server_without_ranges_sends_all_of_it_again(server: Server) -> None:
    server.ranges = False
    server.cuts = [150_000]
    assert find().read_bytes() == PAYLOAD
    assert server.starts == [0, 150_000]
    assert server.sent == 150_000 + len(PAYLOAD)


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize(
    "stale", [b"x" * 1000, b"x" * len(PAYLOAD), b"x" * (len(PAYLOAD) + 1)], ids=len
)
def test_a_part_of_another_file_is_thrown_away(server: Server, home: Path, stale: bytes) -> None:
    put(home, stale).rename(home / "net.pt.part")
    assert find().read_bytes() == PAYLOAD
    assert server.starts == ([1000, 0] if len(stale) == 1000 else [0])


@pytest.mark.usefixtures("checkpoint")
def test_a_complete_part_needs_no_server(server: Server, home: Path) -> None:
    put(home).rename(home / "net.pt.part")
    assert find().read_bytes() == PAYLOAD
    assert server.starts == []


@pytest.mark.usefixtures("checkpoint")
@pytest.mark.parametrize("size", [len(PAYLOAD), 100 * len(PAYLOAD)])
def test_another_file_at_the_url_is_refused_and_not_kept(
    server: Server, home: Path, size: int
) -> None:
    server.payload = b"x" * size
    with pytest.raises(WeightsError, match=f"expected SHA-256 {SHA256}, got [0-9a-f]{{64}}") as e:
        find()
    assert server.url in str(e.value)
    assert list(home.glob("net.pt")) == list(home.glob("*.part")) == []
    assert server.starts == [0]
    assert server.sent < 50 * len(PAYLOAD)  # read no further than needed, but sockets have buffers


@pytest.mark.usefixtures("checkpoint")
def test_a_shorter_file_at_the_url_is_refused(server: Server, home: Path) -> None:
    server.payload = b"<html>please log in</html>"
    with pytest.raises(WeightsError, match="ended after 26 of 400000 bytes"):
        find()
    assert not (home / "net.pt").exists()


@pytest.mark.usefixtures("checkpoint")
def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.statuses = [503, 429]
    assert find().read_bytes() == PAYLOAD
    assert server.starts == [0, 0, 0]


@pytest.mark.usefixtures("checkpoint")
def test_a_missing_file_is_not_asked_for_again(server: Server) -> None:
    server.statuses = [404]
    with pytest.raises(WeightsError, match="HTTP Error 404") as error:
        find()
    assert server.url in str(error.value)
    assert server.starts == [0]


def test_offline_says_what_to_put_where(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{closed_port()}/net.pt"
    register(url, monkeypatch)
    monkeypatch.setenv(weights.ENV_FOLDER, str(tmp_path / "mine"))
    with pytest.raises(WeightsError) as error:
        find(weights_dir=tmp_path / "given")
    message = str(error.value)
    for part in ("net-8", url, "0.4 MB", weights.ENV_FOLDER):
        assert part in message
    for folder in (tmp_path / "given", tmp_path / "mine", home):
        assert str(folder / "net.pt") in message


@pytest.mark.usefixtures("checkpoint")
def test_no_download_where_none_is_wanted(server: Server, home: Path) -> None:
    with pytest.raises(WeightsError, match="net-8 is missing: not found") as error:
        find(download=False)
    assert str(home / "net.pt") in str(error.value)
    assert server.starts == []
    assert not home.exists()


@pytest.mark.usefixtures("checkpoint")
def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(WeightsError, match=re.escape(str(tmp_path / "cache"))):
        find()


@pytest.mark.usefixtures("checkpoint")
def test_many_callers_at_once_download_once(server: Server) -> None:
    server.pause = 0.005
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: find(), range(4)))
    assert {path.read_bytes() for path in paths} == {PAYLOAD}
    assert server.starts == [0]
    assert server.sent == len(PAYLOAD)


CHILD = """
import sys
from sfm_match import weights
weights.CHECKPOINTS = {"net-8": weights.Checkpoint(
    "net-8", sys.argv[1], sys.argv[2], int(sys.argv[3]), "MIT", True, "", "net.pt")}
print(weights.find("net-8", progress=False))
"""


def start_child(checkpoint: Checkpoint) -> subprocess.Popen[str]:
    arguments = [checkpoint.url, checkpoint.sha256, str(checkpoint.size)]
    command = [sys.executable, "-c", CHILD, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def test_a_killed_process_is_resumed_by_the_next(
    server: Server, home: Path, checkpoint: Checkpoint
) -> None:
    server.pause = 0.05
    part = home / "net.pt.part"
    with start_child(checkpoint) as child:
        deadline = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size >= 100_000):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        child.kill()
    kept = part.stat().st_size
    assert 100_000 <= kept < len(PAYLOAD)
    assert not (home / "net.pt").exists()
    server.pause = 0.0
    assert find().read_bytes() == PAYLOAD
    assert server.starts == [0, kept]


def test_two_processes_at_once_download_once(server: Server, checkpoint: Checkpoint) -> None:
    server.pause = 0.02
    with start_child(checkpoint) as child0, start_child(checkpoint) as child1:
        paths = [child.communicate(timeout=20)[0].strip() for child in (child0, child1)]
    assert [Path(path).read_bytes() == PAYLOAD for path in paths] == [True, True]
    assert server.starts == [0]


# --- the search ---


@pytest.mark.usefixtures("checkpoint")
def test_the_nearest_folder_wins(
    server: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sfm_match"
    monkeypatch.setattr("importlib.resources.files", lambda name: tmp_path / name)
    monkeypatch.setenv(weights.ENV_FOLDER, str(tmp_path / "env"))
    order = [tmp_path / "given", tmp_path / "env", package / "weights_data", home]
    for folder in order:
        put(folder)
    for folder in order:
        assert find(weights_dir=tmp_path / "given") == folder / "net.pt"
        (folder / "net.pt").unlink()
    assert server.starts == []


def test_the_cache_without_the_environment_is_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/someone"))
    monkeypatch.setattr(sys, "platform", "linux")
    for unusable in ("", "relative/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert weights.cache_folder() == Path("/home/someone/.cache/sfm_match/weights")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("LOCALAPPDATA")
    assert weights.cache_folder() == Path("/home/someone/AppData/Local/sfm_match/weights")


@pytest.mark.usefixtures("checkpoint")
def test_a_file_found_with_a_wrong_digest_is_refused(server: Server, tmp_path: Path) -> None:
    path = put(tmp_path / "given", b"x" * 10)
    got = hashlib.sha256(b"x" * 10).hexdigest()
    with pytest.raises(WeightsError) as error:
        find(weights_dir=tmp_path / "given")
    for part in (str(path), SHA256, got, "(10 bytes)", "Delete the file", server.url):
        assert part in str(error.value)
    assert path.read_bytes() == b"x" * 10
    assert server.starts == []


@pytest.mark.usefixtures("checkpoint")
def test_a_file_is_hashed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    sha256 = weights._sha256

    def counted(path: Path) -> str:
        hashed.append(path)
        return sha256(path)

    monkeypatch.setattr(weights, "_sha256", counted)
    path = put(tmp_path / "given")
    for _ in range(3):
        assert find(weights_dir=tmp_path / "given") == path
    assert hashed == [path]
    path.write_bytes(b"\0" + PAYLOAD[1:])
    os.utime(path, ns=(1, 1))
    with pytest.raises(WeightsError, match="is not the checkpoint net-8"):
        find(weights_dir=tmp_path / "given")


# --- paths, names, licences ---


def test_a_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, b"my own weights")
    assert weights.find(str(path)) == path
    assert weights.find(str(path), permissive_only=True) == path
    assert weights.digest(str(path)) == hashlib.sha256(b"my own weights").hexdigest()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert weights.find("~/net.pt") == path


def test_the_digest_of_a_path_follows_its_content(tmp_path: Path) -> None:
    digests = set()
    for content in (b"one", b"three"):
        digests.add(weights.digest(str(put(tmp_path, content))))
    assert digests == {hashlib.sha256(c).hexdigest() for c in (b"one", b"three")}


def test_the_digest_of_a_name_needs_no_file(home: Path) -> None:
    expected = "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2"
    assert weights.digest("aliked-n16") == expected
    assert not home.exists()


def test_a_stray_file_does_not_take_the_place_of_a_name(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net-8").write_bytes(b"stray")
    assert find().read_bytes() == PAYLOAD
    assert weights.digest("net-8") == checkpoint.sha256
    assert weights.find("./net-8") == Path("net-8")
    assert weights.digest("./net-8") == hashlib.sha256(b"stray").hexdigest()


@pytest.mark.parametrize("call", [weights.find, weights.digest])
@pytest.mark.parametrize("name", ["r2d2-wasf-n61", "R2D2_WASF_N16.pt", ".", "", "zzz"])
def test_an_unknown_name_lists_the_names(
    call: object, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert callable(call)
    with pytest.raises(LookupError) as error:
        call(name)
    message = str(error.value)
    assert message.startswith(f"{name!r} is neither the name of a checkpoint nor a file")
    assert all(known in message for known in weights.CHECKPOINTS)
    assert ("did you mean 'r2d2-wasf-n16'" in message) == (name == "r2d2-wasf-n61")


def test_a_licence_that_forbids_commercial_use_is_refused_on_demand(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(server.url, monkeypatch, commercial=False)
    refusal = "net-8 is licensed CC-BY-NC-4.0, which forbids commercial use"
    with pytest.raises(WeightsError, match=refusal):
        find(permissive_only=True)
    assert server.starts == []
    path = put(tmp_path / "renamed")
    with pytest.raises(WeightsError, match=refusal):
        weights.find(str(path), permissive_only=True)
    assert weights.find(str(path)) == path
    assert find().read_bytes() == PAYLOAD


@pytest.mark.usefixtures("checkpoint")
def test_a_permissive_licence_is_allowed() -> None:
    assert find(permissive_only=True).read_bytes() == PAYLOAD


# --- the registry ---


def test_the_registry_is_sound() -> None:
    checkpoints = weights.CHECKPOINTS
    assert {
        "r2d2-wasf-n16",
        "r2d2-wasf-n8-big",
        "r2d2-faster-wasf-n16",
        "aliked-n16",
        "coarse-16",
    } <= set(checkpoints)
    for name, checkpoint in checkpoints.items():
        assert checkpoint.name == name
        assert re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)
        assert checkpoint.url.startswith("https://")
        assert checkpoint.commercial == ("-NC-" not in checkpoint.licence)
        assert checkpoint.size > 0
    for field in ("sha256", "url", "filename"):
        assert len({getattr(c, field) for c in checkpoints.values()}) == len(checkpoints)
    with pytest.raises(dataclasses.FrozenInstanceError):
        checkpoints["aliked-n16"].licence = "MIT"  # type: ignore[misc]


@pytest.mark.skipif(
    "SFM_MATCH_TEST_DATA" not in os.environ, reason="SFM_MATCH_TEST_DATA is not set"
)
@pytest.mark.parametrize("name", list(weights.CHECKPOINTS))
def test_the_registry_agrees_with_the_published_files(name: str) -> None:
    folder = Path(os.environ["SFM_MATCH_TEST_DATA"]) / "weights"
    checkpoint = weights.CHECKPOINTS[name]
    path = weights.find(name, weights_dir=folder, download=False)
    assert path == folder / checkpoint.filename
    assert path.stat().st_size == checkpoint.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checkpoint.sha256
