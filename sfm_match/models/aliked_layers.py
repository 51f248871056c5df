"""The layers of ALIKED for inference, on maps (H, W, C), with batch norm folded in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_match.models.sampling import deformable_convolution


@dataclass(frozen=True)
class Convolution:
    """A 3 x 3 convolution, with zeros around its input.

    Attributes:
        weight: (Cout, Cin, 3, 3), channels last.
        bias: (Cout,), or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the map (H, W, Cout) of a map (H, W, Cin)."""
        # In this order torch sees that it is channels last already, and copies nothing.
        image = x[None].movedim(3, 1)
        return functional.conv2d(image, self.weight, self.bias, padding=1)[0].movedim(0, 2)


@dataclass(frozen=True)
class Deformable:
    """A deformable 3 x 3 convolution.

    Attributes:
        moves: says at every pixel how far each tap is moved.
        weight: (9 * Cin, Cout), tap by tap.
        bias: (Cout,).
    """

    moves: Convolution
    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the map (H, W, Cout) of a map (H, W, Cin)."""
        farthest = max(x.shape[:2]) / 4
        moves = self.moves(x).clamp_(-farthest, farthest)
        return deformable_convolution(x, moves, self.weight, self.bias)


@dataclass(frozen=True)
class Linear:
    """A 1 x 1 convolution.

    Attributes:
        weight: (Cout, Cin).
        bias: (Cout,), or None.
    """

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the map (H, W, Cout) of a map (H, W, Cin)."""
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Block:
    """Two convolutions, each with SELU, and a linear bypass of both where there is one."""

    first: Convolution | Deformable
    second: Convolution | Deformable
    bypass: Linear | None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the map (H, W, Cout) of a map (H, W, Cin)."""
        out = self.second(functional.selu_(self.first(x)))
        if self.bypass is not None:
            out += self.bypass(x)
        return functional.selu_(out)

    @property
    def is_deformable(self) -> bool:
        """Whether an output may depend on pixels anywhere in the map."""
        return isinstance(self.first, Deformable)

    @property
    def channels(self) -> int:
        """How many channels it puts out."""
        return self.second.weight.shape[int(self.is_deformable)]


def tap_by_tap(weight: Tensor) -> Tensor:
    """Return the weight (Cout, Cin, 3, 3) of a convolution as (9 * Cin, Cout)."""
    return weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()


def linear(layer: nn.Conv2d) -> Linear:
    """Return a 1 x 1 convolution."""
    return Linear(layer.weight.flatten(1), layer.bias)


def convolution(layer: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> Convolution:
    """Return a 3 x 3 convolution and the batch norm behind it, if there is one."""
    weight, bias = _folded(layer, norm)
    return Convolution(weight.contiguous(memory_format=torch.channels_last), bias)


def block(layer: Any) -> Block:
    """Return a block of ALIKED, as kornia has it."""
    bypass = getattr(layer, "downsample", None)
    return Block(
        _plain_or_deformable(layer.conv1, layer.bn1),
        _plain_or_deformable(layer.conv2, layer.bn2),
        None if bypass is None else linear(bypass),
    )


def _plain_or_deformable(layer: Any, norm: nn.BatchNorm2d) -> Convolution | Deformable:
    if isinstance(layer, nn.Conv2d):
        return convolution(layer, norm)
    weight, bias = _folded(layer.regular_conv, norm)
    assert bias is not None
    return Deformable(convolution(layer.offset_conv), tap_by_tap(weight), bias)


def _folded(layer: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    if norm is None:
        return layer.weight, layer.bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = -norm.running_mean if layer.bias is None else layer.bias - norm.running_mean
    return layer.weight * scale[:, None, None, None], norm.bias + bias * scale
