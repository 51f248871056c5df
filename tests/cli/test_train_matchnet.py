from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sfm_match.models.matchnet import load_network
from sfm_match.spec import ConfigError, Spec
from sfm_match.training.loop import LOSSES
from sfm_match.training.task import CARD, WEIGHTS, task_names
from sfm_match.types import View
from tests.cli.training import train, write_pictures
from tests.training.test_warps import picture

SMALL = ("steps=4", "warm_up=1", "batch=4", "size=160", "made_up=0", "rendered=0", "pictures=3")
TINY = (*SMALL, "tests=2", "hidden=48", "bottleneck=24")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), picture)


def run(*arguments: Any, options: tuple[str, ...] = TINY) -> Any:
    return train("matchnet", *arguments, options=options)


def test_trained_weights_are_those_of_extractor_and_matcher(pictures: Path, tmp_path: Path) -> None:
    assert "matchnet" in task_names()
    out = tmp_path / "out"
    found = run(pictures, out)
    figures = {"fpr95", "near_fpr95", "detector_fpr95", "detector_near_fpr95"}
    assert set(found["after"]) == set(found["before"]) == figures
    assert all(0 <= value <= 1 for value in found["after"].values())
    with (out / LOSSES).open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [0, 1, 2, 3]
    card = (out / CARD).read_text()
    assert f"2 photographs of {pictures}" in card
    assert "| hidden | 48 |" in card
    stored = load_file(out / WEIGHTS)
    assert {value.dtype for value in stored.values()} == {torch.float16}
    config = load_network(out / WEIGHTS).config
    assert (config.bottleneck, config.hidden) == (24, 48)
    extractor = Spec.parse("extractors", "matchnet", {"weights": str(out / WEIGHTS)})
    features = extractor.build()(picture(0, (150, 180)))
    assert len(features) > 20
    assert features.descriptors.shape[1] == 24
    matcher = Spec.parse("matchers", "matchnet", {"min_probability": 0.0}, (extractor,)).build()
    one = matcher.encode(View(None, features))
    (matches,) = matcher.match([(one, one)])
    # A keypoint's best partner among the same keypoints is itself, or one at the same place.
    places = features.keypoints[matches.indices]
    assert np.median(np.abs(places[:, 0] - places[:, 1])) == 0


def test_patches_made_anew_are_others(pictures: Path, tmp_path: Path) -> None:
    once = run(pictures, tmp_path / "once", options=(*TINY, "precision=fp32"))
    anew = run(pictures, tmp_path / "anew", options=(*TINY, "precision=fp32", "renew=2"))
    assert once["before"] == anew["before"]
    rows = []
    for name in ("once", "anew"):
        with (tmp_path / name / LOSSES).open(newline="") as file:
            rows.append([float(row["loss"]) for row in csv.DictReader(file)])
    assert rows[0][:2] == rows[1][:2]
    assert rows[0][2] != rows[1][2]


def test_too_little_to_train_on_is_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too few for a batch of 4000"):
        run(pictures, tmp_path / "a", options=(*TINY, "batch=4000"))
    with pytest.raises(ConfigError, match="too few to judge the training; take more with tests="):
        run(pictures, tmp_path / "b", options=(*TINY, "tests=1"))
    with pytest.raises(ConfigError, match=r"detector: .*did you mean 'sift'"):
        run(pictures, tmp_path / "c", options=(*TINY, "detector=sifd"))
