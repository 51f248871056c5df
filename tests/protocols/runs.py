"""Runs of benchmarks with few features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfm_match.benchmarks.run import run_benchmark
from sfm_match.stages.recipe import Recipe


def run(name: str, data: Path, out: Path, **arguments: Any) -> dict[str, Any]:
    """Run a benchmark with SIFT, or with the recipe that is given."""
    recipe = arguments.pop("recipe", None) or Recipe.load(
        "sift", "features.max_keypoints=700", images={"path": str(data)}
    )
    return run_benchmark(name, data, recipe, out, device="cpu", threads=1, **arguments)


def names_of(run_: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row["name0"], row["name1"]) for row in run_["pairs"]]
