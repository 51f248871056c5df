"""The components that a recipe names, and whether they fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sfm_match.spec import ConfigError, Spec, gives_correspondences, load_plugin
from sfm_match.stages.tracks import tracks_spec


class Components(NamedTuple):
    """The specs of a recipe's components; None where there is no use for one."""

    features: Spec | None
    matcher: Spec
    refiner: Spec | None
    tracks: Spec | None


def parse_components(table: Mapping[str, dict[str, Any]]) -> Components:
    """Return the specs of the components, as far as the matcher has use for them.

    Args:
        table: the recipe's tables `features`, `matcher`, `refiner` and `tracks`.

    Raises:
        ConfigError: one does not exist or is wrong; the matcher needs features that are not there,
            or has no use for a table that is.
    """
    matcher = _component("matcher", "matchers", dict(table["matcher"]), ())
    needs_features = "features" in load_plugin("matchers", matcher.name).NEEDS
    features = None
    if needs_features or table["features"]:
        features = _component("features", "extractors", table["features"], ())
    if needs_features and features is not None:
        matcher = _component("matcher", "matchers", table["matcher"], (features,))
    if not gives_correspondences(matcher):
        if table["tracks"]:
            raise ConfigError(
                f"tracks.{min(table['tracks'])}: the matcher {matcher.name!r} matches features, "
                "so there are no tracks to make: leave the table out, or name a matcher that "
                "needs no features"
            )
        if table["refiner"]:
            raise ConfigError(
                f"refiner.{min(table['refiner'])}: the matcher {matcher.name!r} matches features, "
                "so there are no correspondences to refine: leave the table out, or name a "
                "matcher that needs no features"
            )
        return Components(features, matcher, None, None)
    refiner = None
    if table["refiner"]:
        refiner = _component("refiner", "refiners", table["refiner"], (matcher,))
    tracks = tracks_spec(table["tracks"], refiner or matcher, features)
    anchored = bool(tracks.config["anchor"])
    if anchored and features is None:
        raise ConfigError(
            "tracks.anchor: there are no features to be anchors: name an extractor as "
            "features.name, or leave the option out"
        )
    if features is not None and not (anchored or needs_features):
        raise ConfigError(
            f"features.name: the matcher {matcher.name!r} needs no features: leave the table out, "
            "or let its correspondences join the features with tracks.anchor = true"
        )
    return Components(features, matcher, refiner, tracks)


def _component(table: str, kind: str, options: dict[str, Any], inputs: tuple[Spec, ...]) -> Spec:
    if "name" not in options:
        raise ConfigError(f"{table}.name: the recipe names none of the {kind}")
    name = options.pop("name")
    if not isinstance(name, str):
        raise ConfigError(f"{table}.name: must be a name, got {name!r}")
    return Spec.parse(kind, name, options, inputs, where=table)
