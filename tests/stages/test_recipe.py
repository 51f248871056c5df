from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from sfm_match.spec import ConfigError
from sfm_match.stages.recipe import (
    DEFAULT,
    Recipe,
    merge,
    parse_settings,
    read_tables,
    recipe_for,
    recipe_names,
)
from tests.components import required

MINIMAL = '[features]\nname = "sift"\n[matcher]\nname = "nearest"\n'


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_every_packaged_recipe_loads(name: str, tmp_path: Path) -> None:
    extractor = read_tables(name).get("features", {}).get("name", "none")
    recipe = Recipe.load(name, features=required("extractors", extractor))
    assert recipe.tables["description"].strip()
    if recipe.tracks is None:
        assert recipe.matcher.inputs == (recipe.features,)
        assert recipe.verify.inputs == (recipe.matcher,)
        made = {"features", "matches"}
    else:
        last = recipe.refiner or recipe.matcher
        assert recipe.tracks.inputs[0] == last
        assert recipe.verify.inputs == (recipe.tracks,)
        optional = {"features": recipe.features, "refined": recipe.refiner}
        made = {"matches", "tracks"} | {name for name, spec in optional.items() if spec}
    polished = {"polish"} if recipe.polish else set()
    assert set(recipe.fingerprints) == made | {"two_views", "mapper"} | polished
    # As written, it is the same.
    recipe.write(tmp_path / "recipe.toml")
    again = Recipe.load(tmp_path / "recipe.toml")
    assert again.tables == recipe.tables
    assert again.fingerprints == recipe.fingerprints


def test_the_default_recipe() -> None:
    assert DEFAULT in recipe_names()
    recipe = Recipe.load()
    assert recipe.features is not None
    assert (recipe.features.name, recipe.matcher.name, recipe.mapper.name) == (
        "sift",
        "nearest",
        "incremental",
    )
    assert recipe.seed == 0
    assert recipe.pairs.method == "exhaustive"


def test_a_minimal_file_has_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(MINIMAL)
    recipe = Recipe.load(tmp_path / "my.toml")
    assert recipe.mapper.name == "incremental"
    assert (recipe.camera.mode, recipe.images.path) == ("auto", None)


def test_settings_and_tables_change_it() -> None:
    recipe = Recipe.load(
        "sift",
        "features.max_keypoints=123",
        "seed=4",
        "mapper.mapper.init_min_tri_angle=5",
        camera={"mode": "single"},
        features={"max_keypoints": 7, "resize": 800},
    )
    assert recipe.features is not None
    assert recipe.features.config["max_keypoints"] == 123  # settings come last
    assert recipe.features.config["resize"] == 800
    assert recipe.camera.mode == "single"
    assert recipe.seed == recipe.verify.config["seed"] == recipe.mapper.config["seed"] == 4
    assert recipe.mapper_options == {
        **Recipe.load("sift").mapper_options,
        "mapper": {
            **Recipe.load("sift").mapper_options.get("mapper", {}),
            "init_min_tri_angle": 5,
        },
    }


def test_the_fingerprints_follow_what_they_depend_on() -> None:
    def changed(*settings: str) -> set[str]:
        before, after = Recipe.load().fingerprints, Recipe.load("sift", *settings).fingerprints
        return {name for name in before if before[name] != after[name]}

    assert changed() == set()
    assert changed("features.max_keypoints=1") == {"features", "matches", "two_views"}
    assert changed("matcher.ratio=0.5") == {"matches", "two_views"}
    assert changed("verify.min_num_inliers=20") == {"two_views"}
    assert changed("mapper.min_num_matches=20") == {"mapper"}
    assert changed("camera.fixed=true") == {"mapper"}
    assert changed("seed=1") == {"two_views", "mapper"}
    assert changed("pairs.method=sequential", "camera.mode=single", "images.path=x") == set()


def test_null_goes_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(MINIMAL + '[camera]\nparams = "1,2,3,4"\n')
    assert Recipe.load(tmp_path / "my.toml").camera.params == (1, 2, 3, 4)
    for recipe in (
        Recipe.load(tmp_path / "my.toml", "camera.params=null"),
        Recipe.load(tmp_path / "my.toml", camera={"params": None}),
    ):
        assert recipe.camera.params is None
        recipe.write(tmp_path / "recipe.toml")
        assert Recipe.load(tmp_path / "recipe.toml").camera.params is None


def test_loading_leaves_the_arguments_alone() -> None:
    tables = {"features": {"name": "sift", "resize": 800}}
    recipe = Recipe.load("sift", "features.resize=5", **tables)
    assert tables == {"features": {"name": "sift", "resize": 800}}
    recipe.tables["features"]["resize"] = 6
    assert recipe.features is not None
    assert recipe.features.config["resize"] == 5


# --- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["feature.max_keypoints=1"], r"\[feature\]: no such table; did you mean 'features'"),
        (["features.max_keypoint=1"], r"features\.max_keypoint: .*did you mean 'max_keypoints'"),
        (["features.name=sfit"], r"features: no extractor named 'sfit'; did you mean"),
        (["matcher.name=nearst"], r"matcher: no matcher named 'nearst'; did you mean"),
        (["matcher.ratio=1.5"], r"matcher\.ratio: .*less than or equal to 1, got 1\.5"),
        (["pairs.method=all"], r"pairs\.method: no method named 'all'; have .*, got 'all'"),
        (["camera.mode=one"], r"camera\.mode: .*'single'.*, got 'one'"),
        (["verify.ransac.max_eror=1"], r"verify\.ransac\.max_eror: .*did you mean 'max_error'"),
        (["mapper.name=increment"], r"mapper\.name: no mapper 'increment'; did you mean 'increm"),
        (["mapper.min_num_match=1"], r"mapper\.min_num_match: .*did you mean 'min_num_matches'"),
        (["features=sift"], r"features: is a table of options, got 'sift'"),
        (["seed=-1"], r"seed: must be a whole number from 0 on, got -1"),
        (["seed=1.5"], r"seed: must be a whole number from 0 on, got 1\.5"),
        (["seed=true"], r"seed: must be a whole number from 0 on, got True"),
    ],
    ids=str,
)
def test_wrong_settings_are_named(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.load("sift", *settings)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe or file 'sfit'; did you mean 'sift'"):
        read_tables("sfit")
    with pytest.raises(ConfigError, match="no recipe or file"):
        read_tables(tmp_path / "nothing.toml")
    path = tmp_path / "bad.toml"
    path.write_text('[features]\nname = "sift"\nresize =\n')
    with pytest.raises(ConfigError, match=r"bad\.toml: not valid TOML: .*line 3"):
        read_tables(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bad\.toml: not in UTF-8"):
        read_tables(path)
    path.write_text('[features]\nname = "sift"\n')
    with pytest.raises(ConfigError, match=r"matcher\.name: the recipe names none of the matchers"):
        Recipe.load(path)


# --- settings of the command line -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        (" 5", 5),
        ("0.5", 0.5),
        ("true", True),
        ("True", "True"),
        ("single", "single"),
        ('"5"', "5"),
        ("[1, 2]", [1, 2]),
        ('["a b", "c"]', ["a b", "c"]),
        ("600,320,240", "600,320,240"),
        ("a=b", "a=b"),
        ("/some/folder (1)", "/some/folder (1)"),
        ("2024-05-01", "2024-05-01"),
        ("2024-05-01T10:00:00", "2024-05-01T10:00:00"),
        ("10:30:00", "10:30:00"),
        ("", ""),
        ("{a = 1}", {"a": 1}),
    ],
)
def test_values_are_toml_or_text(text: str, value: Any) -> None:
    assert parse_settings([f"table.key={text}"]) == {"table": {"key": value}}


def test_settings_are_nested_and_the_last_one_counts() -> None:
    found = parse_settings(["a.b.c=1", "a.b.d=x", "a.e=2", "seed=3", "a.b.c=4"])
    assert found == {"a": {"b": {"c": 4, "d": "x"}, "e": 2}, "seed": 3}
    assert parse_settings([]) == {}


@pytest.mark.parametrize("setting", ["features", "=5", "features.=5", ".x=5", "a..b=1"])
def test_settings_of_another_form_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"-o .*: must be TABLE\.KEY=VALUE"):
        parse_settings([setting])


def test_a_value_is_no_table() -> None:
    with pytest.raises(ConfigError, match=r"-o a\.b\.c=1: b has been set to a value before"):
        parse_settings(["a.b=1", "a.b.c=1"])


# --- merging --------------------------------------------------------------------------------------


def test_tables_are_merged_value_by_value() -> None:
    base = {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "seed": 1}
    assert merge(base, {"a": {"y": {"z": 5}}, "b": {"c": 1}}) == {
        "a": {"x": 1, "y": {"z": 5, "w": 3}},
        "b": {"c": 1},
        "seed": 1,
    }
    assert base == {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "seed": 1}


def test_another_component_drops_the_options_of_the_old_one() -> None:
    base = {"features": {"name": "sift", "resize": 800}}
    assert merge(base, {"features": {"name": "disk", "weights": "x"}}) == {
        "features": {"name": "disk", "weights": "x"}
    }
    assert merge(base, {"features": {"name": "sift", "root": False}}) == {
        "features": {"name": "sift", "resize": 800, "root": False}
    }
    recipe = Recipe.load("sift", "mapper.name=global", mapper={"min_num_matches": 5})
    assert recipe.mapper_options == {}


# --- the settings of a command --------------------------------------------------------------------


def test_the_settings_of_an_output_folder_are_kept(tmp_path: Path) -> None:
    first = recipe_for(tmp_path, Path("pictures"), None, {}, ["features.resize=500"])
    assert first.images.path == Path.cwd() / "pictures"
    first.write(tmp_path / "recipe.toml")
    later = recipe_for(tmp_path, None, None, {"seed": 2}, ["matcher.ratio=0.7"])
    assert later.features == first.features
    assert later.images.path == first.images.path
    assert (later.seed, later.matcher.config["ratio"]) == (2, 0.7)
    # Another recipe replaces the settings, but not the folder of images.
    other = recipe_for(tmp_path, None, "sift-video", {}, [])
    assert (other.pairs.method, other.images.path) == ("sequential", first.images.path)
    # With images given, the settings begin anew.
    anew = recipe_for(tmp_path, Path("pictures"), None, {}, []).features
    assert anew is not None
    assert anew.config["resize"] != 500


def test_an_output_folder_that_was_never_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not an output folder \(it has no recipe\.toml\)"):
        recipe_for(tmp_path, None, None, {}, [])


def test_the_recipe_named_like_the_extractor_is_taken(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, tmp_path, None, {"features": {"name": "sift"}}, [])
    assert recipe.tables["description"] == read_tables("sift")["description"]


def test_paths_are_kept_absolute(tmp_path: Path) -> None:
    settings = ["images.masks=masks", "pairs.method=file", "pairs.path=a/b.txt"]
    recipe = recipe_for(tmp_path, tmp_path, None, {}, settings)
    assert recipe.images.masks == Path.cwd() / "masks"
    assert recipe.pairs.path == Path.cwd() / "a" / "b.txt"
    assert recipe_for(tmp_path, tmp_path, None, {}, ["images.masks=null"]).images.masks is None
    with pytest.raises(ConfigError, match=r"images\.masks: .*path.*, got 5"):
        recipe_for(tmp_path, tmp_path, None, {}, ["images.masks=5"])


def test_a_written_recipe_is_toml_with_everything_that_was_set(tmp_path: Path) -> None:
    settings = ["mapper.mapper.init_min_tri_angle=5", "camera.params=600,320,240,0"]
    recipe = recipe_for(tmp_path, tmp_path, "sift", {}, settings)
    recipe.write(tmp_path / "recipe.toml")
    written = tomllib.loads((tmp_path / "recipe.toml").read_text(encoding="utf-8"))
    assert written == recipe.tables
    assert written["mapper"]["mapper"]["init_min_tri_angle"] == 5
    assert written["camera"]["params"] == "600,320,240,0"
