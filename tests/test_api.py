"""The package from a script."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sfm_match import Features, Matches, Pair, Recipe, Run, Store, evaluate_model
from sfm_match.spec import ConfigError
from tests.scenes import NAMES, NUM_PAIRS, make_images, make_truth, stores

SCRIPT = """
import sys
from sfm_match import Recipe, Run

recipe = Recipe.load("sift", images={"path": sys.argv[1]})
report = Run(sys.argv[2], recipe, threads=2).all()
print(report.models[0].images)
"""


def test_a_script_without_a_main_guard_may_use_several_processes(tmp_path: Path) -> None:
    images, script = make_images(tmp_path), tmp_path / "script.py"
    script.write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, str(script), str(images), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{len(NAMES)}\n", "")


def test_a_run_reports_what_it_does_and_its_stores_can_be_read(tmp_path: Path) -> None:
    images, truth = make_images(tmp_path), make_truth(tmp_path)
    steps: dict[str, list[int | None]] = {}

    @contextmanager
    def progress(stage: str, total: int | None) -> Iterator[Callable[[int], object]]:
        steps[stage] = [total]
        yield steps[stage].append

    recipe = Recipe.load("sift", "features.max_keypoints=500", seed=3, images={"path": images})
    run = Run(tmp_path / "out", recipe, threads=1, progress=progress)
    assert recipe.seed == 3
    assert run.extract().computed == len(NAMES)
    assert len(run.pairs().pairs) == NUM_PAIRS
    assert run.match().computed == NUM_PAIRS
    assert run.verify().computed == NUM_PAIRS
    counts = run.import_features().counts
    assert counts.images == len(NAMES)
    assert run.map().models[0].images == len(NAMES)
    assert run.evaluate(truth).num_registered == len(NAMES)
    assert evaluate_model(tmp_path / "out" / "model", truth).num_registered == len(NAMES)
    for stage, total in (("extract", len(NAMES)), ("match", NUM_PAIRS), ("verify", NUM_PAIRS)):
        assert steps[stage][0] == total
        assert sum(step for step in steps[stage][1:] if step is not None) == total

    features: Store[Features] = run.workspace.features
    matches: Store[Matches] = run.workspace.matches
    found = dict(features.items(features.entries()))
    assert sorted(map(str, found)) == list(NAMES)
    assert sum(map(len, found.values())) == counts.keypoints
    for pair, item in matches.items(matches.entries()):
        assert isinstance(pair, Pair)
        assert (item.indices[:, 0] < len(found[pair.a])).all()
        assert (item.indices[:, 1] < len(found[pair.b])).all()
    assert len(stores(tmp_path / "out")) == 3


def test_a_run_needs_a_folder_of_images(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"images\.path: the folder of images is not set"):
        Run(tmp_path / "out", Recipe.load("sift"))
    assert not (tmp_path / "out").exists()
