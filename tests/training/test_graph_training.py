from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from sfm_match.models.generative_graph import GenerativeGraph, NetworkConfig
from sfm_match.models.generative_graph_losses import UNMATCHED
from sfm_match.training.graph_evaluation import evaluate
from sfm_match.training.graph_pairs import dropped_pair, strongest_pair
from sfm_match.training.graph_training import (
    Batch,
    Trainer,
    TrainingConfig,
    loss_terms,
    make_batch,
    num_alone,
    rate_of,
)
from sfm_match.training.optimization import Step, learning_rate
from tests.models.generative_graphs import features

DIM, NUM = 16, 40


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def network(**options: Any) -> GenerativeGraph:
    torch.manual_seed(0)
    small = {"descriptor_dim": DIM, "channels": 16, "heads": 2, "num_queries": 4, "convolutions": 2}
    return GenerativeGraph(NetworkConfig(**{**small, "exchanges": 1, "decoders": 1} | options))


def batches(config: TrainingConfig, seed: int, num_pairs: int = 1) -> Iterator[Batch]:
    """Yield pairs of random keypoints of which 3 in 10 are missing on each side.

    Descriptors are so noisy that neighbours must help.
    """
    rng = np.random.default_rng(seed)
    while True:
        pairs = []
        for _ in range(num_pairs):
            whole = features(80, seed=int(rng.integers(2**31)), dim=DIM)
            pair = dropped_pair(rng, whole, 0.3, jitter=4.0, noise=1.0)
            pairs.append(strongest_pair(pair, NUM, NUM))
        yield make_batch(pairs, config)


def train(trainer: Trainer, source: Iterator[Batch]) -> list[Step]:
    return [trainer.step(next(source)) for _ in range(trainer.config.steps)]


def unseen(config: TrainingConfig, num: int = 4) -> list[Batch]:
    source = batches(config, seed=999)
    return [next(source) for _ in range(num)]


def mean_loss(losses: list[float]) -> float:
    return float(np.mean(losses))


@pytest.mark.parametrize("options", [{}, {"adjacency": "both", "super_nodes": 4}])
def test_a_short_training_gets_better_on_unseen_pairs(options: dict[str, Any]) -> None:
    config = TrainingConfig(
        steps=50, together=0.4, scalar_rate=10, warm_up=3, learning_rate=4e-3, self_connection=0
    )
    trainer = Trainer(network(**options), config)
    before = evaluate(trainer.network, unseen(config), config)
    steps = train(trainer, batches(config, seed=0))
    after = evaluate(trainer.network, unseen(config), config)
    assert [step.number for step in steps] == list(range(50))
    alone, whole = steps[:30], steps[30:]
    assert all("votes" in step.terms for step in alone)
    losses = [step.loss for step in alone]
    assert mean_loss(losses[-10:]) < 0.5 * mean_loss(losses[:10])
    assert after.loss < before.loss
    assert after.accuracy > before.accuracy + 0.05
    assert max(after.cosines) < 0.2
    cosines = [[v for k, v in step.terms.items() if k.startswith("cosine_")] for step in whole]
    assert {len(layers) for layers in cosines} == {len(after.cosines)}
    assert np.max(cosines) < 0.2
    assert all(np.isfinite(step.gradient) for step in steps)


@pytest.mark.slow
@pytest.mark.parametrize("together", [0.0, 0.6])
def test_a_longer_training_beats_nearest_neighbours_on_unseen_pairs(together: float) -> None:
    config = TrainingConfig(
        steps=300, together=together, scalar_rate=10, warm_up=20, learning_rate=3e-3
    )
    trainer = Trainer(network(), config)
    steps = train(trainer, batches(config, seed=0, num_pairs=2))
    last = steps[: num_alone(config)] if together == 0 else steps[num_alone(config) :]
    assert mean_loss([s.loss for s in last[-50:]]) < 0.6 * mean_loss([s.loss for s in last[:50]])
    after = evaluate(trainer.network, unseen(config, 12), config)
    assert after.precision > after.nearest_precision + 0.1
    assert after.recall > after.nearest_recall + 0.05


def test_the_black_box_solver_trains() -> None:
    options: dict[str, Any] = {"solver": "black_box", "hamming": 1.0, "likelihood": 0.0}
    plain: dict[str, Any] = {"outlier_mask": 0.0, "contrastive": 0.0, "self_connection": 0.0}
    config = TrainingConfig(
        steps=40, together=1, scalar_rate=10, warm_up=0, learning_rate=4e-3, **options, **plain
    )
    trainer = Trainer(network(), config)
    with torch.no_grad():  # where the likelihood's training would bring it, or nearly
        trainer.network.log_sharpness.fill_(float(np.log(12)))
        trainer.network.threshold.fill_(-5.0)
    steps = train(trainer, batches(config, seed=0))
    assert {k for k in steps[0].terms if not k.startswith("cosine_")} == {"hamming", "sharpness"}
    losses = [step.loss for step in steps]
    assert mean_loss(losses[-10:]) < 0.8 * mean_loss(losses[:10])


def test_the_terms_of_the_loss_are_those_with_a_weight() -> None:
    config = TrainingConfig(together=1, hamming=0.5, contrastive=0.0)
    net, batch = network(super_nodes=3), next(batches(TrainingConfig(), 0))
    terms = loss_terms(net(batch.graph0, batch.graph1), batch.truth, config)
    assert set(terms) == {"likelihood", "hamming", "self_connection", "outlier_mask", "membership"}
    step = Trainer(net, config).step(batch)
    expected = sum(getattr(config, name) * float(term.detach()) for name, term in terms.items())
    assert step.loss == pytest.approx(expected, rel=1e-5)


def test_the_learning_rate_rises_and_falls_with_either_part() -> None:
    config = TrainingConfig(steps=100, together=0.3, warm_up=5, learning_rate=1.0)
    rates = [rate_of(number, config) for number in range(100)]
    assert max(rates[:70]) == max(rates[70:]) == pytest.approx(1.0)
    assert rates[0] == rates[70] == pytest.approx(0.2)
    assert max(rates[69], rates[99]) < 0.01


def test_the_learning_rate_rises_and_falls() -> None:
    config = TrainingConfig(steps=100, warm_up=10, learning_rate=1.0)
    rates = [learning_rate(number, config) for number in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[-1] < 0.001
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_evaluation_counts_against_the_truth() -> None:
    config = TrainingConfig(together=0)
    rng = np.random.default_rng(0)
    whole = features(70, dim=DIM)
    pair = strongest_pair(dropped_pair(rng, whole, 0.3, jitter=0.0, noise=0.0), NUM, NUM)
    net = network()
    found = evaluate(net, [make_batch([pair], config)], config)
    assert found.nearest_recall == 1.0
    # Untrained it is mutual nearest neighbours.
    assert (found.recall, found.precision) == (found.nearest_recall, found.nearest_precision)
    assert net.training


def test_false_positives_are_counted_among_mutual_nearest_neighbours() -> None:
    config = TrainingConfig(together=0)
    whole = features(250, dim=DIM)
    made = dropped_pair(np.random.default_rng(0), whole, 0.4, jitter=0.0, noise=0.9)
    pair = strongest_pair(made, 120, 120)
    batch = make_batch([pair], config)
    found = evaluate(network(), [batch], config)
    cosines = (batch.graph0.descriptors @ batch.graph1.descriptors.mT)[0].numpy()
    right: list[float] = []
    wrong: list[float] = []
    for row, column in enumerate(cosines.argmax(axis=1)):
        if cosines[:, column].argmax() == row and pair.partners0[row] >= UNMATCHED:
            side = right if pair.partners0[row] == column else wrong
            side.append(cosines[row, column])
    least = sorted(right, reverse=True)[int(np.ceil(0.95 * len(right))) - 1]
    passed = [cosine >= least for cosine in wrong]
    assert 0 < sum(passed) < len(passed)
    assert found.nearest_fpr95 == np.mean(passed)
    assert 0 <= found.fpr95 <= 1
