"""The models of an output folder: written as a whole, and used again where they are whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pycolmap

from sfm_match.io.files import write_text
from sfm_match.io.model_binary import incomplete_file

MODELS = "models"
POLISHED = "polished"
_SHOWN = "model"
_INFO_FILE = "sfm_match.json"


@dataclass(frozen=True)
class ModelSummary:
    """One reconstructed model.

    Attributes:
        images: registered images.
        points: 3D points.
        observations: of all points.
        track_length: mean number of images that see a point.
        reprojection_error: mean, in pixels.
    """

    images: int
    points: int
    observations: int
    track_length: float
    reprojection_error: float

    @classmethod
    def of(cls, model: pycolmap.Reconstruction) -> ModelSummary:
        """Return the summary of a model, with the errors that are noted at its points."""
        return cls(
            images=model.num_reg_images(),
            points=model.num_points3D(),
            observations=model.compute_num_observations(),
            track_length=model.compute_mean_track_length(),
            reprojection_error=model.compute_mean_reprojection_error(),
        )


def write_models(
    folder: Path,
    models: Sequence[pycolmap.Reconstruction],
    made_from: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write models as `folder/0`, `folder/1`, ..., each with what they were all made from.

    Args:
        folder: is made.
        models: in the order of their numbers.
        made_from: the fingerprint of what they were made from.
        more: what else is noted of them (see `whole_models`).

    Raises:
        OSError: they cannot be written.
    """
    folders = [folder / str(number) for number in range(len(models))]
    for path, model in zip(folders, models, strict=True):
        path.mkdir(parents=True)
        model.write(path)
        if incomplete_file(path) is not None:  # pycolmap does not say so
            raise OSError("the disk is full, or a limit is reached")
    info = {
        **(more or {}),
        "fingerprint": made_from,
        "models": [asdict(ModelSummary.of(model)) for model in models],
        "files": [_sizes(path) for path in folders],
    }
    for path in folders:
        write_text(path / _INFO_FILE, json.dumps(info, indent=1))


def whole_models(folder: Path, made_from: str) -> dict[str, Any] | None:
    """Return what is noted of the models of a folder, if there are some and they are whole.

    Args:
        folder: as `write_models` wrote it.
        made_from: what they must have been made from.
    """
    info = _info(folder / "0")
    if info is None or info.get("fingerprint") != made_from:
        return None
    folders = [folder / str(number) for number in range(len(info["models"]))]
    return info if [_sizes(path) for path in folders] == info["files"] else None


def summaries(info: Mapping[str, Any]) -> list[ModelSummary]:
    """Return the summaries of models from what is noted of them."""
    return [ModelSummary(**summary) for summary in info["models"]]


def replace_models(out: Path, partial: Path, name: str) -> None:
    """Put the models of `partial/name` in place of older ones, and show the first as `model/`.

    `model/` disappears first and comes last, and what was made from older ones with it. Folders are
    renamed as a whole: a kill leaves none with some of its files.

    Args:
        out: the output folder.
        partial: a folder of the same disk, for models on their way.
        name: `MODELS` or `POLISHED`; there may be none, then older ones are removed only.
    """
    old = partial / "old"
    old.mkdir()
    for stale in (_SHOWN, POLISHED) if name == POLISHED else (_SHOWN, POLISHED, MODELS):
        if (out / stale).exists():
            (out / stale).rename(old / stale)
    if (partial / name).exists():
        shutil.copytree(partial / name / "0", partial / _SHOWN)
        (partial / name).rename(out / name)
        (partial / _SHOWN).rename(out / _SHOWN)


def show_first(out: Path, partial: Path, name: str) -> None:
    """Make `model/` the first of the models `name`, which are there.

    Args:
        out: the output folder.
        partial: a folder of the same disk, which is made and removed.
        name: `MODELS` or `POLISHED`.
    """
    partial.mkdir()
    try:
        shutil.copytree(out / name / "0", partial / _SHOWN)
        if (out / _SHOWN).exists():
            (out / _SHOWN).rename(partial / "old")
        (partial / _SHOWN).rename(out / _SHOWN)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def shown(out: Path) -> str:
    """Return which models `model/` is the first of, `MODELS` or `POLISHED`; "" for none."""
    info, sizes = _info(out / _SHOWN), _sizes(out / _SHOWN)
    for name in (MODELS, POLISHED) if info is not None else ():
        if info == _info(out / name / "0") and sizes == _sizes(out / name / "0"):
            return name
    return ""


def _info(folder: Path) -> dict[str, Any] | None:
    try:
        info = json.loads((folder / _INFO_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) and "models" in info and "files" in info else None


def _sizes(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes of a model's files."""
    files = sorted(folder.glob("*.bin"))
    return {path.name: path.stat().st_size for path in files}
