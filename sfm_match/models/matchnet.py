"""MatchNet: Han, Leung, Jia, Sukthankar, Berg, "MatchNet: Unifying Feature and Metric Learning for
Patch-Based Matching", CVPR 2015. The network, its start, its loss, its files.

Two towers with shared weights describe a patch each; the metric network says of two descriptions
whether they show the same. Pooling is not padded, so that a tower ends in 64 x 7 x 7 numbers.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping

import torch
from pydantic import ConfigDict, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as config_dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from sfm_match.weights import WeightsError

PATCH_SIZE = 64
TOWER_SIZE = 64 * 7 * 7

_GREY_MEAN, _GREY_RANGE = 128.0, 160.0
_CONVOLUTION_GAIN, _CONVOLUTION_BIAS = 0.6, 0.01
# Such convolutions put the descriptors of different patches a few thousandths apart.
_DIFFERENCE_GAIN = 100.0
_BOTTLENECK, _FIRST, _SECOND = "tower.bottleneck.weight", "metric.0.weight", "metric.2.weight"


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class NetworkConfig:
    """What a MatchNet is made of. The names and shapes in a file of weights say the same.

    Attributes:
        bottleneck: the numbers in a descriptor, by a linear layer after the tower; 0 for the
            tower's own 3136.
        hidden: the width of the metric network's two hidden layers.
    """

    bottleneck: NonNegativeInt = 0
    hidden: PositiveInt = 1024

    @property
    def descriptor_size(self) -> int:
        """How many numbers a descriptor has."""
        return self.bottleneck or TOWER_SIZE


def normalised(patches: Tensor) -> Tensor:
    """Return patches with grey values from 0 to 255 as the towers want them."""
    return (patches - _GREY_MEAN) / _GREY_RANGE


class Tower(nn.Module):
    """The feature network.

    Args:
        bottleneck: see `NetworkConfig`.
    """

    def __init__(self, bottleneck: int = 0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 24, 7, padding=3),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(24, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 96, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(96, 96, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(96, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
        )
        self.bottleneck = nn.Linear(TOWER_SIZE, bottleneck) if bottleneck else None

    def forward(self, patches: Tensor) -> Tensor:
        """Return the descriptors (N, F) of patches (N, 1, 64, 64), `normalised`."""
        # 1. 64 x 64 pixels become 31, 15 and 7: (N, 1, 64, 64) -> (N, 64, 7, 7) -> (N, 3136).
        x: Tensor = self.features(patches).flatten(1)
        # 2. (N, 3136) -> (N, F), without a nonlinearity.
        return x if self.bottleneck is None else self.bottleneck(x)


class MatchNet(nn.Module):
    """Two towers that share their weights, and the metric network.

    Args:
        config: what it is made of.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = Tower(config.bottleneck)
        self.metric = nn.Sequential(
            nn.Linear(2 * config.descriptor_size, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 2),
        )

    def forward(self, patches0: Tensor, patches1: Tensor) -> Tensor:
        """Return logits (N, 2) of pairs of patches (N, 1, 64, 64), `normalised`: no match, match.

        The order of a pair counts; who wants it not to, averages both.
        """
        # 1. Both sides in one go: (2 N, 1, 64, 64) -> (2 N, F).
        descriptors = self.tower(torch.cat([patches0, patches1]))
        # 2. Side by side: (N, 2 F).
        pairs = torch.cat(descriptors.chunk(2), dim=1)
        # 3. (N, 2 F) -> (N, 2).
        logits: Tensor = self.metric(pairs)
        return logits


@torch.no_grad()
def initialise(network: MatchNet, generator: torch.Generator) -> None:
    """Draw all weights anew, to train from.

    Convolutions are orthogonal (Saxe et al., ICLR 2014) with gain 0.6 and biases of 0.01, linear
    layers as He et al. (ICCV 2015) have them before a ReLU, with biases of zero. The metric network
    begins with the difference of the two descriptors, enlarged to about 1: from two unrelated
    projections it takes long to find out that they are to be compared.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight, _CONVOLUTION_GAIN, generator=generator)
            nn.init.constant_(layer.bias, _CONVOLUTION_BIAS)  # type: ignore[arg-type]
        elif isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
    first = network.get_parameter(_FIRST)
    of_first, of_second = torch.chunk(first, 2, dim=1)
    of_first *= _DIFFERENCE_GAIN
    of_second.copy_(-of_first)


def cross_entropy(logits: Tensor, is_match: Tensor) -> Tensor:
    """Return the mean cross-entropy, equation (1) of the paper.

    Args:
        logits: (N, 2), what `MatchNet` returns.
        is_match: bool (N,).
    """
    return functional.cross_entropy(logits, is_match.long())


def load_network(path: os.PathLike[str] | str) -> MatchNet:
    """Return the network of a file: the tensors of a `MatchNet`, of any width, by their names.

    It is a safetensors file, or one of torch with the state alone or under `state_dict`. Tensors of
    half precision are taken too; the network has float32.

    Raises:
        WeightsError: the file is no such thing, or it holds another network.
    """
    state = _read_state(path)
    missing = [name for name in (_FIRST, _SECOND) if name not in state or state[name].ndim != 2]
    if missing:
        raise WeightsError(f"{path}: not weights of MatchNet: there is no matrix {missing[0]}")
    bottleneck = len(state[_BOTTLENECK]) if _BOTTLENECK in state else 0
    network = MatchNet(NetworkConfig(bottleneck, len(state[_FIRST])))
    try:
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except RuntimeError as error:
        raise WeightsError(f"{path}: not weights of MatchNet: {error}") from error
    return network.eval()


def _read_state(path: os.PathLike[str] | str) -> Mapping[str, Tensor]:
    """Return the named tensors of a file; nothing else is unpickled."""
    try:
        if not zipfile.is_zipfile(path):
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
        reason = "".join(str(error).splitlines()[:1])
        raise WeightsError(f"{path}: not weights of MatchNet: {reason}") from error
    state = found.get("state_dict", found) if isinstance(found, dict) else found
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: not weights of MatchNet: it has no named tensors")
    return state
