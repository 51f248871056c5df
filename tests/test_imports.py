"""Importing the package: safe beside pycolmap, and quick."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("first", ["sfm_match", "sfm_match.io.database", "sfm_match.cli"])
def test_zlib_works_after_pycolmap(first: str) -> None:
    # pycolmap loaded before zlib corrupts the heap at the first compression.
    code = (
        f"import {first}, pycolmap, numpy, io; "
        "numpy.savez_compressed(io.BytesIO(), a=numpy.random.rand(100_000)); print('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr


def test_importing_the_package_imports_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, sfm_match; "
        "print([name for name in ('torch', 'pycolmap', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
