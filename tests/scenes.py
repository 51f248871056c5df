"""A small scene of photographs, and whole runs on it: in this process, or in one of their own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import psutil
import pycolmap

from sfm_match.cli import main
from sfm_match.io.columns import LAYOUTS
from sfm_match.io.shard import Shard
from sfm_match.io.store import Entry, Store
from sfm_match.types import Correspondences, Features, Matches, TwoView

GALLERY = Path(__file__).parents[1] / "datasets" / "gallery"
NAMES = tuple(f"{i:02}.jpg" for i in range(6))
NUM_PAIRS = 15
SIZE = (320, 240)
ITEM_TYPES: dict[str, type] = {
    "features": Features,
    "correspondences": Correspondences,
    "matches": Matches,
    "two_views": TwoView,
}


def make_images(
    folder: Path, names: Sequence[str] = NAMES, size: tuple[int, int] = SIZE, source: Path = GALLERY
) -> Path:
    """Write photographs of the gallery, reduced to a width and height, below `folder/images`."""
    images = folder / "images"
    images.mkdir(parents=True)
    for name in names:
        pixels = cv2.imread(str(source / "images" / name))
        assert pixels is not None
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(images / name), small, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return images


def make_truth(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """Write the true poses of some photographs as a COLMAP model `folder/truth`."""
    everything = pycolmap.Reconstruction(GALLERY / "gt")
    chosen = pycolmap.Reconstruction()
    chosen.add_camera_with_trivial_rig(everything.cameras[1])
    for name in names:
        image = everything.find_image_with_name(name)
        assert image is not None
        bare = pycolmap.Image(name=name, camera_id=1, image_id=image.image_id)
        chosen.add_image_with_trivial_frame(bare, image.cam_from_world())
    truth = folder / "truth"
    truth.mkdir(parents=True)
    chosen.write_text(truth)
    return truth


def truncate(image: Path) -> None:
    """Cut off the second half of a file: its header can be read, its pixels cannot."""
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def call(*arguments: str | Path) -> Outcome:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["sfm-match", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def start(*arguments: str | Path, module: str = "sfm_match") -> subprocess.Popen[str]:
    """Start a command as a process with a session of its own, as a shell with job control does."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 120) -> Outcome:
    """Wait for a process; after some time it is killed, with all of its group."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Outcome(process.returncode, out, err)


def run_module(module: str, *arguments: str | Path | int, seconds: float) -> int:
    """Run a module of the tests, such as `kill_import`, to its end; return the number it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.{module}", *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def living(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def wait_for_end(session: int, seconds: float) -> list[int]:
    """Wait for all processes of a session to end; return those that have not."""
    limit = time.monotonic() + seconds
    while (left := living(session)) and time.monotonic() < limit:
        time.sleep(0.02)
    return left


def results(out: Path) -> dict[str, Any]:
    """Return the content of an output folder's `results.json`."""
    content: dict[str, Any] = json.loads((out / "results.json").read_text())
    return content


def work_done(out: Path) -> dict[str, Any]:
    """Return what each stage of the last run did.

    The stages extract, match and verify give (computed, reused); import and map give whether they
    did anything.
    """
    stages = results(out)["stages"]
    counts = {
        name: (stages[name]["computed"], stages[name]["reused"])
        for name in ("extract", "match", "verify")
    }
    return {**counts, **{name: not stages[name]["reused"] for name in ("import", "map")}}


def stores(out: Path) -> dict[str, Store[Any]]:
    """Open every store of an output folder, by its path below it."""
    return {
        f"{kind}/{folder.name}": Store(folder, item_type)
        for kind, item_type in ITEM_TYPES.items()
        if (out / kind).is_dir()
        for folder in sorted((out / kind).iterdir())
    }


def read_everything(out: Path) -> dict[tuple[str, Entry], bytes]:
    """Read every item of every store: its content as bytes, by store, key and digest."""
    return {
        (name, entry): item_bytes(store.read(*entry))
        for name, store in stores(out).items()
        for entry in all_entries(store)
    }


def all_entries(store: Store[Any]) -> set[Entry]:
    """Return the entries of all shards of a store, older ones of the same key too."""
    layout = LAYOUTS[ITEM_TYPES[store.folder.parent.name]]
    shards = [Shard(path, layout) for path in store.folder.glob("*.h5")]
    return {entry for shard in shards for entry in zip(shard.keys, shard.digests, strict=True)}


def item_bytes(item: Any) -> bytes:
    """Return the content of an item of a store."""
    fields = ((name, getattr(item, name)) for name in type(item).__slots__)
    return b"".join(
        name.encode() + (value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
        for name, value in fields
    )


def database_rows(path: Path) -> dict[str, list[str]]:
    """Return the rows of each table of an intact database, sorted."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {
            table: sorted(map(repr, connection.execute(f"SELECT * FROM {table}").fetchall()))
            for (table,) in tables.fetchall()
        }
    finally:
        connection.close()


def model_content(path: Path) -> dict[str, Any]:
    """Return the poses, cameras and points of a model, exactly."""
    model = pycolmap.Reconstruction(path)
    return {
        "poses": {
            image.name: image.cam_from_world().matrix().tobytes()
            for image in model.images.values()
            if image.has_pose
        },
        "cameras": {i: (c.model.name, list(c.params)) for i, c in model.cameras.items()},
        "points": sorted(point.xyz.tobytes() for point in model.points3D.values()),
    }
