"""Plugin lookup by name, and `Spec`: which component, with which settings, fed by what.

A plugin is a module with

- ``VERSION: int``, raised whenever its output changes;
- ``Config``, a frozen pydantic dataclass that forbids unknown fields;
- ``NEEDS: frozenset[str]``, of ``"image"`` and ``"features"`` (matchers and refiners);
- optionally ``GIVES: str``, of a matcher that finds points of its own: ``"correspondences"``;
  without it a matcher gives ``"matches"``, rows of the features that it needs;
- ``CONCURRENT: bool``, whether a call leaves other cores idle, so that on a CPU the stage runs one
  for each core: extractors in processes, the `match` of one matcher in threads;
- optionally ``RELEASES_GIL: bool``, of an extractor that may be called from several threads at once
  and spends its time outside the interpreter's lock: then threads do, which start at once;
- ``LICENCE: str`` of the method as it is shipped here;
- optionally ``resolve(config, inputs) -> config``, which fills in what follows from the inputs or
  the machine before the fingerprint is taken, or raises `ConfigError` where the inputs do not fit;
- optionally ``LIBRARIES``, the distributions that do the work: their versions are part of the
  fingerprint;
- ``build(config, device, inputs) -> component``; an extractor's may have a method
  ``dense(image)``, which gives `sfm_match.models.dense.DenseMaps` for pictures.

Built-in plugins are the modules of the package of their kind; other distributions register theirs
under the entry-point group ``sfm_match.<kind>``. Nothing lists them a second time.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points, version
from types import ModuleType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sfm_match import weights

KINDS = ("extractors", "matchers", "refiners")

_Config = TypeVar("_Config")


class ConfigError(ValueError):
    """A setting that does not exist or does not fit; the message names it and the remedy."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the known names closest to a wrong one."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    have = f"have {', '.join(names)}" if names else "there is none"
    return f"did you mean {' or '.join(map(repr, close))}? {have}" if close else have


def parse_config(config_type: type[_Config], options: Mapping[str, Any], where: str) -> _Config:
    """Build a settings dataclass from options; `where` is the table's name in messages.

    The text ``null`` stands for None, which TOML cannot express.

    Raises:
        ConfigError: an option is unknown (the nearest names are offered) or has a wrong value.
    """
    known = {field.name for field in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            raise ConfigError(f"{where}.{key}: no such option; {nearest(key, known)}")
    values = {key: None if value == "null" else value for key, value in options.items()}
    try:
        return TypeAdapter(config_type).validate_python(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join([where, *map(str, e['loc'])])}: {e['msg']}, got {e['input']!r}"
            for e in error.errors()
        ]
        raise ConfigError("; ".join(problems)) from None


def config_dict(config: Any) -> dict[str, Any]:
    """Return a settings dataclass as a dict of JSON values."""
    dumped: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return dumped


def _entry_point_modules(kind: str) -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=f"sfm_match.{kind}")}


def _built_in_names(kind: str) -> set[str]:
    try:
        package = importlib.import_module(f"sfm_match.{kind}")
    except ModuleNotFoundError:
        return set()
    return {module.name for module in pkgutil.iter_modules(package.__path__)}


def plugin_names(kind: str) -> list[str]:
    """Return the names of all plugins of a kind, built-in and registered."""
    return sorted(_built_in_names(kind) | set(_entry_point_modules(kind)))


def load_plugin(kind: str, name: str) -> ModuleType:
    """Return the module of a plugin.

    Raises:
        LookupError: there is none of that name, the message lists those there are; or a built-in
            one has the name of a registered one.
    """
    built_in, registered = _built_in_names(kind), _entry_point_modules(kind)
    if name in built_in and name in registered:
        raise LookupError(f"{registered[name].value} and a built-in plugin are both named {name!r}")
    if name not in built_in | set(registered):
        raise LookupError(f"no {kind[:-1]} named {name!r}; {nearest(name, plugin_names(kind))}")
    if name in registered:
        module: ModuleType = registered[name].load()
        return module
    return importlib.import_module(f"sfm_match.{kind}.{name}")


def gives_correspondences(spec: Spec) -> bool:
    """Return whether a matcher finds correspondences, not matches of features."""
    return getattr(load_plugin(spec.kind, spec.name), "GIVES", "matches") == "correspondences"


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of some distributions."""
    return {name: version(name) for name in names}


def fingerprint(payload: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the payload's sorted JSON."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the weights that it names, nor those of a component inside it."""
    return {
        name: _without_weights(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name != "weights"
    }


@dataclass(frozen=True)
class Spec:
    """Which component, with which settings, fed by what. Picklable.

    Attributes:
        kind: one of `KINDS`, or ``"stages"`` for the settings of a stage.
        name: the plugin's name, which is its module's.
        version: the plugin's version.
        config: every setting, defaults included, as JSON values.
        inputs: the specs of what feeds the component.
        weights: SHA-256 of the weights that the config names, or None.
        libraries: the versions of the libraries that do the work.
    """

    kind: str
    name: str
    version: int
    config: Mapping[str, Any]
    inputs: tuple[Spec, ...] = ()
    weights: str | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        kind: str,
        name: str,
        options: Mapping[str, Any] | None = None,
        inputs: tuple[Spec, ...] = (),
        where: str | None = None,
    ) -> Spec:
        """Check the options of a plugin and fill in its defaults.

        Args:
            kind: one of `KINDS`.
            name: the plugin's name.
            options: settings that differ from the defaults.
            inputs: the specs of what feeds it.
            where: what error messages call the table of options (the plugin's name unless given).

        Raises:
            ConfigError: there is no such plugin or weights, an option is unknown or wrong, or the
                inputs do not fit.
        """
        where = where or name
        try:
            module = load_plugin(kind, name)
            config = parse_config(module.Config, options or {}, where)
            resolve = getattr(module, "resolve", None)
            config = resolve(config, inputs) if resolve else config
            named = getattr(config, "weights", None)
            if named == "" and kind != "extractors":
                named = None  # it needs none, or which is open until something feeds it
            digest = None if named is None else weights.digest(named)
        except LookupError as error:
            raise ConfigError(f"{where}: {error}") from None
        return cls(
            kind=kind,
            name=name,
            version=module.VERSION,
            config=config_dict(config),
            inputs=inputs,
            weights=digest,
            libraries=library_versions(getattr(module, "LIBRARIES", ())),
        )

    def build(self, device: str = "cpu") -> Any:
        """Build the component on a torch device."""
        module = load_plugin(self.kind, self.name)
        config = parse_config(module.Config, self.config, self.name)
        return module.build(config, device, self.inputs)

    @property
    def payload(self) -> dict[str, Any]:
        """Everything that decides the component's output, as JSON values.

        Weights count by their digest, so that moving their file changes nothing.
        """
        return {
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "config": _without_weights(self.config),
            "weights": self.weights,
            "libraries": dict(self.libraries),
            "inputs": [spec.payload for spec in self.inputs],
        }

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the payload: equal exactly when the output is."""
        return fingerprint(self.payload)

    @property
    def folder_name(self) -> str:
        """The name of the store that holds this component's output."""
        return f"{self.name}-{self.fingerprint}"
