from __future__ import annotations

import signal
import socket
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.report.made import make_out
from tests.scenes import call, start


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_out(tmp_path_factory.mktemp("view"), ["0.jpg", "<b>.jpg", "a/1.jpg"])


def test_the_viewer_serves_on_the_loopback_address_until_ctrl_c(out: Path) -> None:
    pytest.importorskip("viser")
    port = free_port()
    process = start("view", out, "--truth", out.parent / "truth", "--port", str(port))
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any(f"http://localhost:{port}" in line for line in lines)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as page:
            assert page.status == 200
            assert "text/html" in page.headers["Content-Type"]
        listening = psutil.Process(process.pid).net_connections()
        addresses = {c.laddr.ip for c in listening if c.status == psutil.CONN_LISTEN}
        assert addresses == {"127.0.0.1"}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_missing_viser_is_told_with_the_command_that_installs_it(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    outcome = call("view", out)
    assert outcome.code == 1
    assert "pip install 'sfm-match[viewer]'" in outcome.stderr


def test_a_port_that_is_taken_is_an_error(out: Path) -> None:
    pytest.importorskip("viser")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = call("view", out, "--port", str(port))
    assert outcome.code == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in outcome.stderr


def test_without_a_model_there_is_nothing_to_view(out: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text((out / "results.json").read_text())
    outcome = call("view", tmp_path)
    assert outcome.code == 1
    assert "has no model to view" in outcome.stderr
