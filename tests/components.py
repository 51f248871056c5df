"""All components that there are, each built once, or skipped where its checkpoint is missing."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sfm_match import weights
from sfm_match.spec import KINDS, ConfigError, Spec, load_plugin, plugin_names
from sfm_match.types import Extractor

EXTRACTORS = plugin_names("extractors")
SPARSE_MATCHERS = [
    name
    for name in plugin_names("matchers")
    if getattr(load_plugin("matchers", name), "GIVES", "matches") == "matches"
]
PLUGINS = [(kind, name) for kind in KINDS for name in plugin_names(kind)]


def required(kind: str, name: str) -> dict[str, Any]:
    """Return the options that a component cannot be without, or would take too long without."""
    if (kind, name) == ("extractors", "matchnet"):  # takes a millisecond for each keypoint
        return {"detector": {"name": "sift", "max_keypoints": 200}}
    return {}


def source(kind: str, name: str) -> Spec:
    """Return an extractor whose features a component takes."""
    for extractor in ("sift", *EXTRACTORS):
        found = Spec.parse("extractors", extractor, required("extractors", extractor))
        try:
            Spec.parse(kind, name, required(kind, name), (found,))
        except ConfigError:
            continue
        return found
    raise AssertionError(f"{name} takes the features of none of {EXTRACTORS}")


def parse(kind: str, name: str, inputs: tuple[Spec, ...] = (), **options: Any) -> Spec:
    """Return a spec; skip where its checkpoint is not on this machine."""
    found = Spec.parse(kind, name, required(kind, name) | options, inputs)
    if found.config.get("weights"):
        checkpoint(found.config["weights"])
    return found


def checkpoint(name: str) -> Path:
    """Return the file of a checkpoint; skip where it is not on this machine."""
    try:
        return weights.find(name, download=False)
    except weights.WeightsError:
        pytest.skip(f"the checkpoint {name} is not on this machine")


@cache
def build_default(name: str) -> Extractor:
    built: Extractor = parse("extractors", name).build()
    return built


def options_of(kind: str, name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(load_plugin(kind, name).Config)}
