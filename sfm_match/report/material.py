"""What a report is made from: the results, the database and the model of an output folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from sfm_match.io.match_graph import MatchGraph, read_match_graph
from sfm_match.io.model import read_model
from sfm_match.report.findings import Finding
from sfm_match.spec import ConfigError


@dataclass(frozen=True, eq=False)
class Material:
    """What a report is made from.

    Attributes:
        out: the output folder.
        results: the content of its `results.json`.
        recipe: the content of its `recipe.toml`.
        images: the folder of images.
        graph: the pairs of its database, None where there is none.
        model: None where there is none.
        truth: the true poses, None where they are not known.
        evaluation: the comparison of the model with the truth, as `results.json` has it, or None.
        findings: those of the doctor.
    """

    out: Path
    results: dict[str, Any]
    recipe: str
    images: Path
    graph: MatchGraph | None
    model: pycolmap.Reconstruction | None
    truth: pycolmap.Reconstruction | None
    evaluation: dict[str, Any] | None
    findings: tuple[Finding, ...]

    @property
    def database(self) -> Path:
        """The database of the output folder."""
        return self.out / "database.db"

    @property
    def names(self) -> list[str]:
        """The names of all images, also of those that were left out, sorted."""
        in_database = self.graph.names if self.graph else ()
        return sorted({*self.results["images"], *self.results["failures"], *in_database})


def gather(
    out: Path,
    *,
    images: Path | None = None,
    truth: Path | None = None,
    evaluation: dict[str, Any] | None = None,
    findings: Sequence[Finding] = (),
) -> Material:
    """Read what a report is made from.

    Args:
        out: the output folder of a run.
        images: the folder of images, where it is not where the run found it.
        truth: a COLMAP model with the true poses.
        evaluation: the comparison with it; by default the one in `results.json`.
        findings: those of the doctor.

    Raises:
        ConfigError: the folder is not the output folder of a run.
        DatabaseError: the database cannot be read.
        FileNotFoundError: the truth is no model.
        ModelError: the model or the truth cannot be read.
    """
    results = read_results(out)
    recipe = out / "recipe.toml"
    database, model = out / "database.db", out / "model"
    return Material(
        out=out,
        results=results,
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        images=images or Path(results["recipe"]["images"]["path"]),
        graph=read_match_graph(database) if database.is_file() else None,
        model=read_model(model) if model.is_dir() else None,
        truth=None if truth is None else read_model(truth),
        evaluation=evaluation or results.get("evaluation"),
        findings=tuple(findings),
    )


def truth_of(results: dict[str, Any]) -> Path | None:
    """Return the model that a run was compared with, if it is still there."""
    truth = Path(results.get("truth", ""))
    return truth if "truth" in results and truth.is_dir() else None


def read_results(out: Path) -> dict[str, Any]:
    """Return the content of an output folder's `results.json`.

    Raises:
        ConfigError: there is none, or it is not one of a run.
    """
    path = out / "results.json"
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = results["recipe"]["images"]["path"], results["stages"]
    except FileNotFoundError:
        raise ConfigError(
            f"{out}: is not the output folder of a run, it has no results.json; "
            f"sfm-match run PHOTOS {out} makes one"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: is not what a run writes: {error}") from None
    return results
