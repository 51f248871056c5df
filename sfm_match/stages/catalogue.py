"""Lists every component: its options, its licence, its weights."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from sfm_match.spec import KINDS, config_dict, load_plugin, plugin_names
from sfm_match.weights import CHECKPOINTS


def describe_components() -> dict[str, Any]:
    """Return every plugin and every registered checkpoint as JSON values."""
    components = {
        kind: {name: _describe(kind, name) for name in plugin_names(kind)} for kind in KINDS
    }
    weights = {name: dataclasses.asdict(checkpoint) for name, checkpoint in CHECKPOINTS.items()}
    return {**components, "weights": weights}


def _describe(kind: str, name: str) -> dict[str, Any]:
    module = load_plugin(kind, name)
    return {
        "summary": (inspect.getdoc(module) or "").partition("\n")[0],
        "licence": module.LICENCE,
        "version": module.VERSION,
        "options": config_dict(module.Config()),
    }


def format_components(found: dict[str, Any]) -> str:
    """Return the list as text."""
    lines = []
    for kind in KINDS:
        lines.append(f"{kind}:" if found[kind] else f"{kind}: none")
        for name, component in found[kind].items():
            lines.append(f"  {name}  {component['summary']}  [{component['licence']}]")
            lines += [f"    {key} = {value}" for key, value in component["options"].items()]
    lines.append("weights:")
    for name, checkpoint in found["weights"].items():
        use = "" if checkpoint["commercial"] else ", not for commercial use"
        size = CHECKPOINTS[name].size_text
        lines.append(f"  {name}  {checkpoint['licence']}{use}, {size}")
    return "\n".join(lines)
