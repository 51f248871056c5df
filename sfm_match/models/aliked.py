"""ALIKED: Zhao, Wu, Chen, Chen, Xu, Li, "ALIKED: A Lighter Keypoint and Descriptor Extraction
Network via Deformable Transformation", IEEE Transactions on Instrumentation and Measurement 2023.

`load_network` gives the network as kornia has it, with the weights of its authors. `FoldedAliked`
computes the same for inference, several times as fast:

- Batch norm is folded into the convolutions.
- The map of 128 features for every pixel is never made. The scores need eight weighted sums of
  them, and what is linear may be summed before it is enlarged; the descriptors need the features
  only at the pixels that they sample.
- The layers of full and half resolution run over blocks of a few rows. What lies between two of
  them stays in the processor's cache and in memory that the allocator hands out again, where whole
  layers would need hundreds of fresh megabytes.

Maps are (H, W, C) here, and pixels have integer centres.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from kornia.feature.aliked.aliked import ALIKED
from torch import Tensor, nn
from torch.nn import functional

from sfm_match.models.aliked_layers import Linear, block, convolution, linear, tap_by_tap
from sfm_match.models.sampling import Enlarged, corners, weighted_rows
from sfm_match.weights import WeightsError

_MULTIPLE = 32  # the network divides both sides by 2, 4 and 4
_PIXELS_PER_BLOCK = 16384
_KEYPOINTS_AT_ONCE = 128


@dataclass(frozen=True)
class _Level:
    """A lower resolution.

    Attributes:
        features: (h, w, C).
        sums: (h, w, 8), its part of the sums that scores are made from.
        enlarged: to the size of the image.
    """

    features: Tensor
    sums: Tensor
    enlarged: Enlarged


@dataclass(frozen=True)
class Dense:
    """What ALIKED says of all pixels of an image.

    Attributes:
        scores: (H, W), from 0 to 1.
        top: how many rows were added above the image.
        left: how many columns were added to its left.
        full: (H', W', C) with all that was added, what the features of full resolution come from.
        levels: three lower resolutions.
    """

    scores: Tensor
    top: int
    left: int
    full: Tensor
    levels: tuple[_Level, ...]


class FoldedAliked:
    """ALIKED for inference, exact up to rounding.

    Args:
        network: the network; it must not be changed any more.
        pixels_per_block: how many pixels pass through the first layers at once.
        keypoints_at_once: how many keypoints are described at once.
    """

    @torch.inference_mode()
    def __init__(
        self,
        network: ALIKED,
        pixels_per_block: int = _PIXELS_PER_BLOCK,
        keypoints_at_once: int = _KEYPOINTS_AT_ONCE,
    ) -> None:
        self._pixels_per_block = pixels_per_block
        self._keypoints_at_once = keypoints_at_once
        net: Any = network  # kornia's layers have no static types
        self._blocks = [block(b) for b in (net.block1, net.block2, net.block3, net.block4)]
        self._heads = [linear(c) for c in (net.conv1, net.conv2, net.conv3, net.conv4)]
        first, *others = (layer for layer in net.score_head if isinstance(layer, nn.Conv2d))
        # A pixel's features are those of the four resolutions, one after the other.
        parts = linear(first).weight.chunk(4, dim=1)
        self._sums = [Linear(part.contiguous()) for part in parts]
        self._score_layers = [convolution(layer) for layer in others]
        patch, _, moves = net.desc_head.offset_conv
        self._patch = Linear(tap_by_tap(patch.weight).T.contiguous(), patch.bias)
        self._moves = linear(moves)
        self._projection = linear(net.desc_head.sf_conv)
        self._mixing = net.desc_head.agg_weights.flatten(0, 1)

    @torch.inference_mode()
    def dense(self, image: Tensor) -> Dense:
        """Return the scores of an image, uint8 (H, W, 3), and what `describe` needs."""
        height, width = image.shape[:2]
        top, left = (-height % _MULTIPLE) // 2, (-width % _MULTIPLE) // 2
        # 1. The image, its border repeated, with sides of multiples of 32: (H', W', 3).
        padded = _padded(image, top, left)
        size = padded.shape[0], padded.shape[1]
        # 2. Full resolution: (H', W', 16), and the means of 2 x 2: (H' / 2, W' / 2, 16).
        full, means = self._run(0, padded, pool=2)
        # 3. Lower resolutions, 1/2, 1/8 and 1/32, each from means of the one before: (h, w, 32).
        levels = []
        for i, pool in ((1, 4), (2, 4), (3, 1)):
            features, means = self._run(i, means, pool)
            enlarged = Enlarged((features.shape[0], features.shape[1]), size, image.device)
            levels.append(_Level(features, self._sums[i](features), enlarged))
        # 4. Scores: (H', W') -> (H, W).
        scores = self._scores(full, levels)[top : top + height, left : left + width]
        return Dense(scores, top, left, full, tuple(levels))

    @torch.inference_mode()
    def describe(self, dense: Dense, keypoints: Tensor) -> Tensor:
        """Return the descriptors (N, D), of length 1, of keypoints (N, 2), x and y."""
        chunks = torch.split(keypoints, self._keypoints_at_once)
        return torch.cat([self._describe(dense, some) for some in chunks])

    def _run(self, i: int, x: Tensor, pool: int) -> tuple[Tensor, Tensor]:
        """Return the features of a resolution, and the means that the next one is made from.

        At full resolution, which has most pixels and fewest channels, it is what features are made
        from.
        """
        layers, (height, width) = self._blocks[i], x.shape[:2]
        channels = len(self._heads[i].weight) if i else layers.channels
        features = x.new_empty(height, width, channels)
        means = x.new_empty(height // pool, width // pool, layers.channels)
        num = height if layers.is_deformable else self._num_rows(width)
        for rows, y in _in_blocks(lambda rows: layers(x[rows]), height, 2, num):
            features[rows] = functional.selu_(self._heads[i](y)) if i else y
            pooled = functional.avg_pool2d(y[None].movedim(3, 1), pool)
            means[rows.start // pool : rows.stop // pool] = pooled[0].movedim(0, 2)
        return features, means

    def _num_rows(self, width: int) -> int:
        """Return how many rows to compute at once: a multiple of 4, the widest pooling."""
        return max(1, self._pixels_per_block // (4 * width)) * 4

    def _scores(self, full: Tensor, levels: Sequence[_Level]) -> Tensor:
        def in_rows(rows: slice) -> Tensor:
            x = self._sums[0](functional.selu_(self._heads[0](full[rows])))
            for level in levels:
                x += level.enlarged.rows(level.sums, rows)
            for layer in self._score_layers:
                x = layer(functional.selu_(x))
            return x.sigmoid_()

        height, width, _ = full.shape
        scores = full.new_empty(height, width)
        blocks = _in_blocks(in_rows, height, len(self._score_layers), self._num_rows(width))
        for rows, found in blocks:
            scores[rows] = found[..., 0]
        return scores

    def features_at(self, dense: Dense, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the features (P, C), of length 1, at pixels of the image, int64 (P,)."""
        rows, columns = rows + dense.top, columns + dense.left
        pixels = rows * dense.full.shape[1] + columns
        full = dense.full.flatten(0, 1).index_select(0, pixels)
        parts = [functional.selu_(self._heads[0](full))]
        parts += [level.enlarged.at(level.features, rows, columns) for level in dense.levels]
        return functional.normalize(torch.cat(parts, dim=1), dim=1)

    def _describe(self, dense: Dense, keypoints: Tensor) -> Tensor:
        height, width = dense.scores.shape
        num = len(keypoints)
        if num == 0:
            return keypoints.new_empty(0, self._mixing.shape[1])
        # 1. The 3 x 3 pixels around each keypoint's, moved into the image, whose last row and
        # column they leave out: (N, 9 * C).
        near = torch.arange(3, device=keypoints.device)
        columns, rows = (
            (side.long() - 1).clamp(0, size - 4)[:, None] + near
            for side, size in zip(keypoints.unbind(1), (width, height), strict=True)
        )
        rows, columns = rows.repeat_interleave(3, dim=1), columns.repeat(1, 3)
        patches = self.features_at(dense, rows.flatten(), columns.flatten()).view(num, -1)
        # 2. Where to sample: (N, M), (N, M).
        farthest = max(height, width) / 4
        moves = self._moves(functional.selu_(self._patch(patches))).clamp_(-farthest, farthest)
        x, y = (keypoints[:, :, None] + moves.view(num, 2, -1)).unbind(1)
        # 3. The samples, from four pixels each: (N, M, C).
        columns, rows, weights = corners(x, y, width, height)
        pixels = self.features_at(dense, rows.flatten(), columns.flatten())
        order = torch.arange(len(pixels), device=pixels.device).view_as(rows)
        samples = weighted_rows(pixels, order, weights)
        # 4. Each is projected, and all are mixed: (N, M * C) -> (N, D).
        projected = functional.selu_(self._projection(samples))
        return functional.normalize(projected.flatten(1) @ self._mixing, dim=1)


def _in_blocks(
    layer: Callable[[slice], Tensor], height: int, margin: int, num: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield a layer's output (n, W, C), `num` rows at a time, and which rows they are.

    Args:
        layer: returns rows, of which those at either end may be wrong.
        height: how many rows there are.
        margin: how many may be wrong, but for those at the border of the map.
        num: how many to yield at once.
    """
    for start in range(0, height, num):
        stop = min(start + num, height)
        low, high = max(0, start - margin), min(height, stop + margin)
        yield slice(start, stop), layer(slice(low, high))[start - low : stop - low]


def _padded(image: Tensor, top: int, left: int) -> Tensor:
    """Return an image (H, W, 3) from 0 to 1, its border repeated; the rest goes below and right."""
    height, width = image.shape[:2]
    rows = torch.arange(-(-height // _MULTIPLE) * _MULTIPLE, device=image.device) - top
    columns = torch.arange(-(-width // _MULTIPLE) * _MULTIPLE, device=image.device) - left
    padded = image[rows.clamp(0, height - 1)][:, columns.clamp(0, width - 1)]
    return padded.float() / 255


def load_network(path: os.PathLike[str] | str) -> ALIKED:
    """Return the network of a checkpoint as its authors publish it, whichever variant it is.

    Nothing but tensors is unpickled.

    Raises:
        WeightsError: the file is no checkpoint, or one of another network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = "".join(str(error).splitlines()[:1]) or "it ends too early"
        raise WeightsError(f"{path}: not a checkpoint of ALIKED: {reason}") from error
    mixing = state.get("desc_head.agg_weights") if isinstance(state, dict) else None
    if not isinstance(mixing, Tensor) or mixing.ndim != 3:
        raise WeightsError(f"{path}: not a checkpoint of ALIKED: it has no desc_head.agg_weights")
    samples, channels = mixing.shape[:2]
    name = "t16" if channels == 64 else "n32" if samples == 32 else "n16"
    network = ALIKED(f"aliked-{name}")
    # Not a weight, and not in the published files.
    state.setdefault("dkd.hw_grid", network.dkd.hw_grid)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: not a checkpoint of ALIKED: {error}") from error
    return network.eval()
