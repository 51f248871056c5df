"""Recipes with a matcher that finds points itself: which tables fit together."""

from __future__ import annotations

from typing import Any

import pytest

from sfm_match.spec import ConfigError
from sfm_match.stages.recipe import Recipe
from tests import plugin_matcher


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_matcher.register(monkeypatch)


def tables(**changes: Any) -> dict[str, Any]:
    return {"matcher": {"name": "points"}} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"matcher": {"name": "nearest"}, "features": {"name": "sift"}, "tracks": {"radius": 1}},
            r"tracks\.radius: the matcher 'nearest' matches features.*leave the table out",
        ),
        ({"tracks": {"anchor": True}}, r"tracks\.anchor: there are no features.*features\.name"),
        (
            {"features": {"name": "sift"}},
            r"features\.name: the matcher 'points' needs no features.*tracks\.anchor = true",
        ),
        ({"tracks": {"radii": 1}}, r"tracks\.radii: no such option; did you mean 'radius'"),
        ({"matcher": {"name": "nearest"}}, r"features\.name: the recipe names none"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.of_tables(tables(**changes))


def test_an_empty_table_of_tracks_is_no_table() -> None:
    sparse = {"matcher": {"name": "nearest"}, "features": {"name": "sift"}}
    empty = Recipe.of_tables(tables(**sparse, tracks={}))
    assert empty.tracks is None
    assert empty.fingerprints == Recipe.of_tables(tables(**sparse)).fingerprints
    found = Recipe.of_tables(tables())
    assert found.features is None
    assert found.tracks is not None
    assert found.verify.inputs == (found.tracks,)
    assert found.tracks.inputs == (found.matcher,)
    assert found.matcher.inputs == ()
