from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfm_match.models.matchnet import MatchNet, NetworkConfig, initialise
from sfm_match.training.matchnet import (
    MatchNetTrainer,
    MatchNetTraining,
    PatchBatch,
    contrastive,
    with_nearest,
)
from sfm_match.training.patch_batches import Draw, draw_batch
from sfm_match.training.patch_pairs import Cut, PatchPairs, gather
from sfm_match.training.warps import Warps, warping
from tests.training.resuming import assert_resumes
from tests.training.test_patch_pairs import SIZE, sift
from tests.training.test_warps import STILL, picture

SMALL = MatchNetTraining(steps=5, warm_up=2)
DRAW = Draw(batch=8, together=4)


@cache
def pool() -> PatchPairs:
    source = warping([picture(0), picture(1)], Warps(size=SIZE), STILL)
    return gather(source, sift(), Cut(), 4, 200, (0,))


def batch_of(number: int) -> PatchBatch:
    return draw_batch(pool(), DRAW, 1, number)


def trainer(config: MatchNetTraining = SMALL) -> MatchNetTrainer:
    torch.set_num_threads(1)
    network = MatchNet(NetworkConfig(32, 64))
    initialise(network, torch.Generator().manual_seed(0))
    return MatchNetTrainer(network, config)


def test_the_loss_falls() -> None:
    learning = trainer(MatchNetTraining(steps=30, warm_up=3))
    steps = [learning.step(batch_of(0)) for _ in range(30)]
    assert [step.number for step in steps] == list(range(30))
    for name in ("cross_entropy", "contrast"):
        first, last = (np.mean([s.terms[name] for s in part]) for part in (steps[:5], steps[-5:]))
        assert last < 0.6 * first, name
    assert np.mean([step.terms["right"] for step in steps[-5:]]) > 0.85
    assert all(np.isfinite(step.gradient) for step in steps)
    assert steps[0].loss == pytest.approx(
        steps[0].terms["cross_entropy"] + steps[0].terms["contrast"]
    )
    # The averaged network follows.
    a, b = learning.network.state_dict(), learning.averaged.state_dict()
    distance = float((a["metric.0.weight"] - b["metric.0.weight"]).norm())
    assert 0 < distance < 0.2 * float(a["metric.0.weight"].norm())


def test_an_untrained_network_knows_nothing() -> None:
    """The loss of half and half, where the network says half for each, is that of a coin."""
    learning = trainer(MatchNetTraining(contrast=0, precision="fp32"))
    with torch.no_grad():
        for parameter in learning.network.metric[-1].parameters():
            parameter.zero_()
    step = learning.step(batch_of(0))
    assert step.loss == pytest.approx(math.log(2), rel=1e-5)
    assert step.terms["right"] == 0.5


def test_neither_order_of_a_pair_is_special() -> None:
    batch = batch_of(0)
    turned = PatchBatch(batch.patches.flip(0), batch.different.T, batch.together, batch.others)
    config = MatchNetTraining(hard=0, precision="fp32")
    # With the patches of the different pairs fixed, only the order is another.
    partners = torch.arange(DRAW.batch)
    same = [one._replace(others=partners.flip(0)) for one in (batch, turned)]
    terms = [trainer(config)._terms(one)[0]["cross_entropy"] for one in same]
    torch.testing.assert_close(*terms)


def test_the_nearest_of_the_same_pictures_are_hard() -> None:
    cosines = torch.tensor(
        [[1.0, 0.9, 0.3, 0.8], [0.2, 1.0, 0.5, 0.7], [0.1, 0.2, 1.0, 0.3], [0.9, 0.9, 0.9, 1.0]]
    )
    different = ~torch.eye(4, dtype=torch.bool)
    different[0, 1] = False  # too near to each other
    together = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]).bool()
    others = torch.tensor([3, 3, 3, 2])
    batch = PatchBatch(torch.zeros(2, 4, 1, 64, 64), different, together, others)
    assert with_nearest(cosines, batch, 1.0).tolist() == [2, 2, 1, 2]
    assert with_nearest(cosines, batch, 0.5).tolist() == [2, 2, 3, 2]
    assert with_nearest(cosines, batch, 0.0).tolist() == others.tolist()


def test_the_contrastive_term_against_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    different = torch.rand(5, 5, generator=generator) < 0.6
    different.fill_diagonal_(False)

    def by_sums(x: Tensor) -> float:
        total = 0.0
        for i in range(5):
            row = sum(math.exp(x[i, j]) for j in range(5) if j == i or different[i, j])
            column = sum(math.exp(x[j, i]) for j in range(5) if j == i or different[j, i])
            total -= math.log(math.exp(x[i, i]) / row) + math.log(math.exp(x[i, i]) / column)
        return total / 10

    found = float(contrastive(values.detach(), different))
    assert found == pytest.approx(by_sums(values.detach()))
    assert torch.autograd.gradcheck(lambda x: contrastive(x, different), values)
    alone = torch.zeros(5, 5, dtype=torch.bool)
    assert float(contrastive(values.detach(), alone)) == 0


def test_taken_up_again_the_curve_is_the_same(tmp_path: Path) -> None:
    assert_resumes(trainer, batch_of, SMALL.steps, tmp_path, broken_off=2)
