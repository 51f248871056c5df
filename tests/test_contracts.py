"""What every component says of itself; what it does is tested beside the components."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import ValidationError

from sfm_match import spec as spec_module
from sfm_match import weights
from sfm_match.spec import ConfigError, Spec, load_plugin, plugin_names
from tests.components import EXTRACTORS, PLUGINS, SPARSE_MATCHERS, options_of, required, source
from tests.pictures import noise_picture

# --- modules --------------------------------------------------------------------------------------


def test_the_components_of_the_recipes_are_found() -> None:
    assert "sift" in EXTRACTORS
    assert "nearest" in SPARSE_MATCHERS


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugin_says_what_it_is(kind: str, name: str) -> None:
    module = load_plugin(kind, name)
    assert type(module.VERSION) is int
    assert module.VERSION >= 1
    assert type(module.CONCURRENT) is bool
    assert isinstance(module.LICENCE, str)
    assert module.LICENCE.strip()
    assert list(inspect.signature(module.build).parameters) == ["config", "device", "inputs"]
    for documented in (module, module.Config, module.build):
        assert inspect.getdoc(documented)
    if kind != "extractors":
        assert module.NEEDS
        assert {"image", "features"} >= module.NEEDS
    if kind == "matchers":
        gives = getattr(module, "GIVES", "matches")
        assert gives in ("matches", "correspondences")
        assert gives == "correspondences" or "features" in module.NEEDS


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_its_settings_are_frozen_documented_and_complete(kind: str, name: str) -> None:
    config_type = load_plugin(kind, name).Config
    config = config_type()
    for option in options_of(kind, name):
        assert f"{option}: " in (inspect.getdoc(config_type) or "")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, option, None)
    with pytest.raises(ValidationError, match="no_such_option"):
        config_type(no_such_option=1)
    with pytest.raises(ConfigError, match=f"{name}.no_such_option: no such option"):
        Spec.parse(kind, name, {"no_such_option": 1})


def other_value(kind: str, name: str, option: str) -> Any:
    """Return a value of an option that is allowed and does not mean its default."""
    config_type = load_plugin(kind, name).Config
    default = Spec.parse(kind, name, required(kind, name)).config[option]
    literals: list[Any] = []
    annotations = [get_type_hints(config_type)[option]]
    while annotations:
        annotation = annotations.pop()
        parts = get_args(annotation)
        annotations += parts
        literals += [part for part in parts if isinstance(part, str)]
    names = list(weights.CHECKPOINTS) if option == "weights" else []
    for value in (*literals, *names, True, False, 1, 2, 0.5, 0.25, 1.5, "aliked"):
        try:
            found = Spec.parse(kind, name, required(kind, name) | {option: value}).config[option]
        except ConfigError:
            continue
        if found != default:
            return value
    raise AssertionError(f"no other value found for the option {option!r}")


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_the_fingerprint_follows_every_setting_and_input(kind: str, name: str) -> None:
    needed, extractor = required(kind, name), source(kind, name)
    specs = [
        Spec.parse(kind, name, needed),
        Spec.parse(kind, name, needed, (extractor,)),
        Spec.parse(kind, name, needed, (dataclasses.replace(extractor, version=1000),)),
        dataclasses.replace(Spec.parse(kind, name, needed), version=1000),
    ]
    for option in sorted(options_of(kind, name)):
        changed = needed | {option: other_value(kind, name, option)}
        specs.append(Spec.parse(kind, name, changed))
    assert len({spec.fingerprint for spec in specs}) == len(specs)
    assert pickle.loads(pickle.dumps(specs[0])).fingerprint == specs[0].fingerprint


# --- components of other distributions ------------------------------------------------------------


def register(monkeypatch: pytest.MonkeyPatch, **modules: str) -> None:
    """Register modules as extractors, as the metadata of an installed distribution does."""

    def entry_points(group: str) -> list[EntryPoint]:
        return [
            EntryPoint(name, module, group)
            for name, module in modules.items()
            if group == "sfm_match.extractors"
        ]

    monkeypatch.setattr(spec_module, "entry_points", entry_points)


def test_an_extractor_of_another_distribution(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(LookupError, match="no extractor named 'numbered'"):
        load_plugin("extractors", "numbered")
    register(monkeypatch, numbered="tests.plugin_extractor")
    assert "numbered" in plugin_names("extractors")
    assert "numbered" not in plugin_names("matchers")
    assert load_plugin("extractors", "sift").__name__ == "sfm_match.extractors.sift"
    number = tmp_path / "number"
    number.write_text("5")
    options = {"weights": str(number)}
    five = Spec.parse("extractors", "numbered", options)
    assert len(five.build()(noise_picture())) == 5
    assert five.folder_name == f"numbered-{five.fingerprint}"
    # The fingerprint follows the content of the weights, not their place.
    moved = tmp_path / "elsewhere"
    moved.write_text("5")
    assert Spec.parse("extractors", "numbered", {"weights": str(moved)}).fingerprint == (
        five.fingerprint
    )
    number.write_text("14")
    assert Spec.parse("extractors", "numbered", options).fingerprint != five.fingerprint
    with pytest.raises(ConfigError, match=r"numbered\.weight: no such option; did you mean"):
        Spec.parse("extractors", "numbered", {"weight": "x"})


def test_a_plugin_that_is_named_like_a_built_in_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point = EntryPoint("sift", "somebody.sift", "sfm_match.extractors")
    monkeypatch.setattr(
        spec_module, "entry_points", lambda group: [point] if group == point.group else []
    )
    with pytest.raises(spec_module.ConfigError, match=r"somebody\.sift and a built-in plugin"):
        spec_module.Spec.parse("extractors", "sift")
