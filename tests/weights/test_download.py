"""Downloads, and downloads that are broken off."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sfm_match import weights
from sfm_match.weights import Checkpoint, WeightsError
from tests.weights.server import PAYLOAD, SHA256, Server, find, put, register


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


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
    monkeypatch.setenv(weights.ENV_FOLDERS, str(tmp_path / "mine"))
    with pytest.raises(WeightsError) as error:
        find(weights_dir=tmp_path / "given")
    message = str(error.value)
    for part in ("net-8", url, "0.4 MB", weights.ENV_FOLDERS):
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
