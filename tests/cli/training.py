"""Trainings through the command line, small ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PillowImage
from typer.testing import CliRunner

from sfm_match.cli import app
from sfm_match.types import Image


def write_pictures(folder: Path, make: Callable[[int], Image]) -> Path:
    """Write two pictures into a folder and return it."""
    for number in range(2):
        PillowImage.fromarray(make(number)).save(folder / f"{number}.png")
    return folder


def train(*arguments: Any, options: tuple[str, ...]) -> Any:
    """Run `sfm-match train` and return the JSON that it prints; an error is raised."""
    torch.set_num_threads(1)
    settings = [part for option in options for part in ("-o", option)]
    result = CliRunner().invoke(
        app, ["train", *map(str, arguments), *settings, "--json", "-q"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)
