"""VGG16-BN's node features, against the operations of pygmtools' example."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch.nn import functional

from sfm_match.models import vgg
from tests.pictures import noise_picture


def picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return noise in colour."""
    return np.stack(
        [np.roll(noise_picture(height, width), 9 * i, axis=0) for i in range(3)], axis=2
    )


@cache
def network() -> vgg.Vgg16:
    torch.manual_seed(0)
    return vgg.Vgg16().eval()


def test_its_layers_have_torchvision_s_names_and_shapes() -> None:
    shapes = {name: tuple(values.shape) for name, values in network().state_dict().items()}
    assert shapes["features.0.weight"] == (64, 3, 3, 3)
    assert shapes["features.7.weight"] == (128, 64, 3, 3)
    assert shapes["features.20.bias"] == (256,)
    assert shapes["features.30.weight"] == (512, 512, 3, 3)
    assert shapes["features.31.running_var"] == (512,)
    assert shapes["features.37.weight"] == (512, 512, 3, 3)
    convolutions = [
        i for i, layer in enumerate(network().features) if hasattr(layer, "kernel_size")
    ]
    pools = [i for i, layer in enumerate(network().features) if type(layer).__name__ == "MaxPool2d"]
    assert pools == [6, 13, 23, 33]
    assert sorted({*convolutions} - {*pools}) == [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37]


def test_published_layouts_are_read() -> None:
    state = network().state_dict()
    whole = state | {"features.40.weight": torch.zeros(1), "classifier.0.weight": torch.zeros(1)}
    trained = {}
    for name, values in state.items():
        place, _, rest = name.removeprefix("features.").partition(".")
        part = f"node_layers.{place}" if int(place) < 31 else f"edge_layers.{int(place) - 31}"
        trained[f"{part}.{rest}"] = values
    for layout in (whole, trained):
        found = vgg.network_from_state(layout).state_dict()
        assert all(torch.equal(found[name], values) for name, values in state.items())
    del whole["features.3.bias"]
    with pytest.raises(ValueError, match=r"1 of \d+ tensors .* the first is features\.3\.bias"):
        vgg.network_from_state(whole)


def test_normalising_is_local_response_normalisation() -> None:
    maps = torch.randn(1, 64, 4, 5)
    expected = functional.local_response_norm(maps, 128, alpha=128, beta=0.5, k=0)
    torch.testing.assert_close(vgg.normalise(maps), expected)
    assert torch.isfinite(vgg.normalise(torch.zeros(1, 512, 2, 2))).all()


def test_images_are_squeezed_as_pillow_does() -> None:
    image = picture(300, 410)
    small = vgg.square(torch.from_numpy(image)) * 256
    expected = np.asarray(Image.fromarray(image).resize((256, 256), Image.Resampling.BILINEAR))
    assert small.shape == (1, 3, 256, 256)
    assert np.abs(small[0].permute(1, 2, 0).numpy() - expected).max() <= 1


@torch.inference_mode()
def test_features_are_those_of_the_enlarged_maps() -> None:
    image = torch.from_numpy(picture(200, 300))
    places = torch.tensor([[0.0, 0.0], [256.0, 256.0], [100.4, 30.6], [17.0, 255.9]])
    found = vgg.features_at(network(), image, places)
    maps = []
    for features in network()(vgg.square(image)):
        maps.append(functional.interpolate(vgg.normalise(features), (256, 256), mode="bilinear"))
    assert maps[0].shape[1] + maps[1].shape[1] == vgg.NUM_CHANNELS
    both = torch.cat(maps, dim=1)[0]
    for row, (x, y) in enumerate(((0, 0), (255, 255), (100, 30), (17, 255))):
        torch.testing.assert_close(found[row], both[:, y, x], atol=1e-5, rtol=1e-4)
