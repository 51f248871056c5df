"""A matcher of another distribution that needs no features and finds points: SIFT in disguise.

Each pair finds its points anew, a little elsewhere, as detector-free matchers do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match import spec as spec_module
from sfm_match.extractors import sift
from sfm_match.matchers import nearest
from sfm_match.spec import Spec
from sfm_match.types import ArrayF32, Correspondences, Features, View

VERSION = 1
NEEDS = frozenset({"image"})
GIVES = "correspondences"
CONCURRENT = True
LICENCE = "Apache-2.0"


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Config:
    """Options of this matcher.

    Attributes:
        noise: standard deviation of what is found, in pixels.
    """

    noise: Annotated[float, Field(ge=0)] = 0.2


class _Points:
    def __init__(self, config: Config) -> None:
        self._noise = config.noise
        self._sift = sift.build(sift.Config(max_keypoints=1000), "cpu", ())
        self._nearest = nearest.build(nearest.Config(ratio=0.8), "cpu", ())

    def encode(self, view: View) -> tuple[Features, Any]:
        assert view.image is not None
        assert view.features is None
        found = self._sift(view.image)
        return found, self._nearest.encode(View(None, found))

    def match(self, pairs: Sequence[tuple[Any, Any]]) -> list[Correspondences]:
        return [self._match(a, b) for a, b in pairs]

    def _match(self, a: tuple[Features, Any], b: tuple[Features, Any]) -> Correspondences:
        (found,) = self._nearest.match([(a[1], b[1])])
        ends = [side[0].keypoints[rows] for side, rows in zip((a, b), found.indices.T, strict=True)]
        content = b"".join(points.tobytes() for points in ends)
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(content).digest()[:4], "big"))
        moved: list[ArrayF32] = [
            points + rng.normal(size=points.shape).astype(np.float32) * np.float32(self._noise)
            for points in ends
        ]
        return Correspondences(moved[0], moved[1], found.scores)


def build(config: Config, device: str, inputs: tuple[Spec, ...]) -> _Points:
    """Return the matcher."""
    return _Points(config)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register this matcher as `points` in this process."""
    point = EntryPoint("points", "tests.plugin_matcher", "sfm_match.matchers")
    monkeypatch.setattr(spec_module, "entry_points", lambda group: [point] * (group == point.group))


def install(folder: Path) -> str:
    """Register it as an installed distribution does, and return PYTHONPATH for other processes."""
    metadata = folder / "points-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: points\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[sfm_match.matchers]\npoints = tests.plugin_matcher\n"
    )
    return f"{folder}:{Path(__file__).parents[1]}"
