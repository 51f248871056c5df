"""R2D2 for inference, the same up to rounding, several times as fast on a CPU.

Batch norm is folded into the convolutions, and an image passes through all layers in blocks of a
few rows. Every layer keeps the last rows that it has seen for the next block, so nothing is
computed twice; what lies between two layers stays in the processor's cache and in memory that the
allocator hands out again, where whole layers would need hundreds of fresh megabytes each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_match.models.r2d2 import DESCRIPTOR_SIZE, R2D2, Maps

# What a layer puts out for a block should fit in the cache, and be small enough for the allocator
# to keep: glibc returns larger pieces to the system, which zeroes each page again.
_PIXELS_PER_BLOCK = 32768
_VECTORS_PER_PIECE = 1024
# How many times what is needed a buffer of rows can take before they are moved to its front.
_ROOM = 3

_Blocks = Iterator[tuple[Tensor, bool]]
"""Consecutive rows of maps, (N, C, rows, W), and whether they are the last."""


@dataclass(frozen=True)
class _Convolution:
    """A convolution with the batch norm behind it folded in, and zeros around its input.

    Attributes:
        weight: (Cout, Cin, k, k).
        bias: (Cout,).
        dilation: distance of the taps in pixels.
        padding: rows and columns of zeros on every side.
        relu: whether negative inputs become zero: that costs nothing while they are copied.
    """

    weight: Tensor
    bias: Tensor
    dilation: int
    padding: int
    relu: bool

    def __call__(self, blocks: _Blocks) -> _Blocks:
        for window, last in _overlapping(blocks, self.padding, relu=self.relu):
            x = functional.conv2d(
                window, self.weight, self.bias, padding=(0, self.padding), dilation=self.dilation
            )
            yield x, last


class _RowQueue:
    """Rows of maps in a buffer that is used again: they come in below and leave above.

    Handed out are views: they hold until rows are added again.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None
        self._start = self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def add(self, rows: Tensor, relu: bool = False) -> None:
        """Append rows (N, C, h, W) in channels-last order, or what `relu` makes of them."""
        num = rows.shape[2]
        if self._buffer is None or self._stop + num > self._buffer.shape[2]:
            self._make_room(rows, num)
        assert self._buffer is not None
        place = self._buffer[:, :, self._stop : self._stop + num]
        if relu:
            torch.clamp_min(rows, 0, out=place)
        else:
            place.copy_(rows)
        self._stop += num

    def _make_room(self, like: Tensor, num: int) -> None:
        size = len(self) + num
        old = None if self._buffer is None else self._buffer[:, :, self._start : self._stop]
        # Rows move to the front only once they do not overlap with where they were.
        if self._buffer is None or self._start < len(self) or size > self._buffer.shape[2]:
            shape = (*like.shape[:2], _ROOM * size, like.shape[3])
            self._buffer = torch.empty(
                shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
            )
        if old is not None:
            self._buffer[:, :, : len(self)] = old
        self._start, self._stop = 0, len(self)

    def last(self, num: int) -> Tensor:
        """Drop all rows but the last `num`; return these."""
        assert self._buffer is not None
        self._start = max(self._start, self._stop - num)
        return self._buffer[:, :, self._start : self._stop]


def _overlapping(
    blocks: _Blocks, margin: int, *, repeat: bool = False, relu: bool = False
) -> _Blocks:
    """Yield blocks, or what `relu` makes of them, together with `margin` rows above and below.

    Beyond the map lie zeros, or its first and last row again.
    """

    def edge(row: Tensor) -> Tensor:
        filled = row.expand(-1, -1, margin, -1)
        return filled if repeat else torch.zeros_like(filled)

    queue = _RowQueue()
    for rows, last in blocks:
        if len(queue) == 0:
            queue.add(edge(rows[:, :, :1]))
        queue.add(rows, relu)
        if last:
            queue.add(edge(rows[:, :, -1:]))
        if len(queue) > 2 * margin:
            yield queue.last(len(queue)), last
            queue.last(2 * margin)


def _halved(blocks: _Blocks) -> _Blocks:
    """Yield the maxima of 2 x 2 pixels; an odd last row or column is left out."""
    kept: Tensor | None = None
    for block, last in blocks:
        rows = block if kept is None else torch.cat([kept, block], dim=2)
        # Two rows at least are kept back, so that the last block is never empty.
        num = rows.shape[2] if last else max(0, (rows.shape[2] - 2) // 2 * 2)
        kept = rows[:, :, num:]
        if num:
            yield functional.max_pool2d(rows[:, :, :num], 2), last


def _doubled(blocks: _Blocks) -> _Blocks:
    """Yield blocks of twice the resolution, interpolated bilinearly between pixel centres."""
    for window, last in _overlapping(blocks, 1, repeat=True):
        large = functional.interpolate(window, scale_factor=2, mode="bilinear", align_corners=False)
        yield large[:, :, 2:-2], last


def _rows_of(image: Tensor, num: int) -> _Blocks:
    height = image.shape[2]
    for start in range(0, height, num):
        yield image[:, :, start : start + num], start + num >= height


class FoldedR2D2:
    """R2D2 for inference, exact up to rounding: layers folded, images computed row by row.

    Args:
        network: the network; later changes of it have no effect.
        pixels_per_block: how many pixels pass through the layers at once.
        dtype: of the convolutions, float32 or bfloat16; the heads are float32.
    """

    def __init__(
        self,
        network: R2D2,
        pixels_per_block: int = _PIXELS_PER_BLOCK,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.pixels_per_block = pixels_per_block
        self.dtype = dtype
        self._layers = list(_fold(network.ops, dtype))
        # Of two classes, softmax is the sigmoid of the difference.
        difference = torch.tensor([[-1.0, 1.0]], device=network.clf.weight.device)
        clf, sal = network.clf.state_dict(), network.sal.state_dict()
        weights = difference @ clf["weight"][:, :, 0, 0], sal["weight"][:, :, 0, 0]
        self._head_weight = torch.cat(weights)
        self._head_bias = torch.cat([difference @ clf["bias"][:, None], sal["bias"][:, None]])

    @torch.inference_mode()
    def blocks(self, images: Tensor) -> Iterator[Maps]:
        """Yield the maps of images (N, 3, H, W), `normalised`, in blocks of rows from the top.

        The descriptors are not normalised.
        """
        num_rows = max(2, self.pixels_per_block // (len(images) * images.shape[3]))
        images = images.to(self.dtype, memory_format=torch.channels_last)
        # 1. Blocks of rows: (N, 3, h, W), the number of rows changes from layer to layer.
        blocks: _Blocks = _rows_of(images, num_rows)
        # 2. Layers take blocks as the one behind asks for them: (N, 128, h, W) at the end.
        for layer in self._layers:
            blocks = layer(blocks)
        for x, _ in blocks:
            # 3. Both heads at once: (N, 128, h, W) -> (2, N, h, W).
            heads = self._heads(x.movedim(1, 3))
            # 4. Reliability and the odds of repeatability: (N, h, W).
            yield Maps(x, heads[0].sigmoid(), functional.softplus(heads[1]))

    def _heads(self, x: Tensor) -> Tensor:
        """Return what the heads (2, ...) say of vectors (..., 128), through one small buffer."""
        vectors = x.reshape(-1, DESCRIPTOR_SIZE)
        squares = vectors.new_empty(_VECTORS_PER_PIECE, DESCRIPTOR_SIZE, dtype=torch.float32)
        heads = vectors.new_empty(2, len(vectors), dtype=torch.float32)
        for start in range(0, len(vectors), len(squares)):
            piece = vectors[start : start + len(squares)]
            squared = squares[: len(piece)].copy_(piece).square_()
            # Four times as fast as with the two heads as columns.
            torch.mm(self._head_weight, squared.T, out=heads[:, start : start + len(squares)])
        return heads.add_(self._head_bias).view(2, *x.shape[:-1])


def _fold(layers: nn.Sequential, dtype: torch.dtype) -> Iterator[Callable[[_Blocks], _Blocks]]:
    """Yield the layers: batch norm is part of the convolution before it, ReLU of the one after it.

    Between the two, ReLU may pass a maximum pooling, but no interpolation.
    """
    following: list[nn.Module | None] = [*list(layers)[1:], None]
    relu = False
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            norm, bias = following[i], layer.bias
            scale = torch.ones_like(bias)
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                scale = (norm.running_var + norm.eps).rsqrt()
                bias = (bias - norm.running_mean) * scale
            weight = layer.weight * scale[:, None, None, None]
            yield _Convolution(
                weight=weight.detach().to(dtype, memory_format=torch.channels_last),
                bias=bias.detach().to(dtype, copy=True),
                dilation=layer.dilation[0],
                padding=int(layer.padding[0]),
                relu=relu,
            )
            relu = False
        elif isinstance(layer, nn.ReLU):
            relu = True
        elif isinstance(layer, nn.MaxPool2d):
            yield _halved
        elif isinstance(layer, nn.Upsample):
            yield _doubled
