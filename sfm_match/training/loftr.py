"""The training of LoFTR's fine stage on the small coarse network: batches in, steps and losses out.

kornia's LoFTR in its supervised mode (Sun et al., CVPR 2021): the fine stage learns on the matches
that the coarse one finds, padded with true ones. The coarse network is either left as it is or
tuned along with it.
"""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any, Literal

import torch
from kornia.feature import LoFTR
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor, nn

from sfm_match.models.loftr_losses import (
    cell_positions,
    dual_softmax,
    dual_softmax_loss,
    fine_loss,
    fine_offsets,
    mutual_cells,
    transport_loss,
    warp_cells,
    within_window,
)
from sfm_match.models.loftr_network import has_fine_stage, network_config, new_network
from sfm_match.models.loftr_transport import assign_with_dustbins, without_unmatched
from sfm_match.training.optimization import Step, descend, learning_rate, update_average
from sfm_match.training.pairs import Batch

_FINE_PARTS = (
    "backbone.layer3_outconv",
    "backbone.layer2_outconv",
    "fine_preprocess.",
    "loftr_fine.",
)
_BIN_SCORE = "coarse_matching.bin_score"


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LoFTRTraining:
    """Settings of the training.

    Attributes:
        steps: how many there are: the learning rate falls to 0 by a cosine.
        warm_up: steps in which it rises from 0.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        clip: the largest length of a gradient.
        batch: pairs in a step.
        average: how much of the averaged weights, which are the result, stays from step to step.
        width: channels of the fine map and of the fine stage.
        coarse: whether the coarse network is left frozen, or tuned.
        coarse_rate: the learning rate of a tuned one, as a share of `learning_rate`.
        coarse_weight: of the loss of a tuned one.
        assignment: of the cells: dual_softmax, or sinkhorn with a learnt score of its dustbins.
        sinkhorn_iterations: of the optimal transport.
        threshold: smallest score of a match that the fine stage learns on.
        matched: matches that it learns on, as a share of the cells.
        padded: the least share of these that are true ones instead of found ones.
    """

    steps: PositiveInt = 20_000
    warm_up: NonNegativeInt = 100
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 1e-2
    clip: PositiveFloat = 1.0
    batch: PositiveInt = 4
    average: Annotated[float, Field(ge=0, lt=1)] = 0.998
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 32
    coarse: Literal["frozen", "tuned"] = "frozen"
    coarse_rate: NonNegativeFloat = 0.05
    coarse_weight: NonNegativeFloat = 1.0
    assignment: Literal["dual_softmax", "sinkhorn"] = "dual_softmax"
    sinkhorn_iterations: PositiveInt = 3
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.2
    matched: Annotated[float, Field(gt=0, le=1)] = 0.4
    padded: Annotated[float, Field(ge=0, lt=1)] = 0.5


def with_fine_stage(network: LoFTR, width: int) -> LoFTR:
    """Return the small network with a new fine stage, or as it is where it has one."""
    if has_fine_stage(network):
        return network
    config = network_config(coarse_16=True, fine_width=width)
    for part in ("coarse", "match_coarse"):
        config[part] = copy.deepcopy(network.config[part])
    made = new_network(config)
    coarse = {k: v for k, v in network.state_dict().items() if not k.startswith(_FINE_PARTS)}
    made.load_state_dict(made.state_dict() | coarse)
    return made


class LoFTRTrainer:
    """A network in training, with its running average. `state_dict` holds all, for a checkpoint."""

    def __init__(self, network: LoFTR, config: LoFTRTraining, bin_score: float = 1.0) -> None:
        """Begin at step 0.

        Args:
            network: with a fine stage.
            config: the settings.
            bin_score: of the dustbins of an optimal transport.
        """
        self.network = network
        self.config = config
        self.number = 0
        self.bin_score = nn.Parameter(torch.tensor(bin_score))
        network.coarse_matching.thr = config.threshold
        network.coarse_matching.train_coarse_percent = config.matched
        # What is normalised by statistics of batches keeps those it has, in the coarse network.
        network.eval()
        for part in _trained_in_batches(network):
            part.train()
        fine = [p for name, p in network.named_parameters() if name.startswith(_FINE_PARTS)]
        coarse = [p for name, p in network.named_parameters() if not name.startswith(_FINE_PARTS)]
        groups: list[dict[str, Any]] = [{"params": fine, "share": 1.0}]
        if config.coarse == "tuned":
            if config.assignment == "sinkhorn":
                coarse.append(self.bin_score)
            groups.append({"params": coarse, "share": config.coarse_rate})
        else:
            for parameter in coarse:
                parameter.requires_grad_(False)
        self.averaged = copy.deepcopy(network)
        self._trained = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = torch.optim.AdamW(
            groups, config.learning_rate, weight_decay=config.weight_decay
        )

    def step(self, batch: Batch) -> Step:
        """Learn from one batch, of sides that the stride divides.

        Among the step's terms `pixels` is the mean distance from the true positions.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.number, self.config) * group["share"]
        terms, pixels = self._terms(batch)
        loss = terms["fine"]
        if "coarse" in terms:
            loss = loss + self.config.coarse_weight * terms["coarse"]
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        length = descend(self.optimizer, self._trained, self.config.clip)
        update_average(self.averaged, self.network, self.number, self.config.average)
        values = {name: float(term.detach()) for name, term in terms.items()}
        step = Step(self.number, float(loss.detach()), values | {"pixels": pixels}, length)
        self.number += 1
        return step

    def _terms(self, batch: Batch) -> tuple[dict[str, Tensor], float]:
        network, config = self.network, self.config
        stride, fine_stride = network.config["resolution"]
        num = len(batch.images0)
        # 1. Grey values, and both maps: (2B, C, H/s, W/s) and (2B, Cf, H/f, W/f).
        images = grey(torch.cat([batch.images0, batch.images1]))
        coarse, fine = network.backbone(images)
        grid = (coarse.shape[2], coarse.shape[3])
        # 2. The transformer: (B, L, C) twice.
        tokens = network.pos_encoding(coarse).flatten(2).mT.contiguous()
        tokens0, tokens1 = network.loftr_coarse(tokens[:num], tokens[num:])
        # 3. What is true, and how surely cells match: (B, L, L).
        positions, warped = cell_positions(*grid, stride), warp_cells(batch.flow, stride)
        true = mutual_cells(warped, positions)
        terms: dict[str, Tensor] = {}
        confidence, loss = self._assigned(tokens0, tokens1, true)
        if config.coarse == "tuned":
            terms["coarse"] = loss
        # 4. Matches that are found, and true ones.
        data = self._matches(confidence.detach(), true, grid)
        # 5. The fine stage: the expectation and its spread for each of them, (M, 3).
        windows = network.fine_preprocess(fine[:num], fine[num:], tokens0, tokens1, data)
        network.fine_matching(*network.loftr_fine(*windows), data)
        expected = data["expec_f"]
        reach = fine_stride * (network.config["fine_window_size"] // 2)
        found = torch.stack([data["b_ids"], data["i_ids"], data["j_ids"]], dim=1)
        offsets = fine_offsets(warped, found, positions, reach)
        terms["fine"] = fine_loss(expected, offsets)
        away = (expected[:, :2].detach() - offsets)[within_window(offsets)].norm(dim=1)
        return terms, reach * float(away.mean()) if len(away) else math.nan

    def _assigned(self, tokens0: Tensor, tokens1: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        """Return how surely cells match, and the loss of it."""
        if self.config.assignment == "dual_softmax":
            temperature = self.network.coarse_matching.temperature
            confidence = dual_softmax(tokens0, tokens1, temperature)
            return confidence, dual_softmax_loss(confidence, true)
        similarity = tokens0 @ tokens1.mT / tokens0.shape[2]
        assignment = assign_with_dustbins(
            similarity, self.bin_score, self.config.sinkhorn_iterations
        )
        return without_unmatched(assignment), transport_loss(assignment, true)

    def _matches(self, confidence: Tensor, true: Tensor, grid: tuple[int, int]) -> dict[str, Any]:
        """Return kornia's table of matches: those that are found, padded with true ones."""
        matching = self.network.coarse_matching
        num = int(confidence.shape[0] * max(confidence.shape[1:]) * self.config.matched)
        matching.train_pad_num_gt_min = int(num * self.config.padded)
        stride, fine_stride = self.network.config["resolution"]
        # Where nothing is known, one pair of cells stands in: the loss leaves it out.
        pairs, rows, columns = (true if len(true) else true.new_zeros(1, 3)).T
        data: dict[str, Any] = {"hw0_c": grid, "hw1_c": grid}
        data.update(stride_c=stride, stride_f=fine_stride)
        data.update(spv_b_ids=pairs, spv_i_ids=rows, spv_j_ids=columns)
        # kornia draws from the global generator; here a step depends on its number only.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.number)
            data.update(matching.get_coarse_match(confidence, data))
        return data

    def weights(self) -> dict[str, Tensor]:
        """Return the result in kornia's layout, as `loftr_network.load_network` reads it."""
        found = dict(self.averaged.state_dict())
        if self.config.assignment == "sinkhorn":
            found[_BIN_SCORE] = self.bin_score.detach()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the state, to be taken up by `load_state_dict`."""
        return {
            "number": self.number,
            "bin_score": self.bin_score.detach(),
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state: the next step is the one that would have followed."""
        self.number = state["number"]
        with torch.no_grad():
            self.bin_score.copy_(state["bin_score"])
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])


def _trained_in_batches(network: LoFTR) -> list[nn.Module]:
    backbone: Any = network.backbone
    return [
        backbone.layer3_outconv2,
        backbone.layer2_outconv2,
        network.fine_preprocess,
        network.loftr_fine,
        network.fine_matching,
        network.coarse_matching,
    ]


def grey(images: Tensor) -> Tensor:
    """Return (B, 1, H, W) of RGB (B, 3, H, W), with the weights of Rec. 601."""
    weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (images * weights).sum(dim=1, keepdim=True)
