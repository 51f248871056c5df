"""Bad and odd files in a folder of images: said, listed in the results, and the rest unharmed."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest

from tests.kill_at_steps import BASE
from tests.resume.runs import Reference
from tests.scenes import (
    NAMES,
    call,
    database_rows,
    make_images,
    model_content,
    results,
    truncate,
)

MEGAPIXEL = 10**6


def png_of_size(width: int, height: int) -> bytes:
    """Return the beginning of a PNG file: nothing follows its header but an empty chunk."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, b"IDAT")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def add_unusable(images: Path) -> dict[str, str]:
    """Add files that cannot be used; return what must be said of each."""
    shutil.copy(images / NAMES[0], images / "truncated.jpg")
    truncate(images / "truncated.jpg")
    (images / "zero.jpg").touch()
    (images / "text.png").write_text("not an image\n")
    (images / "huge.png").write_bytes(png_of_size(30_000, 20_000))
    (images / "loop.jpg").symlink_to("loop.jpg")
    (images / "dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(images / "pipe.jpg")
    return {
        "truncated.jpg": "the JPEG file is truncated",
        "zero.jpg": "the file is empty (0 bytes)",
        "text.png": "is not a JPEG, PNG, TIFF, BMP, PPM or WebP file (it starts with b'not an i')",
        "huge.png": "30000 x 20000 pixels is more than the 500 megapixels that are supported",
        "loop.jpg": "is a symbolic link to 'loop.jpg', which leads to no file",
        "dangling.jpg": "is a symbolic link to 'nowhere.jpg', which leads to no file",
        "pipe.jpg": "is not a regular file",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_files_that_cannot_be_used_are_left_out_and_change_nothing_else(
    finished: Reference, tmp_path: Path
) -> None:
    images, out = Path(shutil.copytree(finished.images, tmp_path / "images")), tmp_path / "out"
    expected = add_unusable(images)
    (images / "notes.txt").write_text("stray")
    (images / "Thumbs.db").write_bytes(b"stray")
    (images / ".hidden.jpg").write_text("hidden")
    (images / "again").symlink_to(".", target_is_directory=True)
    outcome = call("run", images, out, *BASE)
    assert outcome.code == 4
    assert outcome.stdout.startswith(f"{out / 'model'}: 6 of 13 images, ")
    lines = outcome.stderr.splitlines()
    assert lines[0] == "note: ignored, no image by its suffix: Thumbs.db, notes.txt"
    assert len(lines) == 1 + len(expected)
    failures = results(out)["failures"]
    assert failures.keys() == expected.keys()
    for name, reason in expected.items():
        assert failures[name].startswith(f"{images / name}: ")
        assert reason in failures[name]
        assert f"left out: {name}: {failures[name]}" in lines
    assert results(out)["ignored"] == ["Thumbs.db", "notes.txt"]
    assert model_content(out / "model") == finished.model
    rows = database_rows(out / "database.db")
    for table in ("images", "keypoints", "matches", "two_view_geometries"):
        assert rows[table] == finished.database[table]


def test_where_no_model_comes_out_what_was_left_out_is_told_too(tmp_path: Path) -> None:
    images = make_images(tmp_path, NAMES[:1])
    (images / "zero.jpg").touch()
    outcome = call("run", images, tmp_path / "out", *BASE)
    assert outcome.code == 3
    assert f"left out: zero.jpg: {images / 'zero.jpg'}: the file is empty" in outcome.stderr


def test_a_folder_of_nothing_but_bad_images_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").touch()
    outcome = call("run", tmp_path / "images", tmp_path / "out", *BASE)
    assert outcome.code == 1
    assert "no image" in outcome.stderr
    assert list(results(tmp_path / "out")["failures"]) == ["a.jpg"]


def test_images_without_keypoints_and_twice_the_same_file_are_noted(
    finished: Reference, tmp_path: Path
) -> None:
    images, out = Path(shutil.copytree(finished.images, tmp_path / "images")), tmp_path / "out"
    cv2.imwrite(str(images / "one.png"), np.zeros((1, 1, 3), np.uint8))
    cv2.imwrite(str(images / "black.png"), np.zeros((48, 64, 3), np.uint8))
    (images / "sub").mkdir()
    shutil.copy(images / NAMES[0], images / "sub" / "copy.jpg")
    notes = {
        "black.png": "has no keypoints, so nothing matches it",
        "one.png": "has no keypoints, so nothing matches it",
        "sub/copy.jpg": f"is the same file as {NAMES[0]}",
    }
    outcome = call("run", images, out, *BASE)
    assert outcome.code == 0
    assert outcome.stderr.splitlines() == [f"note: {name}: {said}" for name, said in notes.items()]
    assert results(out)["remarks"] == notes
    assert results(out)["failures"] == {}
    assert model_content(out / "model")["poses"].keys() == {*NAMES, "sub/copy.jpg"}
    # The notes stay for whoever goes on stage by stage, and go with the images.
    assert call("map", out, *BASE).stderr == outcome.stderr
    (images / "sub" / "copy.jpg").unlink()
    (images / "black.png").unlink()
    assert call("run", images, out, *BASE).stderr == f"note: one.png: {notes['one.png']}\n"


ODD_NAMES = ("with space.jpg", "ünï–画像.jpg", "100%.jpg", "-dash.JPG", "a/b.jpg", "a-b.Jpeg")


def test_odd_names_go_through_every_stage(finished: Reference, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    (images / "a").mkdir(parents=True)
    for name, odd in zip(NAMES, ODD_NAMES, strict=True):
        shutil.copy(finished.images / name, images / odd)
    pairs = tmp_path / "pairs list.txt"
    for command in (
        ("extract", images, out),
        ("pairs", out),
        ("match", out),
        ("verify", out),
        ("import", out),
        ("map", out),
    ):
        outcome = call(*command, *BASE)
        assert (outcome.code, outcome.stderr) == (0, "")
    assert model_content(out / "model")["poses"].keys() == set(ODD_NAMES)
    with pycolmap.Database.open(out / "database.db") as database:
        assert {image.name for image in database.read_all_images()} == set(ODD_NAMES)
    shutil.copy(out / "pairs.txt", pairs)
    outcome = call("run", images, out, *BASE, "--pairs", pairs)
    assert (outcome.code, outcome.stderr) == (0, "")
    stages = results(out)["stages"]
    assert stages["pairs"]["pairs"] == 15
    assert stages["map"]["reused"]


PEAK = """
import resource, sys
from tests.scenes import call
images, out = sys.argv[1:]
outcome = call("extract", images, out, "-q", "--threads", "1", "-o", "features.resize=640")
assert outcome.code == 0, outcome
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(images: Path, out: Path) -> int:
    """Return the peak memory of an extraction in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(images), str(out)],
        check=True,
        capture_output=True,
        text=True,
        timeout=400,
    )
    return int(done.stdout) * 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".jpg", []), (".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]), (".tif", [])],
)
def test_100_megapixels_take_three_times_their_pixels_at_most(
    tmp_path: Path, suffix: str, options: Any
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    for name, side in (("small", 640), ("large", 10_000)):
        (tmp_path / name).mkdir()
        pixels = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / name / f"a{suffix}"), pixels, options)
    small = peak_memory(tmp_path / "small", tmp_path / "out small")
    large = peak_memory(tmp_path / "large", tmp_path / "out large")
    print(f"{suffix}: {(large - small) / 1e6:.0f} MB more than for a small picture")
    assert large - small < 3 * (100 * MEGAPIXEL * 3)


NO_MEMORY = """
import resource, sys
from pathlib import Path
from sfm_match.io.images import ImageError, read_image
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20), -1))
for path in sys.argv[1:]:
    try:
        read_image(Path(path))
    except ImageError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit of a process's memory")
def test_an_image_that_does_not_fit_into_memory_is_not_called_damaged(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.jpg", "a.png")]
    for path in paths:
        cv2.imwrite(path, np.zeros((10_000, 10_000, 3), np.uint8))
    done = subprocess.run(
        [sys.executable, "-c", NO_MEMORY, *paths],
        check=True,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.stdout.splitlines() == [
        f"{path}: 10000 x 10000 pixels do not fit into memory" for path in paths
    ]
