"""VGG16 with batch normalisation, as node features of graph matching.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015, in torchvision's layout; what graph matching takes of it is that of Wang et al., "Learning
Combinatorial Embedding Networks for Deep Graph Matching", ICCV 2019: the outputs of conv4_3 and of
conv5_2, before their normalisation, at the keypoints of an image that is squeezed into a square.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 256
"""Width and height of the square, in pixels."""
WIDTH = 512
"""Channels of VGG16's widest layers, and of each half of the features."""
NUM_CHANNELS = 2 * WIDTH
"""Of the features: as many of each of the two layers."""
PREFIX = "cnn."
"""Of its names in a file that holds the weights of a solver too."""

_POOL = 0
_WIDTHS = (64, 64, _POOL, 128, 128, _POOL, 256, 256, 256, _POOL, 512, 512, 512, _POOL, 512, 512)
_CONV4_3, _CONV5_2 = 30, 37  # their places in torchvision's `features`
DIVISOR = 256.0
"""What the values of pixels are divided by."""


class Vgg16(nn.Module):
    """The layers of VGG16-BN up to conv5_2, by torchvision's names."""

    def __init__(self, width: int = WIDTH) -> None:
        """Build it, with `width` channels where VGG16 has 512, and fewer in proportion elsewhere.

        Raises:
            ValueError: the width is no multiple of 8.
        """
        super().__init__()
        if width < 8 or width % 8:
            raise ValueError(f"the width must be a multiple of 8, got {width}")
        self.width = width
        layers: list[nn.Module] = []
        channels = 3
        for full in _WIDTHS:
            if full == _POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            own = full * width // WIDTH
            layers += [nn.Conv2d(channels, own, 3, padding=1), nn.BatchNorm2d(own), nn.ReLU()]
            channels = own
        self.features = nn.Sequential(*layers[: _CONV5_2 + 1])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of conv4_3 (B, C, H/8, W/8) and conv5_2 (B, C, H/16, W/16)."""
        local = self.features[: _CONV4_3 + 1](image)
        return local, self.features[_CONV4_3 + 1 :](local)


def network_from_state(state: Mapping[str, Tensor]) -> Vgg16:
    """Build the network from published weights, or from trained ones of whatever width.

    Args:
        state: torchvision's `vgg16_bn`, of which the layers after conv5_2 are left out; or what
            ThinkMatch made of it in training, where the layers up to conv4_3 are `node_layers` and
            those after it `edge_layers`; or a file of this package's training, with `PREFIX`.

    Raises:
        ValueError: a layer is missing or has another shape; the message lists them.
    """
    named = {_torchvision_name(name): values for name, values in state.items()}
    network = Vgg16(_width(named))
    wanted = network.state_dict()
    missing = [
        name
        for name, values in wanted.items()
        if name not in named or named[name].shape != values.shape
    ]
    if missing:
        raise ValueError(
            f"these are no weights of VGG16 with batch normalisation: {len(missing)} of "
            f"{len(wanted)} tensors are missing or of another shape, the first is {missing[0]}"
        )
    network.load_state_dict({name: named[name] for name in wanted})
    return network.eval()


def _width(state: Mapping[str, Tensor]) -> int:
    """Return the width that a layer tells, or VGG16's where there is no such layer."""
    last = state.get(f"features.{_CONV5_2}.bias")
    width = WIDTH if last is None else len(last)
    return WIDTH if width % 8 else width


def _torchvision_name(name: str) -> str:
    part, _, rest = name.removeprefix(PREFIX).partition(".")
    if part == "node_layers":
        return f"features.{rest}"
    if part == "edge_layers":
        place, _, kind = rest.partition(".")
        return f"features.{int(place) + _CONV4_3 + 1}.{kind}"
    return name.removeprefix(PREFIX)


def square(image: Tensor) -> Tensor:
    """Squeeze an image uint8 (H, W, 3) into the square, bilinearly: float32 (1, 3, 256, 256).

    The values are divided by 256; no mean is taken off.
    """
    planes = image.permute(2, 0, 1)[None].float()
    small = functional.interpolate(planes, (SIDE, SIDE), mode="bilinear", antialias=True)
    return small.round() / DIVISOR


def normalise(features: Tensor) -> Tensor:
    """Divide features (B, C, H, W) by their norm over the channels.

    That is local response normalisation over twice the channels, with alpha the same, beta 0.5 and
    k 0. Where all channels are zero they stay so.
    """
    return functional.normalize(features, dim=1)


def features_at(network: Vgg16, image: Tensor, places: Tensor) -> Tensor:
    """Return the features of an image's keypoints.

    Args:
        network: the network.
        image: uint8 (H, W, 3).
        places: float32 (N, 2), the keypoints in the square: x and y from 0 to `SIDE`, with the
            origin at the corner.

    Returns:
        float32 (N, 1024), or twice the network's width: the two layers, each with norm 1 but for
        the interpolation.
    """
    return features_of(network, square(image), places[None])[0]


def features_of(network: Vgg16, images: Tensor, places: Tensor) -> Tensor:
    """Return the features of the keypoints of some images of one size.

    They are those of the pixels that the keypoints are in, of maps enlarged bilinearly to the
    square; only these pixels are computed.

    Args:
        network: the network.
        images: float32 (B, 3, H, W), as `square` makes them, of any size.
        places: float32 (B, N, 2), as if the images were squares of `SIDE`.

    Returns:
        float32 (B, N, C), as `features_at`.
    """
    pixels = places.floor().clamp(0, SIDE - 1) + 0.5
    grid = (2 * pixels / SIDE - 1)[:, None]
    sampled = [
        functional.grid_sample(
            normalise(found), grid, mode="bilinear", padding_mode="border", align_corners=False
        )[:, :, 0].mT
        for found in network(images)
    ]
    return torch.cat(sampled, dim=2)
