from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from sfm_match.options import json_options, merge_options
from sfm_match.spec import ConfigError

CLASSES = [
    pycolmap.IncrementalPipelineOptions,
    pycolmap.GlobalPipelineOptions,
    pycolmap.HierarchicalPipelineOptions,
    pycolmap.TwoViewGeometryOptions,
]


class Colour:
    """An enumeration as pybind11 makes them: no `enum.Enum`."""

    __members__: dict[str, Colour]

    def __init__(self, name: str) -> None:
        self.name = name


Colour.__members__ = {name: Colour(name) for name in ("RED", "GREEN")}

DEFAULTS: dict[str, Any] = {
    "number": 3,
    "ratio": 0.5,
    "flag": True,
    "text": "x",
    "path": Path(),
    "names": ["a"],
    "ids": {1, 2},
    "vector": np.zeros(3),
    "colour": Colour.__members__["RED"],
    "nothing": None,
    "table": {"number": 1, "inner": {"ratio": 2.0}},
}


def merged(**overrides: Any) -> dict[str, Any]:
    return merge_options(DEFAULTS, overrides, "where")


def test_nothing_changes_without_overrides() -> None:
    assert merged() == DEFAULTS
    assert merged() is not DEFAULTS


def test_values_get_the_type_of_the_default() -> None:
    found = merged(
        ratio=2,
        path="a/b",
        ids=[5],
        vector=[1, 2, 3],
        colour="GREEN",
        nothing=7,
        names=["b", "c"],
    )
    assert type(found["ratio"]) is float
    assert found["path"] == Path("a/b")
    assert found["ids"] == {5}
    assert found["vector"].dtype == np.float64
    assert found["vector"].tolist() == [1, 2, 3]
    assert found["colour"] is Colour.__members__["GREEN"]
    assert found["nothing"] == 7
    assert found["names"] == ["b", "c"]


def test_tables_are_merged_at_every_depth() -> None:
    found = merged(table={"inner": {"ratio": 3.5}})
    assert found["table"] == {"number": 1, "inner": {"ratio": 3.5}}
    assert DEFAULTS["table"] == {"number": 1, "inner": {"ratio": 2.0}}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"numbr": 1}, r"where\.numbr: no such option; did you mean 'number'\?"),
        (
            {"table": {"inner": {"ration": 1}}},
            r"where\.table\.inner\.ration: no such option; did you mean 'ratio'\?",
        ),
        ({"table": 3}, r"where\.table: is a table of options, got 3"),
        ({"number": 1.5}, r"where\.number: must be of type int, like 3, got 1\.5"),
        ({"number": True}, r"where\.number: must be of type int"),
        ({"flag": 1}, r"where\.flag: must be of type bool, like True, got 1"),
        ({"ratio": True}, r"where\.ratio: must be of type float"),
        ({"ratio": "2"}, r"where\.ratio: must be of type float, like 0\.5, got '2'"),
        ({"colour": "BLUE"}, r"where\.colour: must be one of RED, GREEN, got 'BLUE'"),
        ({"colour": 1}, r"where\.colour: must be one of RED, GREEN, got 1"),
        ({"names": "a"}, r"where\.names: must be of type list"),
        ({"vector": ["x", "y", "z"]}, r"where\.vector: must be 3 numbers, got \['x', 'y', 'z'\]"),
        ({"vector": [1, 2]}, r"where\.vector: must be 3 numbers, got \[1, 2\]"),
    ],
    ids=str,
)
def test_wrong_overrides_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merged(**overrides)


def test_json_values() -> None:
    found = json_options(DEFAULTS)
    assert json.loads(json.dumps(found)) == found
    assert found["colour"] == "RED"
    assert found["ids"] == [1, 2]
    assert found["vector"] == [0, 0, 0]
    assert found["path"] == "."


@pytest.mark.parametrize("options", CLASSES, ids=lambda options: options.__name__)
def test_every_option_of_pycolmap_goes_through_json_and_back(options: Any) -> None:
    defaults = options().todict()
    as_json = json.loads(json.dumps(json_options(defaults)))
    back = merge_options(defaults, as_json, "options")
    assert json_options(back) == as_json
    found, expected = options(), options()
    found.mergedict(back)
    expected.mergedict(defaults)
    assert json_options(found.todict()) == json_options(expected.todict())
