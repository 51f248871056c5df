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
NUM_CHANNELS = 1024
"""Of the features: 512 of each of the two layers."""

_POOL = 0
_WIDTHS = (64, 64, _POOL, 128, 128, _POOL, 256, 256, 256, _POOL, 512, 512, 512, _POOL, 512, 512)
_CONV4_3, _CONV5_2 = 30, 37  # their places in torchvision's `features`
_DIVISOR = 256.0


class Vgg16(nn.Module):
    """The layers of VGG16-BN up to conv5_2, by torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in _WIDTHS:
            if width == _POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers[: _CONV5_2 + 1])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of conv4_3 (B, 512, H/8, W/8) and conv5_2 (B, 512, H/16, W/16)."""
        local = self.features[: _CONV4_3 + 1](image)
        return local, self.features[_CONV4_3 + 1 :](local)


def network_from_state(state: Mapping[str, Tensor]) -> Vgg16:
    """Build the network from published weights.

    Args:
        state: torchvision's `vgg16_bn`, of which the layers after conv5_2 are left out; or what
            ThinkMatch made of it in training, where the layers up to conv4_3 are `node_layers` and
            those after it `edge_layers`.

    Raises:
        ValueError: a layer is missing or has another shape; the message lists them.
    """
    network = Vgg16()
    wanted = network.state_dict()
    named = {_torchvision_name(name): values for name, values in state.items()}
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


def _torchvision_name(name: str) -> str:
    part, _, rest = name.partition(".")
    if part == "node_layers":
        return f"features.{rest}"
    if part == "edge_layers":
        place, _, kind = rest.partition(".")
        return f"features.{int(place) + _CONV4_3 + 1}.{kind}"
    return name


def square(image: Tensor) -> Tensor:
    """Squeeze an image uint8 (H, W, 3) into the square, bilinearly: float32 (1, 3, 256, 256).

    The values are divided by 256; no mean is taken off.
    """
    planes = image.permute(2, 0, 1)[None].float()
    small = functional.interpolate(planes, (SIDE, SIDE), mode="bilinear", antialias=True)
    return small.round() / _DIVISOR


def normalise(features: Tensor) -> Tensor:
    """Divide features (B, C, H, W) by their norm over the channels.

    That is local response normalisation over twice the channels, with alpha the same, beta 0.5 and
    k 0. Where all channels are zero they stay so.
    """
    return functional.normalize(features, dim=1)


def features_at(network: Vgg16, image: Tensor, places: Tensor) -> Tensor:
    """Return the features of keypoints.

    They are those of the pixels that the keypoints are in, of maps enlarged bilinearly to the
    square; only these pixels are computed.

    Args:
        network: the network.
        image: uint8 (H, W, 3).
        places: float32 (N, 2), the keypoints in the square: x and y from 0 to `SIDE`, with the
            origin at the corner.

    Returns:
        float32 (N, 1024): the two layers, each with norm 1 but for the interpolation.
    """
    pixels = places.floor().clamp(0, SIDE - 1) + 0.5
    grid = (2 * pixels / SIDE - 1)[None, None]
    sampled = [
        functional.grid_sample(
            normalise(found), grid, mode="bilinear", padding_mode="border", align_corners=False
        )[0, :, 0].T
        for found in network(square(image))
    ]
    return torch.cat(sampled, dim=1)
