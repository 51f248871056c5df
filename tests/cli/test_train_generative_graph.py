from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sfm_match.spec import ConfigError, Spec, parse_config
from sfm_match.stages.recipe import parse_settings
from sfm_match.training.loop import run_training
from sfm_match.training.task import CARD, WEIGHTS, Task, load_task, task_names
from sfm_match.types import View
from tests.cli.training import train, write_pictures
from tests.pictures import noise_picture
from tests.training.resuming import curve

TINY = (
    *(
        "steps=3",
        "together=0.4",
        "warm_up=1",
        "size=128",
        "made_up=0",
        "rendered=0",
        "max_keypoints=100",
    ),
    *("pairs=3", "tests=2", "fewest_matches=10", "channels=16", "num_queries=4"),
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(
        tmp_path_factory.mktemp("pictures"), lambda number: noise_picture(240, 320, number)
    )


def run(*arguments: Any, options: tuple[str, ...] = TINY) -> Any:
    return train("generative-graph", *arguments, options=options)


def test_trained_weights_are_those_of_the_matcher(pictures: Path, tmp_path: Path) -> None:
    assert "generative-graph" in task_names()
    out = tmp_path / "out"
    found = run(pictures, out)
    both = ("recall", "precision", "fpr95")
    names = {f"warped_{name}" for name in ("loss", *both, *(f"nearest_{one}" for one in both))}
    assert set(found["after"]) == set(found["before"]) == names
    assert found["after"]["warped_nearest_recall"] == found["before"]["warped_nearest_recall"] > 0.2
    rows = curve(out)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert {"likelihood", "sharpness", "cosine_0", "cosine_7", "gradient"} <= set(rows[-1])
    assert rows[0]["sharpness"] == pytest.approx(30)
    card = (out / CARD).read_text()
    assert "keypoints of sift" in card
    assert "| channels | 16 |" in card
    assert {v.dtype for v in load_file(out / WEIGHTS).values()} == {torch.float16}
    features = Spec.parse("extractors", "sift", {"max_keypoints": 100}).build()(
        noise_picture(150, 180)
    )
    matcher = Spec.parse("matchers", "generative_graph", {"weights": str(out / WEIGHTS)}).build()
    one = matcher.encode(View(None, features))
    (matches,) = matcher.match([(one, one)])
    assert len(matches) > 0.5 * len(features)
    places = features.keypoints[matches.indices]
    assert np.median(np.abs(places[:, 0] - places[:, 1])) == 0


def prepared(pictures: Path) -> Task:
    torch.set_num_threads(1)
    module = load_task("generative-graph")
    options = parse_settings(TINY)
    config = parse_config(module.Config, {**options, "tests": 1}, "generative-graph")
    task: Task = module.prepare(config, str(pictures), 0, lambda *_: lambda _: None)
    return task


def test_a_training_taken_up_again_goes_on_as_if_never_stopped(
    pictures: Path, tmp_path: Path
) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()

    class EnoughError(Exception):
        pass

    def stop_after_two(step: Any) -> None:
        if step.number == 1:
            raise EnoughError

    def go_on(task: Task, name: str, **options: Any) -> None:
        run_training(
            task.trainer, task.make_batch, task.steps, tmp_path / name, save_every=0, **options
        )

    whole, resumed = prepared(pictures), prepared(pictures)
    go_on(whole, "whole")
    with pytest.raises(EnoughError):
        go_on(prepared(pictures), "parts", progress=stop_after_two)
    assert len(curve(tmp_path / "parts")) == 1  # the second step was not kept
    go_on(resumed, "parts")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    for name, value in whole.weights().items():
        assert torch.equal(value, resumed.weights()[name]), name


@pytest.mark.slow
def test_rooms_give_pairs_too(pictures: Path, tmp_path: Path) -> None:
    rooms = ("rendered=1", "photographs=0", "num_rooms=1", "num_views=3", "fewest_matches=3")
    found = run(pictures, tmp_path / "out", options=(*TINY, *rooms))
    assert found["after"]["rendered_nearest_recall"] > 0.1
    assert "3 views of 1 rooms" in (tmp_path / "out" / CARD).read_text()


def test_what_cannot_be_trained_on_is_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of 100 pairs of pictures has 5000 keypoints"):
        run(pictures, tmp_path / "a", options=(*TINY, "size=64", "fewest_matches=5000"))
    with pytest.raises(ConfigError, match="does not tell which keypoints have no partner"):
        run(pictures, tmp_path / "b", options=(*TINY, "model=somewhere"))
    with pytest.raises(ConfigError, match=r"features: .*did you mean 'sift'"):
        run(pictures, tmp_path / "c", options=(*TINY, "features=sifd"))
