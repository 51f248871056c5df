"""Wrong recipes: a line that names the file, the place in it and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kill_at_steps import BASE
from tests.resume.runs import Reference
from tests.scenes import call

SIFT = '[features]\nname = "sift"\n'
MATCHER = '[matcher]\nname = "nearest"\n'
BOTH = SIFT + MATCHER


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SIFT + "max_keypoints =\n", "not valid TOML: Invalid value (at line 3, column 16)"),
        (SIFT + "[features]\n", "not valid TOML: Cannot declare ('features',) twice (at line 3, "),
        ('[features]\nname = "sift\n', "not valid TOML: Illegal character '\\n' (at line 2, "),
        ("a b\n", "not valid TOML: Expected '=' after a key in a key/value pair (at line 1, "),
        (SIFT.encode("utf-16"), "not in UTF-8 (byte 0): save it as UTF-8 text"),
        (SIFT, "matcher.name: the recipe names none of the matchers"),
        ("[featurs]\n", "[featurs]: no such table; did you mean 'features'"),
        ('features = "sift"\n', "features: is a table of options, got 'sift'"),
        (MATCHER + "[features]\nname = 3\n", "features.name: must be a name, got 3"),
        (
            MATCHER + '[features]\nname = "sfit"\n',
            "no extractor named 'sfit'; did you mean 'sift'",
        ),
        (BOTH + "mutal = true\n", "matcher.mutal: no such option; did you mean 'mutual'"),
        (BOTH + 'ratio = "wide"\n', "matcher.ratio: Input should be a valid number"),
        (BOTH + "[mapper]\nname = ['global']\n", "mapper.name: must be text, got ['global']"),
        (BOTH + '[mapper]\nname = "globl"\n', "mapper.name: no mapper 'globl'; did you mean 'glob"),
        (BOTH + "[mapper]\nba_gpu = 1\n", "mapper.ba_gpu: no such option; did you mean 'ba_"),
        (BOTH + "[verify]\nransac = 3\n", "verify.ransac: is a table of options, got 3"),
        (BOTH + "[camera]\nmodel = 'PINHOL'\n", "no such camera model; did you mean 'PINHOLE'"),
        (BOTH + "[pairs]\noverlap = 0\n", "pairs.overlap: Input should be greater than 0, got 0"),
        (BOTH + "[images]\nmask = 'x'\n", "images.mask: no such option; did you mean 'masks'"),
        ("seed = 1.5\n" + BOTH, "seed: must be a whole number from 0 on, got 1.5"),
        ("description = 3\n" + BOTH, "description: must be text, got 3"),
    ],
)
def test_a_wrong_recipe_is_one_line_with_its_name_and_the_place(
    finished: Reference, tmp_path: Path, content: str | bytes, message: str
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = call("run", finished.images, tmp_path / "out", "-q", "--recipe", recipe)
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {recipe}: ")
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("features.name=3", "features.name: must be a name, got 3"),
        ("mapper.name=3", "mapper.name: must be text, got 3"),
        ("features=sift", "features: is a table of options, got 'sift'"),
        ("matcher.mutal=true", "matcher.mutal: no such option; did you mean 'mutual'"),
        ("matcher.ratio=", "matcher.ratio: Input should be a valid number"),
        ("camera.mode=singel", "camera.mode: Input should be 'auto', 'single', 'per_folder' or"),
        ("verify.ransac.max_eror=1", "did you mean 'max_error'"),
        ("images.masks=/nowhere", "/nowhere: no such"),
    ],
)
def test_a_wrong_setting_of_the_command_line_is_not_blamed_on_the_recipe(
    finished: Reference, tmp_path: Path, setting: str, message: str
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(BOTH)
    command = ("run", finished.images, tmp_path / "out", *BASE, "--recipe", recipe, "-o", setting)
    outcome = call(*command)
    assert outcome.code == 1
    assert message in outcome.stderr
    assert str(recipe) not in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


@pytest.mark.parametrize("content", ["", "images = 3\n", "[images]\npath = 3\n"])
def test_a_kept_recipe_without_its_images_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "recipe.toml").write_text(content)
    outcome = call("match", tmp_path)
    assert outcome.code == 1
    expected = f"error: {tmp_path / 'recipe.toml'}: images.path: the folder of images is missing"
    assert outcome.stderr.startswith(expected)
