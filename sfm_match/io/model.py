"""COLMAP models: read with messages that say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pycolmap

from sfm_match.io.model_binary import incomplete_file

_PARTS = ("cameras", "images", "points3D")


class ModelError(ValueError):
    """A COLMAP model that cannot be read or used; the message names it and what is wrong."""


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """Read a binary or a text model, of any version of COLMAP; binary wins where there are both.

    Raises:
        FileNotFoundError: the folder or a part of the model in it is missing.
        ModelError: the model cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder with a COLMAP model")
    missing = {
        suffix: [p + suffix for p in _PARTS if not (folder / (p + suffix)).is_file()]
        for suffix in (".bin", ".txt")
    }
    if all(missing.values()):
        closest = min(missing.values(), key=len)
        raise FileNotFoundError(
            f"{folder} holds no COLMAP model: {', '.join(closest)} missing (a model is cameras, "
            f"images and points3D, all three .bin or all three .txt){_model_below(folder)}"
        )
    if missing[".bin"]:
        _check_image_lines(folder / "images.txt")
    elif (cut := incomplete_file(folder)) is not None:
        raise ModelError(
            f"{folder} cannot be read as a COLMAP model: {cut.name} is damaged or cut off"
        )
    try:
        model = pycolmap.Reconstruction(folder)
        model.reg_image_ids()  # whether the images of all frames are there
    # What pycolmap raises for damaged files, seen by damaging them.
    except (ValueError, IndexError, RuntimeError, MemoryError) as error:
        raise ModelError(f"{folder} cannot be read as a COLMAP model: {error}") from error
    return model


def _model_below(folder: Path) -> str:
    """Return the hint that a model is in the usual place below a folder, if it is."""
    for name in ("model", "sparse/0", "0"):
        if any((folder / name / f"images{suffix}").is_file() for suffix in (".bin", ".txt")):
            return f"; did you mean {folder / name}?"
    return ""


def _check_image_lines(path: Path) -> None:
    """Raise where lines of points are left out: COLMAP then silently drops every other image."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        is_points_line = False
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if is_points_line:
                if len(text.split()) % 3:
                    raise ModelError(
                        f"{path}, line {number}: expected the image points of the line before, as "
                        f"x, y and point id, or an empty line, got {text[:60]!r}"
                    )
                is_points_line = False
            elif text and not text.startswith("#"):
                is_points_line = True
