from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from sfm_match.spec import ConfigError
from sfm_match.training.loop import CHECKPOINT, LOSSES
from sfm_match.training.task import CARD, WEIGHTS, task_names
from tests.cli.training import train, write_pictures
from tests.components import parse
from tests.training.test_warps import picture

SMALL = (
    *("steps=4", "warm_up=1", "batch=1", "size=64", "border=8", "precision=fp32"),
    *("made_up=0", "rendered=0"),
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), picture)


def run(*arguments: Any, options: tuple[str, ...] = SMALL) -> Any:
    return train(*arguments, options=options)


def test_a_training_leaves_weights_that_can_be_used(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = run("r2d2", pictures, out)
    assert set(found["after"]) == {"repeatability", "matching_score", "accuracy_1", "accuracy_3"}
    with (out / LOSSES).open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [0, 1, 2, 3]
    with PillowImage.open(out / "losses.png") as curve:
        assert curve.size[0] > 500
    card = (out / CARD).read_text()
    assert f"2 photographs of {pictures}" in card
    assert "| steps | 4 |" in card
    assert "seed 0" in card
    extractor = parse(
        "extractors",
        "r2d2",
        weights=str(out / WEIGHTS),
        min_size=100,
    ).build()
    features = extractor(picture(0, (121, 150)))
    assert len(features) > 20
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-2)
    # It is where another one can begin.
    longer = run("r2d2", pictures, tmp_path / "longer", options=(*SMALL, f"start={out / WEIGHTS}"))
    assert longer["before"] == pytest.approx(found["after"], abs=0.05)
    # Run again, it has nothing to do but to say the same.
    before = (out / CHECKPOINT).stat().st_mtime_ns
    again = run("r2d2", pictures, out)
    assert (out / CHECKPOINT).stat().st_mtime_ns == before
    assert again["after"] == found["after"]
    assert again["before"] == found["before"]
    with pytest.raises(ConfigError, match="holds a training with another seed"):
        run("r2d2", pictures, out, "--seed", "1")
    with pytest.raises(ConfigError, match="holds a training with another learning_rate"):
        run("r2d2", pictures, out, options=(*SMALL, "learning_rate=0.1"))


def test_what_cannot_be_trained(pictures: Path, tmp_path: Path) -> None:
    assert "r2d2" in task_names()
    with pytest.raises(ConfigError, match="nothing named 'r2d3' can be trained; did you mean"):
        run("r2d3", pictures, tmp_path / "a")
    with pytest.raises(ConfigError, match=r"r2d2.stepz: no such option; did you mean 'steps'"):
        run("r2d2", pictures, tmp_path / "b", options=("stepz=3",))
    with pytest.raises(ConfigError, match="all shares of the data are 0"):
        run("r2d2", pictures, tmp_path / "c", options=(*SMALL, "photographs=0", "mixed=0"))
    with pytest.raises(ConfigError, match="KEY=VALUE, without a table"):
        run("r2d2", pictures, tmp_path / "d", options=("training.steps=3",))


def test_a_border_that_leaves_nothing_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="border 32 leaves nothing of crops of 64 pixels"):
        run("r2d2", pictures, tmp_path / "out", options=("size=64",))
