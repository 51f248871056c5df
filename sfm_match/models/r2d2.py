"""R2D2: Revaud, Weinzaepfel, De Souza, Humenberger, "R2D2: Reliable and Repeatable Detector and
Descriptor", NeurIPS 2019. The network as it is published, on whole images, and its checkpoints.
"""

from __future__ import annotations

import os
import pickle
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfm_match.weights import WeightsError

DESCRIPTOR_SIZE = 128
PATCH_SIZE = 32.0
"""The side, in pixels, of the patch that a descriptor is said to describe at scale 1."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_DILATIONS = (1, 1, 1, 2, 2, 4, 4, 8, 16)
# Behind the pooling, half the dilation covers the same pixels.
_DILATIONS_POOLED = (1, 1, 1, 1, 1, 2, 2, 4, 8)


class Maps(NamedTuple):
    """What R2D2 says of every pixel.

    Attributes:
        descriptors: (N, 128, H, W), of length 1 in `R2D2`, of any length in `FoldedR2D2`.
        reliability: (N, H, W), from 0 to 1.
        odds: (N, H, W), repeatability / (1 - repeatability). Their logarithm is the logit, which
            resolves what repeatability itself rounds to 1.
    """

    descriptors: Tensor
    reliability: Tensor
    odds: Tensor

    @property
    def repeatability(self) -> Tensor:
        """(N, H, W), from 0 to 1."""
        return self.odds / (1 + self.odds)


def normalised(image: Tensor) -> Tensor:
    """Return an image (N, 3, H, W) with values from 0 to 1 with ImageNet's mean and deviation."""
    mean = image.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = image.new_tensor(IMAGENET_STD)[:, None, None]
    return (image - mean) / std


class R2D2(nn.Module):
    """The published network.

    Args:
        width: channels of the first layer: 32 for the models N16 and N8, 48 for "big".
        pooled: the faster variant, which halves the resolution after the third layer.
    """

    def __init__(self, width: int = 32, pooled: bool = False) -> None:
        super().__init__()
        channels = [width, width, 2 * width, 2 * width] + 4 * [4 * width] + [DESCRIPTOR_SIZE]
        kernels = (3, 3, 3, 3, 3, 3, 2, 2, 2)
        dilations = _DILATIONS_POOLED if pooled else _DILATIONS
        layers: list[nn.Module] = []
        previous = 3
        for i, (size, kernel, dilation) in enumerate(
            zip(channels, kernels, dilations, strict=True)
        ):
            padding = (kernel - 1) * dilation // 2
            layers.append(nn.Conv2d(previous, size, kernel, padding=padding, dilation=dilation))
            if i < len(channels) - 1:
                layers.append(nn.BatchNorm2d(size, affine=False))
            if kernel == 3:
                layers.append(nn.ReLU(inplace=True))
            if pooled and i == 2:
                layers.append(nn.MaxPool2d(2))
            previous = size
        if pooled:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        # The names are those of the published checkpoints.
        self.ops = nn.Sequential(*layers)
        self.clf = nn.Conv2d(DESCRIPTOR_SIZE, 2, 1)
        self.sal = nn.Conv2d(DESCRIPTOR_SIZE, 1, 1)

    def forward(self, image: Tensor) -> Maps:
        """Return the maps of images (N, 3, H, W), `normalised`.

        The faster variant leaves out the last row and column where their number is odd.
        """
        # 1. One vector for each pixel: (N, 128, H, W).
        x = self.ops(image)
        # 2. Both heads see its squares.
        squared = x**2
        # 3. Reliability, the second of two classes: (N, 2, H, W) -> (N, H, W).
        reliability = self.clf(squared).softmax(dim=1)[:, 1]
        # 4. Repeatability s / (1 + s), whose odds are s = softplus: (N, 1, H, W) -> (N, H, W).
        odds = functional.softplus(self.sal(squared))[:, 0]
        # 5. The descriptor is the vector's direction.
        return Maps(functional.normalize(x, dim=1), reliability, odds)


def _empty_dict(_: object) -> dict[Any, Any]:
    return {}


# The faster variant's training statistics are a dict with a default; a plain one does as well.
_ALLOWED = ((_empty_dict, "collections.defaultdict"), (list, "builtins.list"))


def load_network(path: os.PathLike[str] | str) -> R2D2:
    """Return the network of a checkpoint as its authors publish it, whichever variant it is.

    Nothing but tensors and plain containers is unpickled.

    Raises:
        WeightsError: the file is no checkpoint, or one of another network.
    """
    try:
        with torch.serialization.safe_globals(list(_ALLOWED)):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = "".join(str(error).splitlines()[:1]) or "it ends too early"
        raise WeightsError(f"{path}: not a checkpoint of R2D2: {reason}") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise WeightsError(f"{path}: not a checkpoint of R2D2: it has no state_dict")
    # Published after training on several GPUs, where every name is prefixed.
    state = {key.removeprefix("module."): value for key, value in state.items()}
    first = state.get("ops.0.weight")
    # With pooling in the tenth place, the fourth convolution comes one place later.
    network = R2D2(32 if first is None else len(first), pooled="ops.10.weight" in state)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: not a checkpoint of R2D2: {error}") from error
    return network.eval()
