"""pycolmap's option classes as tables: every option by its name, checked."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from sfm_match.spec import ConfigError, nearest
from sfm_match.types import ArrayF64


def merge_options(
    defaults: Mapping[str, Any], overrides: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return the nested defaults with some options replaced.

    Args:
        defaults: an option class's ``todict()``.
        overrides: options by name; sub-tables are dicts.
        where: the name of the table in messages.

    Raises:
        ConfigError: an option does not exist (the nearest names are offered) or has a wrong type.
    """
    merged = dict(defaults)
    for name, value in overrides.items():
        if name not in defaults:
            raise ConfigError(f"{where}.{name}: no such option; {nearest(name, defaults)}")
        merged[name] = _checked(defaults[name], value, f"{where}.{name}")
    return merged


def _checked(default: Any, value: Any, where: str) -> Any:
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: is a table of options, got {value!r}")
        return merge_options(default, value, where)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hasattr(default, "__members__"):
        return _enum_member(type(default), value, where)
    if isinstance(default, set) and isinstance(value, list):
        return set(value)
    if isinstance(default, Path) and isinstance(value, str):
        return Path(value)
    if isinstance(default, np.ndarray) and isinstance(value, list):
        return _vector(default, value, where)
    if default is not None and type(value) is not type(default):
        wanted = type(default).__name__
        raise ConfigError(f"{where}: must be of type {wanted}, like {default!r}, got {value!r}")
    return value


def _vector(default: ArrayF64, value: list[Any], where: str) -> ArrayF64:
    if len(value) != len(default) or not all(type(part) in (int, float) for part in value):
        raise ConfigError(f"{where}: must be {len(default)} numbers, got {value!r}")
    return np.array(value, default.dtype)


def _enum_member(enum: Any, value: Any, where: str) -> Any:
    if isinstance(value, str) and value in enum.__members__:
        return enum.__members__[value]
    raise ConfigError(f"{where}: must be one of {', '.join(enum.__members__)}, got {value!r}")


def json_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as JSON values: enumeration members by name, sets as sorted lists."""
    return {name: _json_value(value) for name, value in options.items()}


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return json_options(value)
    if isinstance(value, Enum) or hasattr(value, "__members__"):
        return value.name
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, list | tuple | np.ndarray):
        return [_json_value(part) for part in value]
    return str(value)
