"""kornia's LoFTR in two phases: what depends on one image alone, and what depends on a pair.

Sun, Shen, Wang, Bao, Zhou: "LoFTR: Detector-Free Local Feature Matching with Transformers",
CVPR 2021. The first phase is the backbone and, since every image attends to itself first, the
first layer of the transformer.

Points are in the pixels of the images that the network sees, with its frame: cell (x, y) of the
coarse grid lies at the stride times (x, y), where the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from kornia.feature import LoFTR
from torch import Tensor

from sfm_match.models.loftr_network import has_fine_stage
from sfm_match.models.loftr_transport import assign_with_dustbins, without_unmatched

Refine = Literal["second", "both", "none"]


@dataclass(frozen=True)
class Features:
    """What the pairs need of one image.

    Attributes:
        tokens: (L, C), one for each cell of the coarse grid, row by row, after the first layer.
        grid: rows and columns of the coarse grid.
        fine: (Cf, Hf, Wf), the fine map; empty where there is no fine stage.
    """

    tokens: Tensor
    grid: tuple[int, int]
    fine: Tensor


@dataclass(frozen=True)
class CellMatches:
    """Matches of one pair, in order of the cells of the first image.

    Attributes:
        cells0: int64 (M,), cells of the coarse grid of the first image, row by row.
        cells1: int64 (M,), of the second image.
        points0: float32 (M, 2), x and y in the first image.
        points1: float32 (M, 2), in the second image.
        scores: float32 (M,), from 0 to 1.
    """

    cells0: Tensor
    cells1: Tensor
    points0: Tensor
    points1: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Transport:
    """Settings of the optimal transport.

    Attributes:
        bin_score: the score of staying unmatched.
        iterations: of Sinkhorn's algorithm.
    """

    bin_score: float
    iterations: int


class TwoPhaseLoFTR:
    """The network, taken apart.

    Args:
        network: in evaluation mode; its `config` decides threshold and border.
        refine: which points the fine stage moves, where the network has one. "second", as
            published; "both" runs it in both directions as well: two correspondences, of the first
            image's cell centre and of the second's, whose mean is taken.
        transport: for an assignment by optimal transport; None for dual softmax.
    """

    def __init__(
        self, network: LoFTR, refine: Refine = "second", transport: Transport | None = None
    ) -> None:
        self.stride: int = network.config["resolution"][0]
        self._network = network
        self._refine: Refine = refine if has_fine_stage(network) else "none"
        self._transport = transport
        parameter = next(network.parameters())
        self._dtype, self._device = parameter.dtype, parameter.device

    @torch.inference_mode()
    def encode(self, image: Tensor) -> Features:
        """Return the features of a grey image (H, W), uint8, whose sides the stride divides."""
        network = self._network
        # 1. Grey values from 0 to 1: (1, 1, H, W).
        x = image.to(self._device).to(self._dtype)[None, None] / 255
        # 2. Backbone: coarse (1, C, H/s, W/s), fine (1, Cf, H/f, W/f).
        if self._refine == "none" and network.config["resolution"] == (16, 4):
            coarse, fine = _coarse_map(network.backbone, x), x.new_zeros(1, 0, 0, 0)
        else:
            coarse, fine = network.backbone(x)
        if self._refine == "none":
            fine = fine.new_zeros(1, 0, 0, 0)
        # 3. Position encoding; one token for each cell: (1, L, C).
        grid = (coarse.shape[2], coarse.shape[3])
        tokens = network.pos_encoding(coarse).permute(0, 2, 3, 1).flatten(1, 2).contiguous()
        # 4. The first layer, in which the image attends to itself.
        tokens = network.loftr_coarse.layers[0](tokens, tokens)
        return Features(tokens=tokens[0], grid=grid, fine=fine[0])

    @torch.inference_mode()
    def match(self, pairs: Sequence[tuple[Features, Features]]) -> list[CellMatches]:
        """Match pairs at once; the first images must be of one size, and so the second ones."""
        if not pairs:
            return []
        tokens0 = torch.stack([a.tokens for a, _ in pairs])
        tokens1 = torch.stack([b.tokens for _, b in pairs])
        # 1. The other layers of the transformer: (N, L, C) and (N, S, C).
        layers = self._network.loftr_coarse
        for layer, name in list(zip(layers.layers, layers.layer_names, strict=True))[1:]:
            if name == "self":
                tokens0, tokens1 = layer(tokens0, tokens0), layer(tokens1, tokens1)
            else:
                tokens0 = layer(tokens0, tokens1)
                tokens1 = layer(tokens1, tokens0)
        # 2. Mutual nearest neighbours among the cells.
        data = self._coarse_matches(tokens0, tokens1, pairs[0][0].grid, pairs[0][1].grid)
        points0, points1 = data["mkpts0_c"], data["mkpts1_c"]
        # 3. Offsets of the points from the cells' centres.
        if self._refine != "none" and len(points0):
            fine0 = torch.stack([a.fine for a, _ in pairs])
            fine1 = torch.stack([b.fine for _, b in pairs])
            points1 = self._fine_points(fine0, fine1, tokens0, tokens1, data)
            if self._refine == "both":
                moved0 = self._fine_points(fine1, fine0, tokens1, tokens0, _swapped(data))
                points0, points1 = (points0 + moved0) / 2, (points1 + data["mkpts1_c"]) / 2
        return [
            CellMatches(
                cells0=data["i_ids"][rows].cpu(),
                cells1=data["j_ids"][rows].cpu(),
                points0=points0[rows].float().cpu(),
                points1=points1[rows].float().cpu(),
                scores=data["mconf"][rows].float().cpu(),
            )
            for rows in ((data["b_ids"] == i).nonzero()[:, 0] for i in range(len(pairs)))
        ]

    def _coarse_matches(
        self,
        tokens0: Tensor,
        tokens1: Tensor,
        grid0: tuple[int, int],
        grid1: tuple[int, int],
    ) -> dict[str, Any]:
        """Return kornia's table of the matched cells (its docstrings give the keys)."""
        stride, fine_stride = self._network.config["resolution"]
        data: dict[str, Any] = {"hw0_c": grid0, "hw1_c": grid1}
        data.update(stride_c=stride, stride_f=fine_stride)
        matching = self._network.coarse_matching
        if self._transport is None:
            matching(tokens0, tokens1, data)
            del data["conf_matrix"]  # by far the largest of all; nobody needs it any more
            return data
        similarity = tokens0 @ tokens1.mT / tokens0.shape[2]
        assignment = assign_with_dustbins(
            similarity.float(), self._transport.bin_score, self._transport.iterations
        )
        data.update(matching.get_coarse_match(without_unmatched(assignment), data))
        return data

    def _fine_points(
        self, fine0: Tensor, fine1: Tensor, tokens0: Tensor, tokens1: Tensor, data: dict[str, Any]
    ) -> Tensor:
        """Return the points (M, 2) in the second image that fit the first image's cell centres."""
        network, own = self._network, dict(data)
        # 1. Windows around the cells' centres: (M, 25, Cf) each.
        windows0, windows1 = network.fine_preprocess(fine0, fine1, tokens0, tokens1, own)
        # 2. The fine transformer.
        windows0, windows1 = network.loftr_fine(windows0, windows1)
        # 3. The expectation over the correlation with the first window's centre.
        network.fine_matching(windows0, windows1, own)
        points: Tensor = own["mkpts1_f"]
        return points


def merge_orders(there: CellMatches, back: CellMatches) -> CellMatches:
    """Merge the matches of a pair with those of the same pair in the other order.

    Where both matched the same cells, points and scores are averaged; what only one order found is
    kept. The other order of the arguments gives the same with the images exchanged.
    """
    cells0 = torch.cat([there.cells0, back.cells1])
    cells1 = torch.cat([there.cells1, back.cells0])
    cells, member = torch.unique(torch.stack([cells0, cells1], dim=1), dim=0, return_inverse=True)
    counts = member.bincount(minlength=len(cells))

    def mean(a: Tensor, b: Tensor) -> Tensor:
        values = torch.cat([a, b])
        sums = values.new_zeros(len(cells), *values.shape[1:]).index_add_(0, member, values)
        found: Tensor = sums / counts.reshape(-1, *[1] * (values.ndim - 1))
        return found

    return CellMatches(
        cells0=cells[:, 0],
        cells1=cells[:, 1],
        points0=mean(there.points0, back.points1),
        points1=mean(there.points1, back.points0),
        scores=mean(there.scores, back.scores),
    )


def _swapped(data: dict[str, Any]) -> dict[str, Any]:
    """Return the table of matched cells with the two images exchanged."""
    exchanged = {"i_ids": "j_ids", "mkpts0_c": "mkpts1_c", "hw0_c": "hw1_c"}
    exchanged |= {other: name for name, other in exchanged.items()}
    return {exchanged.get(name, name): value for name, value in data.items()}


def _coarse_map(backbone: Any, x: Tensor) -> Tensor:
    """Return the coarse map alone of the backbone with strides 16 and 4, exactly as it would."""
    x = backbone.relu(backbone.bn1(backbone.conv1(x)))
    x = backbone.layer4(backbone.layer3(backbone.layer2(backbone.layer1(x))))
    found: Tensor = backbone.layer4_outconv(x)
    return found
