from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kornia.feature import LoFTR
from PIL import Image as PillowImage

from sfm_match.geometry.raster import to_grey
from sfm_match.models.loftr_network import has_fine_stage, network_config, new_network
from sfm_match.spec import ConfigError, Spec
from sfm_match.training.loftr import LoFTRTrainer, LoFTRTraining, grey, with_fine_stage
from sfm_match.training.pairs import Batch, make_batch
from sfm_match.training.task import CARD, WEIGHTS, task_names, train
from sfm_match.training.tasks.coarse_16_fine import evaluate
from sfm_match.training.warps import Warps, warping
from sfm_match.types import View
from tests.training.resuming import assert_resumes
from tests.training.test_warps import STILL, picture

SMALL = LoFTRTraining(steps=6, warm_up=2, batch=1, width=16)
# Shifts only, so that random weights find true matches too.
SOURCE = warping([picture(0)], Warps(96, max_zoom=1.0, turn=0, tilt=0, shift=0.1), STILL)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def coarse_network() -> LoFTR:
    """Return a small network without a fine stage, of random weights."""
    torch.manual_seed(0)
    config = network_config(coarse_16=True)
    config["match_coarse"].update(border_rm=1)
    network = new_network(config).eval()
    del network.fine_preprocess, network.loftr_fine
    return network


def trainer(config: LoFTRTraining = SMALL) -> LoFTRTrainer:
    network = coarse_network()
    return LoFTRTrainer(with_fine_stage(network, config.width), config)


def batch_of(number: int) -> Batch:
    return make_batch([(SOURCE, 1.0)], 1, number, SMALL.batch)


def same_tensors(a: LoFTR, b: LoFTR, chosen: Callable[[str], bool]) -> bool:
    others = b.state_dict()
    return all(torch.equal(v, others[k]) for k, v in a.state_dict().items() if chosen(k))


def is_coarse(name: str) -> bool:
    trunk = ("backbone.layer3_out", "backbone.layer2_out")
    return name.startswith(("backbone.", "loftr_coarse.")) and not name.startswith(trunk)


def test_the_fine_stage_is_added_and_the_coarse_network_stays() -> None:
    coarse = coarse_network()
    made = with_fine_stage(coarse, 24)
    assert has_fine_stage(made)
    assert made.fine_preprocess.merge_feat.weight.shape == (24, 48)
    assert same_tensors(coarse, made, is_coarse)
    assert made.coarse_matching.border_rm == 1
    assert with_fine_stage(made, 16) is made


def test_the_losses_fall_and_points_get_nearer() -> None:
    rng = np.random.default_rng(0)
    pairs = [SOURCE(rng) for _ in range(4)]
    batch = make_batch([(lambda rng: pairs[int(rng.integers(4))], 1.0)], 0, 0, 4)
    config = LoFTRTraining(steps=60, warm_up=5, learning_rate=4e-3, average=0.9, width=16)
    learning = trainer(config)
    steps = [learning.step(batch) for _ in range(config.steps)]
    first, last = (np.mean([step.loss for step in part]) for part in (steps[:5], steps[-5:]))
    assert last < 0.5 * first
    assert steps[-1].terms["pixels"] < 0.7 * steps[0].terms["pixels"]
    found = evaluate(learning, pairs)
    assert found["matches"] > 3
    assert found["precision"] > 0.5
    assert found["fine_error"] < 0.8 * found["coarse_error"]
    # What is frozen has not moved, statistics of batches included; what is not has.
    assert same_tensors(coarse_network(), learning.network, is_coarse)
    derived = {name for name, p in learning.network.named_parameters() if p.requires_grad}
    assert not any(is_coarse(name) for name in derived)
    assert not same_tensors(trainer(config).network, learning.network, lambda k: not is_coarse(k))


@pytest.mark.parametrize("assignment", ["dual_softmax", "sinkhorn"])
def test_the_coarse_network_is_tuned_along(assignment: Any) -> None:
    config = LoFTRTraining(
        steps=12, warm_up=0, width=16, batch=1, coarse="tuned", coarse_rate=1, assignment=assignment
    )
    learning = trainer(config)
    steps = [learning.step(batch_of(0)) for _ in range(config.steps)]
    assert set(steps[0].terms) == {"coarse", "fine", "pixels"}
    assert steps[0].loss == pytest.approx(steps[0].terms["coarse"] + steps[0].terms["fine"])
    assert steps[-1].terms["coarse"] < 0.95 * steps[0].terms["coarse"]
    assert not same_tensors(coarse_network(), learning.network, is_coarse)
    moved = float(learning.bin_score.detach()) != 1.0
    assert moved == (assignment == "sinkhorn")
    assert ("coarse_matching.bin_score" in learning.weights()) == (assignment == "sinkhorn")


def test_a_pair_without_truth_teaches_nothing_and_breaks_nothing() -> None:
    learning, batch = trainer(LoFTRTraining(weight_decay=0, warm_up=0, width=16)), batch_of(0)
    step = learning.step(Batch(batch.images0, batch.images1, torch.full_like(batch.flow, np.nan)))
    assert step.loss == step.gradient == 0
    assert np.isnan(step.terms["pixels"])


def test_grey_is_what_the_matcher_sees() -> None:
    image = picture(0, (64, 64))
    seen = to_grey(image)
    batch = torch.from_numpy(image).movedim(2, 0)[None].float() / 255
    assert np.abs(grey(batch)[0, 0].numpy() * 255 - seen).max() <= 0.51  # rounded


def test_taken_up_again_the_curve_is_the_same(tmp_path: Path) -> None:
    config = LoFTRTraining(steps=6, warm_up=2, batch=1, width=16, coarse="tuned")
    assert_resumes(lambda: trainer(config), batch_of, config.steps, tmp_path, broken_off=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training of the task."""
    folder = tmp_path_factory.mktemp("loftr")
    (folder / "pictures").mkdir()
    PillowImage.fromarray(picture(0)).save(folder / "pictures" / "0.png")
    torch.save(coarse_network().state_dict(), folder / "coarse.pt")
    options = {"steps": 3, "batch": 1, "width": 24, "size": 96, "made_up": 0, "rendered": 0}
    start = {"start": str(folder / "coarse.pt")}
    data = str(folder / "pictures")
    train("coarse-16-fine", data, folder / "out", options | start, 0, lambda *_: lambda _: None)
    return folder


def test_the_weights_of_a_training_move_the_points_of_the_matcher(trained: Path) -> None:
    assert "coarse-16-fine" in task_names()
    card = (trained / "out" / CARD).read_text()
    assert "| fine_error |" in card
    assert "coarse.pt, for the coarse network" in card
    image = picture(0, (128, 160))
    found = {}
    for refine in ("none", "second", "both"):
        options = {"weights": str(trained / "out" / WEIGHTS), "threshold": 0.0, "border": 1}
        matcher = Spec.parse("matchers", "loftr", options | {"refine": refine}).build()
        encoded = matcher.encode(View(image, None))
        (found[refine],) = matcher.match([(encoded, encoded)])
    none, second, both = found.values()
    assert len(none) == len(second) == len(both) > 10
    np.testing.assert_array_equal(none.points1 % 16, 0)
    np.testing.assert_array_equal(second.points0 % 16, 0)
    moves = np.abs(second.points1 - none.points1)
    assert 0 < moves.max() <= 8
    halves = (second.points1 - none.points1) / 2
    np.testing.assert_allclose(both.points1 - none.points1, halves, atol=1e-4)
    assert np.abs(both.points0 - none.points0).max() > 0


def test_what_cannot_be_trained(trained: Path, tmp_path: Path) -> None:
    def run(**options: Any) -> None:
        train(
            "coarse-16-fine",
            str(trained / "pictures"),
            tmp_path / "out",
            options,
            0,
            lambda *_: lambda _: None,
        )

    with pytest.raises(ConfigError, match=r"coarse-16-fine\.model: a fine stage needs dense truth"):
        run(model="model")
    with pytest.raises(ConfigError, match=r"coarse-16-fine\.size"):
        run(size=200)
    torch.save(LoFTR(None, network_config()).state_dict(), tmp_path / "published.pt")
    with pytest.raises(ConfigError, match=r"start: .*published\.pt is the published LoFTR"):
        run(start=str(tmp_path / "published.pt"))
