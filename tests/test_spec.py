from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as config_dataclass

from sfm_match.spec import (
    ConfigError,
    Spec,
    config_dict,
    fingerprint,
    load_plugin,
    nearest,
    parse_config,
    plugin_names,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=10,
)


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Settings:
    num_points: Annotated[int, Field(gt=0)] = 10
    mode: Literal["fast", "slow"] = "fast"
    limit: float | None = 2.5
    sizes: tuple[int, ...] = (1, 2)


def spec(**changes: Any) -> Spec:
    made = Spec("extractors", "x", 1, {"a": 1, "b": [1.5, None, "c"]})
    return dataclasses.replace(made, **changes)


# --- settings -------------------------------------------------------------------------------------


def test_settings_are_checked_and_filled_in() -> None:
    found = parse_config(Settings, {"num_points": 3, "sizes": [4, 5]}, "table")
    assert found == Settings(3, "fast", 2.5, (4, 5))
    assert config_dict(found) == {
        "num_points": 3,
        "mode": "fast",
        "limit": 2.5,
        "sizes": [4, 5],
    }
    assert parse_config(Settings, config_dict(found), "table") == found


def test_the_text_null_is_none() -> None:
    assert parse_config(Settings, {"limit": "null"}, "table").limit is None
    assert parse_config(Settings, {"limit": None}, "table").limit is None
    with pytest.raises(ConfigError, match=r"table\.num_points: .*valid integer, got None"):
        parse_config(Settings, {"num_points": "null"}, "table")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_point": 3}, r"table\.num_point: no such option; did you mean 'num_points'\? have"),
        ({"zzz": 3}, r"table\.zzz: no such option; have limit, mode, num_points, sizes"),
        ({"num_points": -1}, r"table\.num_points: Input should be greater than 0, got -1"),
        ({"num_points": 1.5}, r"table\.num_points: .*integer.*, got 1\.5"),
        ({"mode": "quick"}, r"table\.mode: Input should be 'fast' or 'slow', got 'quick'"),
        ({"sizes": [1, "x"]}, r"table\.sizes\.1: .*, got 'x'"),
        ({"num_points": 0, "mode": 3}, r"num_points: .*; table\.mode: "),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(Settings, options, "table")


def test_the_closest_names_are_offered() -> None:
    assert nearest("sfit", ["sift", "disk"]) == "did you mean 'sift'? have disk, sift"
    assert nearest("superglue", ["sift"]) == "have sift"
    assert nearest("sift", []) == "there is none"


# --- fingerprints ---------------------------------------------------------------------------------


def test_a_fingerprint_is_the_sha256_of_the_sorted_json() -> None:
    text = '{"a":[1,2.5,null],"b":"\\u00e4"}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert fingerprint({"b": "ä", "a": [1, 2.5, None]}) == expected
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": float("nan")})


@given(JSON, JSON)
def test_fingerprints_are_equal_when_the_json_is(left: Any, right: Any) -> None:
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert (fingerprint(left) == fingerprint(right)) == same


def test_everything_that_decides_the_output_is_in_the_fingerprint() -> None:
    feeding = spec(name="y")
    specs = [
        spec(),
        spec(kind="matchers"),
        spec(name="y"),
        spec(version=2),
        spec(config={"a": 1, "b": [1.5, None, "d"]}),
        spec(config={"a": 2, "b": [1.5, None, "c"]}),
        spec(inputs=(feeding,)),
        spec(inputs=(feeding, spec())),
        spec(inputs=(spec(), feeding)),
        spec(inputs=(spec(name="y", inputs=(spec(version=2),)),)),
        spec(weights="0" * 64),
    ]
    assert len({s.fingerprint for s in specs}) == len(specs)


def test_what_does_not_decide_the_output_is_not() -> None:
    reordered = spec(config={"b": [1.5, None, "c"], "a": 1})
    assert reordered.fingerprint == spec().fingerprint
    here, there = (
        spec(config={"a": 1, "weights": path}, weights="0" * 64) for path in ("/here", "/there")
    )
    assert here.fingerprint == there.fingerprint
    assert spec().folder_name == f"x-{spec().fingerprint}"


def test_a_spec_survives_pickling() -> None:
    made = spec(inputs=(spec(name="y"),))
    copy = pickle.loads(pickle.dumps(made))
    assert copy == made
    assert copy.fingerprint == made.fingerprint


# --- plugins --------------------------------------------------------------------------------------


def test_parsing_fills_in_the_defaults() -> None:
    found = Spec.parse("extractors", "sift", {"max_keypoints": 100})
    assert (found.kind, found.name, found.weights) == ("extractors", "sift", None)
    assert found.config["max_keypoints"] == 100
    assert found.config["root"] is True
    explicit = Spec.parse("extractors", "sift", dict(found.config))
    assert explicit.fingerprint == found.fingerprint
    matcher = Spec.parse("matchers", "nearest", inputs=(found,))
    assert matcher.inputs == (found,)


def test_unknown_plugins_are_named() -> None:
    with pytest.raises(LookupError, match=r"no extractor named 'sfit'; did you mean 'sift"):
        load_plugin("extractors", "sfit")
    with pytest.raises(ConfigError, match=r"features: no matcher named 'sift'; have"):
        Spec.parse("matchers", "sift", where="features")
    with pytest.raises(ConfigError, match=r"features\.max_points: no such option; did you mean"):
        Spec.parse("extractors", "sift", {"max_points": 3}, where="features")


def test_a_kind_without_a_package_has_no_plugins() -> None:
    assert plugin_names("no_such_kind") == []
    assert plugin_names("extractors") == sorted(plugin_names("extractors"))
