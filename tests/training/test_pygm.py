"""Training of PCA-GM, IPCA-GM and CIE with the CNN in the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from sfm_match.models import vgg
from sfm_match.spec import ConfigError, Spec, parse_config
from sfm_match.stages.match_points import match_points
from sfm_match.training import pygm_task
from sfm_match.training.loop import run_training
from sfm_match.training.pygm import PygmTrainer, Solver, permutation_loss
from sfm_match.training.pygm_task import Config
from sfm_match.training.task import WEIGHTS, Task, load_task, train
from tests.training.resuming import curve
from tests.training.test_warps import picture

SOLVERS = get_args(Solver)
SMALL: dict[str, Any] = {
    "size": 64,
    "made_up": 0,
    "rendered": 0,
    "steps": 25,
    "warm_up": 5,
    "batch": 3,
    "most": 12,
    "cnn_width": 32,
    "channels": 32,
    "learning_rate": 5e-3,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        PillowImage.fromarray(picture(number, (150, 200))).save(folder / f"{number}.png")
    return str(folder)


@pytest.fixture(autouse=True)
def _few_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pygm_task, "_TESTS", 4)


def quiet(_: str, __: int) -> Any:
    return lambda _: None


def prepared(solver: str, data: str, **options: Any) -> Task:
    torch.set_num_threads(1)
    module = load_task(solver.replace("_", "-"))
    config = parse_config(Config, SMALL | options, solver)
    task: Task = module.prepare(config, data, 0, quiet)
    return task


def trainer_of(task: Task) -> PygmTrainer:
    assert isinstance(task.trainer, PygmTrainer)
    return task.trainer


# --- the loss -------------------------------------------------------------------------------------


def test_the_permutation_loss_is_its_formula() -> None:
    torch.manual_seed(0)
    scores = torch.rand(3, 5, 5).clamp(0.01, 0.99).requires_grad_()
    partners = torch.eye(5)[torch.stack([torch.randperm(5) for _ in range(3)])]
    partners[1, 2] = 0  # has no partner
    found = permutation_loss(scores, partners)
    expected = 0.0
    for x, s in zip(partners.flatten().tolist(), scores.flatten().tolist(), strict=True):
        expected -= x * np.log(s) + (1 - x) * np.log(1 - s)
    assert float(found.detach()) == pytest.approx(expected / 15, rel=1e-5)
    (gradient,) = torch.autograd.grad(found, scores)
    slope = (1 - partners) / (1 - scores) - partners / scores
    torch.testing.assert_close(gradient, slope.detach() / 15)
    assert float(permutation_loss(partners, partners)) == 0


# --- training -------------------------------------------------------------------------------------


def test_the_terms_of_a_step_are_smoothness_and_gradients(pictures: str) -> None:
    task = prepared("pca_gm", pictures, layers=3)
    trainer, batch = trainer_of(task), task.make_batch(0)
    trainer.cnn.train()
    features = trainer._features(batch)[0].detach()
    expected, num = [], features.shape[1]
    for nodes in features:
        directions = nodes / nodes.norm(dim=1, keepdim=True)
        cosines = directions @ directions.T
        expected += [float(cosines[i, j]) for i in range(num) for j in range(num) if i != j]
    step = trainer.step(batch)
    assert step.terms["cosine_features"] == pytest.approx(np.mean(expected), abs=1e-4)
    smooth = [step.terms[f"cosine_{name}"] for name in ("features", "0", "1", "2")]
    assert smooth == sorted(smooth)  # of untrained layers
    assert smooth[-1] > 0.9
    parts = {name: value for name, value in step.terms.items() if name.startswith("gradient_")}
    assert {"gradient_cnn", "gradient_gnn_layer_2", "gradient_cross_graph_1"} < set(parts)
    assert min(parts.values()) > 0
    assert np.linalg.norm(list(parts.values())) == pytest.approx(step.gradient, rel=1e-4)


def test_taken_up_again_the_curve_is_the_same(pictures: str, tmp_path: Path) -> None:
    solver = "cie"
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = prepared(solver, pictures)
    run_training(whole.trainer, whole.make_batch, 5, tmp_path / "whole")
    first = prepared(solver, pictures)
    run_training(first.trainer, first.make_batch, 3, tmp_path / "parts")
    second = prepared(solver, pictures)
    run_training(second.trainer, second.make_batch, 5, tmp_path / "parts")
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert [row["step"] for row in curve(tmp_path / "whole")] == [0, 1, 2, 3, 4]
    for name, values in whole.weights().items():
        assert torch.equal(values, second.weights()[name]), name


# --- its weights ----------------------------------------------------------------------------------


def annotated(folder: Path) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    """Two pictures of one thing, and ten points of it in each."""
    whole = picture(7, (260, 330))
    points = np.random.default_rng(2).uniform((50, 50), (270, 210), (10, 2))
    for name, (x, y) in (("a", (0, 0)), ("b", (30, 20))):
        PillowImage.fromarray(whole[y : y + 240, x : x + 300]).save(folder / f"{name}.png")
        np.savetxt(folder / f"{name}.txt", points - [x, y])
    return (folder / "a.png", folder / "b.png"), (folder / "a.txt", folder / "b.txt")


@pytest.mark.parametrize("solver", SOLVERS)
def test_it_learns_and_its_weights_match_annotated_points(
    solver: str, pictures: str, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    name, out = solver.replace("_", "-"), tmp_path / "out"
    found = train(name, pictures, out, SMALL, 0, quiet)
    losses = [row["loss"] for row in curve(out)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    # Of pictures that no step saw.
    before, after = found["before"], found["after"]
    assert set(after) == {"accuracy_warped", "features_warped", "chance"}
    assert after["chance"] == before["chance"] == pytest.approx(0.1, abs=0.025)
    assert after["accuracy_warped"] > max(0.5, before["accuracy_warped"] + 0.15)
    options = {"solver": solver, "weights": str(out / WEIGHTS), "dustbin": 0.0}
    used = options | {"node_features": str(out / WEIGHTS), "graph": "delaunay"}
    matched = match_points(*annotated(tmp_path), Spec.parse("matchers", "pygm", used))
    assert len(matched.matches) == 10
    assert matched.accuracy >= 0.7
    with pytest.raises(ConfigError, match="holds the CNN of its node features too: set node_f"):
        Spec.parse("matchers", "pygm", options).build()


def test_a_training_begins_with_the_weights_of_another(pictures: str, tmp_path: Path) -> None:
    train("pca-gm", pictures, tmp_path, SMALL | {"steps": 2}, 0, quiet)
    file = str(tmp_path / WEIGHTS)
    begun = prepared("pca_gm", pictures, start=file, cnn_width=64)
    assert begun.data[-1] == f"from the weights {file}"
    kept = trainer_of(begun)
    assert kept.cnn.width == 32
    assert [group["times"] for group in kept.optimizer.param_groups] == [1.0, 0.01]
    frozen = prepared("pca_gm", pictures, cnn=file, freeze_cnn=True)
    before = {name: v.clone() for name, v in trainer_of(frozen).cnn.state_dict().items()}
    step = frozen.trainer.step(frozen.make_batch(0))
    assert "gradient_cnn" not in step.terms
    for name, values in trainer_of(frozen).cnn.state_dict().items():
        assert torch.equal(values, before[name]), name
        assert torch.equal(values, kept.cnn.state_dict()[name]), name
    # Its CNN is that of the file, which node_features can name.
    assert not any(name.startswith(vgg.PREFIX) for name in frozen.weights())
    assert any(name.startswith(vgg.PREFIX) for name in begun.weights())


def test_settings_that_contradict_each_other(pictures: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fewest is 13, which is above most, 12"):
        prepared("cie", pictures, fewest=13)
    with pytest.raises(ConfigError, match=r"pca_gm.layers: .* greater than or equal to 2"):
        prepared("pca_gm", pictures, layers=1)
    train("cie", pictures, tmp_path, SMALL | {"steps": 1}, 0, quiet)
    file = str(tmp_path / WEIGHTS)
    with pytest.raises(ConfigError, match="pca_gm: these are no weights of pca_gm"):
        prepared("pca_gm", pictures, start=file)
    other = tmp_path / "vgg.pt"
    torch.save(vgg.Vgg16(8).state_dict(), other)
    with pytest.raises(ConfigError, match="for node features of 64 numbers, and the CNN gives 16"):
        prepared("cie", pictures, start=file, cnn=str(other))
    with pytest.raises(LookupError, match="neither the name of a checkpoint nor a file"):
        prepared("cie", pictures, cnn="vgg16")


@pytest.mark.slow
def test_rendered_rooms_are_tested_on_their_own(pictures: str) -> None:
    task = prepared("pca_gm", pictures, photographs=0, rendered=1, num_rooms=1, num_views=2)
    assert {"accuracy_rendered", "accuracy_warped"} < set(task.evaluate())
    assert any("2 views of 1 rooms" in line for line in task.data)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_some_hundred_steps_match_nearly_all(solver: str, pictures: str) -> None:
    options = {"steps": 200, "learning_rate": 2e-3, "batch": 4}
    task = prepared(solver, pictures, **options)
    for number in range(task.steps):
        task.trainer.step(task.make_batch(number))
    assert task.evaluate()["accuracy_warped"] > 0.9
