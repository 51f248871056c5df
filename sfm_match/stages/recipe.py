"""Recipes: a named choice of extractor, matcher, pairs and mapper, with their options, in TOML."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any

import tomli_w

from sfm_match.geometry import cameras
from sfm_match.io.files import write_text
from sfm_match.spec import ConfigError, Spec, nearest, parse_config
from sfm_match.stages import pairs, scan
from sfm_match.stages.components import parse_components
from sfm_match.stages.mappers import mapper_spec
from sfm_match.stages.polish_config import polish_spec
from sfm_match.stages.verify import verify_spec

Tables = dict[str, Any]

DEFAULT = "sift"
_COMPONENTS = ("features", "matcher", "refiner", "tracks")
_TABLES = ("images", "camera", *_COMPONENTS, "pairs", "verify", "mapper", "polish")
_SETTINGS = ("description", "seed")
_PATHS = (("images", "masks"), ("pairs", "path"), ("pairs", "model"), ("mapper", "poses"))


@dataclass(frozen=True)
class Recipe:
    """All settings of a run, checked.

    Attributes:
        tables: what was set, as in TOML.
        images: the folder of images and masks.
        camera: how cameras are assigned to images.
        features: the extractor; None where the matcher needs images only.
        matcher: the matcher, fed by the extractor if it needs features.
        refiner: what refines the matcher's correspondences; None for nothing.
        tracks: how correspondences become features and matches; None for a matcher of features.
        pairs: which pairs are matched.
        verify: the geometric verification, fed by the matcher or the tracks.
        mapper: the mapper.
        polish: the second pass over its models; None for none.
        seed: of all random numbers.
    """

    tables: Tables
    images: scan.Config
    camera: cameras.Config
    features: Spec | None
    matcher: Spec
    refiner: Spec | None
    tracks: Spec | None
    pairs: pairs.Config
    verify: Spec
    mapper: Spec
    polish: Spec | None
    seed: int

    @classmethod
    def load(cls, recipe: str | Path = DEFAULT, *settings: str, **tables: Any) -> Recipe:
        """Load a recipe and change some of its settings.

        Args:
            recipe: the name of a packaged recipe, or a TOML file.
            settings: changes as on the command line, for example ``"features.max_keypoints=4096"``.
            tables: changes as tables, for example ``camera={"mode": "single"}``.

        Raises:
            ConfigError: a recipe, table or option does not exist, or a value is wrong.
        """
        merged = merge(read_tables(recipe), tables)
        return cls.of_tables(merge(merged, parse_settings(settings)))

    @classmethod
    def of_tables(cls, tables: Tables) -> Recipe:
        """Check all settings; nothing is read but the digests of weights.

        Raises:
            ConfigError: a table or option does not exist, or a value is wrong.
        """
        for name, value in tables.items():
            if name not in _TABLES + _SETTINGS:
                raise ConfigError(f"[{name}]: no such table; {nearest(name, _TABLES + _SETTINGS)}")
            if name in _TABLES and not isinstance(value, Mapping):
                raise ConfigError(f"{name}: is a table of options, got {value!r}")
        table = {name: dict(tables.get(name, {})) for name in _TABLES}
        seed = tables.get("seed", 0)
        if type(seed) is not int or seed < 0:
            raise ConfigError(f"seed: must be a whole number from 0 on, got {seed!r}")
        camera = parse_config(cameras.Config, table["camera"], "camera")
        features, matcher, refiner, tracks = parse_components(table)
        name = table["mapper"].pop("name", "incremental")
        described = tables.get("description", "")
        for key, value in (("mapper.name", name), ("description", described)):
            if not isinstance(value, str):
                raise ConfigError(f"{key}: must be text, got {value!r}")
        mapper = mapper_spec(name, table["mapper"], seed, camera.fixed)
        return cls(
            tables=copy.deepcopy(tables),
            images=parse_config(scan.Config, table["images"], "images"),
            camera=camera,
            features=features,
            matcher=matcher,
            refiner=refiner,
            tracks=tracks,
            pairs=parse_config(pairs.Config, table["pairs"], "pairs"),
            verify=verify_spec(table["verify"], tracks or matcher, seed),
            mapper=mapper,
            polish=polish_spec(table["polish"], mapper),
            seed=seed,
        )

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each stage's settings."""
        specs = {
            "features": self.features,
            "matches": self.matcher,
            "refined": self.refiner,
            "tracks": self.tracks,
            "two_views": self.verify,
            "mapper": self.mapper,
            "polish": self.polish,
        }
        return {name: spec.fingerprint for name, spec in specs.items() if spec is not None}

    @property
    def mapper_options(self) -> dict[str, Any]:
        """The options of the mapper that differ from pycolmap's."""
        return {k: v for k, v in self.tables.get("mapper", {}).items() if k != "name"}

    def write(self, path: Path) -> None:
        """Write the settings as a TOML recipe."""
        write_text(path, tomli_w.dumps(_in_toml(self.tables)))


def _in_toml(value: Any) -> Any:
    """Return a value in the types that TOML has; a text stands for None (see `parse_config`)."""
    if isinstance(value, Mapping):
        return {name: _in_toml(part) for name, part in value.items()}
    if isinstance(value, Path):
        return str(value)
    return "null" if value is None else value


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Tables:
    """Return the base with some values replaced, table by table.

    A table that names another component than the base does replaces the base's: the options of
    one component are not another's.
    """
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            renamed = "name" in value and value["name"] != old.get("name")
            merged[name] = dict(value) if renamed else merge(old, value)
        else:
            merged[name] = copy.deepcopy(value)
    return merged


def parse_settings(settings: Iterable[str]) -> Tables:
    """Return the tables of settings such as ``camera.mode=single``; values are TOML or bare text.

    Raises:
        ConfigError: one is not of the form TABLE.KEY=VALUE.
    """
    tables: Tables = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        *parents, key = path.strip().split(".")
        if not equals or not all([*parents, key]):
            raise ConfigError(f"-o {setting}: must be TABLE.KEY=VALUE")
        table = tables
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"-o {setting}: {parent} has been set to a value before")
        table[key] = _parse_value(text)
    return tables


def _parse_value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    # No option is a date, but a folder may be called like one.
    return text if isinstance(value, date | time) else value


def _recipe_folder() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "pipelines"
    return installed if installed.is_dir() else package.parent / "pipelines"


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes."""
    return sorted(path.stem for path in _recipe_folder().glob("*.toml"))


def read_tables(recipe: str | Path) -> Tables:
    """Read a packaged recipe by its name, or a TOML file.

    Raises:
        ConfigError: there is no such recipe, or it is not valid TOML (the line is named).
    """
    path = Path(recipe)
    if str(recipe) in recipe_names():
        path = _recipe_folder() / f"{recipe}.toml"
    elif not path.is_file():
        offer = nearest(str(recipe), recipe_names())
        raise ConfigError(f"no recipe or file {str(recipe)!r}; {offer}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not in UTF-8 (byte {error.start}): save it as UTF-8 text"
        ) from None


def recipe_for(
    out: Path,
    images: Path | None,
    name: str | None,
    tables: Mapping[str, Any],
    settings: Iterable[str],
) -> Recipe:
    """Return the settings of a command on an output folder.

    Args:
        out: the output folder.
        images: the folder of images; None for the one that `out` was made with.
        name: a recipe; None for the one named like the extractor or else the matcher of `tables`
            if there is one, for the one that `out` was last used with if no images are given, or
            else the default.
        tables: changes as tables.
        settings: changes such as ``camera.mode=single``.

    Raises:
        ConfigError: `out` was not made before and no images are given, or a setting is wrong.
    """
    kept = out / "recipe.toml"
    if images is None and not kept.is_file():
        raise ConfigError(f"{out}: not an output folder (it has no recipe.toml); extract first")
    named = [tables.get(table, {}).get("name") for table in ("features", "matcher")]
    if name is None:
        name = next((n for n in named if n in recipe_names()), None)
    file = name or (kept if images is None else DEFAULT)
    base = read_tables(file)
    folder = _kept_images(kept) if images is None else str(images.absolute())
    merged = merge(merge(base, {"images": {"path": folder}}), tables)
    try:
        return Recipe.of_tables(_absolute(merge(merged, parse_settings(settings))))
    except ConfigError as error:
        if _is_wrong_alone(base, error):
            raise ConfigError(f"{file}: {error}") from None
        raise


def _kept_images(kept: Path) -> str:
    """Return the folder of images that an output folder was made with."""
    images = read_tables(kept).get("images")
    if not isinstance(images, Mapping) or not isinstance(images.get("path"), str):
        raise ConfigError(f"{kept}: images.path: the folder of images is missing; extract first")
    return str(images["path"])


def _is_wrong_alone(base: Tables, found: ConfigError) -> bool:
    """Return whether a recipe has the same error before any change to it."""
    try:
        Recipe.of_tables(base)
    except ConfigError as error:
        return str(error) == str(found)
    return False


def _is_path(value: Any) -> bool:
    return isinstance(value, str | Path) and value not in ("", "null")


def _absolute(tables: Tables) -> Tables:
    """Return the tables with absolute paths: they are kept, and used from other folders."""
    for table, key in _PATHS:
        if not (isinstance(tables.get(table), Mapping) and _is_path(tables[table].get(key))):
            continue
        tables = merge(tables, {table: {key: str(Path(tables[table][key]).absolute())}})
    return tables
