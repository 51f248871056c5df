"""Imports point downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sfm_match

ROOT = Path(sfm_match.__file__).parent
BASE = {"types", "spec", "options", "weights", "logs"}
SEES = {
    "types": set(),
    "checkpoints": set(),
    "downloads": {"checkpoints"},
    "weights": {"checkpoints", "downloads"},
    "logs": set(),
    "allocator": set(),
    "spec": {"weights"},
    "options": {"spec", "types"},
    "geometry": BASE,
    "synthetic": BASE,
    "io": BASE,
    "models": BASE | {"geometry", "synthetic"},
    "extractors": BASE | {"geometry", "synthetic", "models"},
    "matchers": BASE | {"geometry", "synthetic", "models"},
    "refiners": BASE | {"geometry", "synthetic", "models"},
    "stages": BASE | {"allocator", "geometry", "synthetic", "models", "io"},
    "training": BASE | {"geometry", "synthetic", "models", "io"},
    "report": BASE | {"geometry", "io"},
    "benchmarks": BASE | {"geometry", "io", "stages"},
}
FILE_FORMATS = {"h5py", "sqlite3", "PIL"}


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the full names of everything that a module imports, in functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


MODULES = sorted(path for path in ROOT.rglob("*.py") if layer(path) in SEES)


def test_every_part_of_the_package_has_a_layer() -> None:
    tops = {layer(path) for path in ROOT.rglob("*.py")}
    assert tops - set(SEES) == {"__init__", "__main__", "cli"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    own = layer(path)
    seen = {name.split(".")[1] for name in imported(path) if name.startswith("sfm_match.")}
    assert seen - {own, "__version__"} <= SEES[own]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_io_knows_file_formats(path: Path) -> None:
    formats = {name.split(".")[0] for name in imported(path)} & FILE_FORMATS
    assert not formats or layer(path) == "io"


def test_components_open_no_files() -> None:
    for path in MODULES:
        if layer(path) in {"extractors", "matchers", "refiners", "models", "geometry"}:
            assert "pathlib.Path" not in imported(path), path


def test_extraction_needs_no_hdf5_in_a_worker_process() -> None:
    """Its import would take a tenth of the time until the worker's first image."""
    code = "import sys, sfm_match.stages.extract; sys.exit('h5py' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
