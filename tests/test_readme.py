"""The README's Python runs as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_python_example_reconstructs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    gallery = ROOT / "datasets" / "gallery"
    (tmp_path / "photos").mkdir()
    for name in sorted(path.name for path in (gallery / "images").iterdir())[:5]:
        shutil.copy(gallery / "images" / name, tmp_path / "photos")
    shutil.copytree(gallery / "gt", tmp_path / "truth")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    registered, points = re.match(r"(\d+) images, (\d+) points", capsys.readouterr().out).groups()  # type: ignore[union-attr]
    assert int(registered) == 5
    assert int(points) > 500
