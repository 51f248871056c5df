"""Files are written as a whole, or the error names them and the older one stays."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from sfm_match.io.files import FileError, write_bytes, write_text, writing
from sfm_match.io.shard import StoreError


def test_a_file_that_cannot_be_written_is_named_and_the_older_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match=f"^{path}: cannot be written: No space left on device"):
        write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_undecodable_bytes_of_names_are_kept(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", os.fsdecode(b"\xff.jpg"))
    assert (tmp_path / "a.txt").read_bytes() == b"\xff.jpg"


def test_an_error_that_names_its_file_passes(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^another file$"), writing(tmp_path / "a.txt"):
        raise StoreError("another file")


def test_of_a_folder_the_first_reason_is_given(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "x").symlink_to("nowhere")
    with (
        pytest.raises(FileError, match=r"cannot be written: .*No such file or directory"),
        writing(tmp_path / "to"),
    ):
        shutil.copytree(tmp_path / "from", tmp_path / "to")


def test_errors_of_a_library_count_where_they_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written: of the library"):  # noqa: SIM117
        with writing(tmp_path / "a", RuntimeError):
            raise RuntimeError("of the library")
    with pytest.raises(RuntimeError, match=r"^not named$"), writing(tmp_path / "a"):
        raise RuntimeError("not named")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nothing" / "report.html"
    with pytest.raises(FileError, match=f"there is no folder {path.parent}$"):
        write_text(path, "")
