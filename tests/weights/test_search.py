"""Checkpoints: the search, the verification, the licence, the registry."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import sys
from pathlib import Path

import pytest

from sfm_match import weights
from sfm_match.weights import Checkpoint, WeightsError
from tests.weights.server import PAYLOAD, SHA256, Server, find, put, register

# --- the search ---


@pytest.mark.usefixtures("checkpoint")
def test_the_nearest_folder_wins(
    server: Server, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sfm_match"
    monkeypatch.setattr("importlib.resources.files", lambda name: tmp_path / name)
    monkeypatch.setenv(weights.ENV_FOLDERS, str(tmp_path / "env"))
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


def test_the_environment_refuses_a_licence_for_the_whole_process(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(server.url, monkeypatch, commercial=False)
    path = put(tmp_path / "renamed")
    monkeypatch.setenv(weights.ENV_PERMISSIVE_ONLY, "1")
    for name in ("net-8", str(path)):
        for call in (weights.find, weights.digest):
            with pytest.raises(WeightsError, match="net-8 is licensed"):
                call(name)
    assert server.starts == []


def test_the_environment_may_name_several_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    monkeypatch.setenv(weights.ENV_FOLDERS, os.pathsep.join(map(str, folders)))
    assert weights.search_folders()[:2] == folders


def test_where_only_an_md5_is_published_it_is_what_a_file_is_known_by(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = register(server.url, monkeypatch)
    md5 = hashlib.md5(PAYLOAD).hexdigest()
    checkpoint = dataclasses.replace(checkpoint, sha256="", size=0, md5=md5)
    monkeypatch.setattr(weights, "CHECKPOINTS", {"net-8": checkpoint})
    assert weights.digest("net-8") == f"md5:{md5}"
    with pytest.raises(WeightsError, match=rf"Fetch {server.url} \(of unknown size\)"):
        find(download=False)
    server.cuts = [100_000]  # and goes on from there
    assert find().read_bytes() == PAYLOAD
    assert server.starts == [0, 100_000]
    put(tmp_path, b"something else")
    with pytest.raises(WeightsError, match=f"net-8: expected MD5 {md5} .* got md5:[0-9a-f]{{32}}"):
        find(weights_dir=tmp_path)


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
        if checkpoint.sha256:
            assert re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)
            assert checkpoint.size > 0
        else:
            assert re.fullmatch("[0-9a-f]{32}", checkpoint.md5)
        assert checkpoint.packaged or checkpoint.url.startswith("https://")
        assert checkpoint.commercial == ("-NC-" not in checkpoint.licence)
    for field in ("digest", "url", "filename"):
        values = [getattr(c, field) for c in checkpoints.values() if getattr(c, field)]
        assert len(set(values)) == len(values)
    with pytest.raises(dataclasses.FrozenInstanceError):
        checkpoints["aliked-n16"].licence = "MIT"  # type: ignore[misc]


@pytest.mark.skipif(
    "SFM_MATCH_TEST_DATA" not in os.environ, reason="SFM_MATCH_TEST_DATA is not set"
)
@pytest.mark.parametrize("name", [n for n, c in weights.CHECKPOINTS.items() if not c.packaged])
def test_the_registry_agrees_with_the_published_files(name: str) -> None:
    folder = Path(os.environ["SFM_MATCH_TEST_DATA"]) / "weights"
    checkpoint = weights.CHECKPOINTS[name]
    if not (folder / checkpoint.filename).is_file():
        pytest.skip(f"{folder} has no {checkpoint.filename}")
    path = weights.find(name, weights_dir=folder, download=False)
    assert path == folder / checkpoint.filename
    assert path.stat().st_size == checkpoint.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == checkpoint.sha256
