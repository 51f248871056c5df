"""Lists every component: its options, its licence, its weights."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from sfm_match import weights
from sfm_match.spec import KINDS, ConfigError, config_dict, load_plugin, nearest, plugin_names
from sfm_match.weights import CHECKPOINTS, Checkpoint

_WEIGHTS = "weights"


def describe_components() -> dict[str, Any]:
    """Return every plugin and every registered checkpoint as JSON values."""
    components = {
        kind: {name: _describe(kind, name) for name in plugin_names(kind)} for kind in KINDS
    }
    return {**components, _WEIGHTS: {name: _row(c) for name, c in CHECKPOINTS.items()}}


def describe_one(name: str) -> dict[str, Any]:
    """Return the plugins and the checkpoint of a name, this one with its card if it has one.

    Raises:
        ConfigError: there is nothing of this name.
        WeightsError: the card is missing.
    """
    found: dict[str, Any] = {
        kind: {name: _describe(kind, name)} for kind in KINDS if name in plugin_names(kind)
    }
    if name in CHECKPOINTS:
        checkpoint = CHECKPOINTS[name]
        card = {"card": weights.card(checkpoint)} if checkpoint.packaged else {}
        found[_WEIGHTS] = {name: _row(checkpoint) | card}
    if not found:
        known = {name for kind in KINDS for name in plugin_names(kind)} | set(CHECKPOINTS)
        raise ConfigError(f"no component and no weights are named {name!r}; {nearest(name, known)}")
    return found


def _describe(kind: str, name: str) -> dict[str, Any]:
    module = load_plugin(kind, name)
    return {
        "summary": (inspect.getdoc(module) or "").partition("\n")[0],
        "licence": module.LICENCE,
        "version": module.VERSION,
        "options": config_dict(module.Config()),
    }


def _row(checkpoint: Checkpoint) -> dict[str, Any]:
    return dataclasses.asdict(checkpoint) | {"packaged": checkpoint.packaged}


def format_components(found: dict[str, Any]) -> str:
    """Return the list as text."""
    lines = []
    for kind in KINDS:
        lines.append(f"{kind}:" if found[kind] else f"{kind}: none")
        for name, component in found[kind].items():
            lines += _component_lines(name, component)
    lines.append("weights:")
    lines += [_weights_line(name) for name in found[_WEIGHTS]]
    return "\n".join(lines)


def format_one(found: dict[str, Any]) -> str:
    """Return what `describe_one` gives as text."""
    lines = []
    for kind in KINDS:
        for name, component in found.get(kind, {}).items():
            lines += [f"{kind}:", *_component_lines(name, component)]
    for name, row in found.get(_WEIGHTS, {}).items():
        checkpoint = CHECKPOINTS[name]
        lines += ["weights:", _weights_line(name), f"    {checkpoint.paper}"]
        lines += [f"    {checkpoint.url}"] if checkpoint.url else []
        lines += [f"    {checkpoint.digest_text}"]
        lines += ["", row["card"].rstrip()] if "card" in row else []
    return "\n".join(lines)


def _component_lines(name: str, component: dict[str, Any]) -> list[str]:
    first = f"  {name}  {component['summary']}  [{component['licence']}]"
    return [first, *(f"    {key} = {value}" for key, value in component["options"].items())]


def _weights_line(name: str) -> str:
    checkpoint = CHECKPOINTS[name]
    use = "" if checkpoint.commercial else ", not for commercial use"
    place = ", comes with the package" if checkpoint.packaged else ""
    return f"  {name}  {checkpoint.licence}{use}, {checkpoint.size_text}{place}"
