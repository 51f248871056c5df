"""ALIKED, folded and in blocks, against kornia's."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from kornia.feature import ALIKED
from torch import Tensor

from sfm_match.models.aliked import FoldedAliked, load_network
from sfm_match.weights import WeightsError


@cache
def random_network(name: str) -> Any:
    """Return a network with weights and statistics that are all different from 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    network = ALIKED(name)
    for key, value in network.state_dict().items():
        if key.endswith(("running_var", "bn1.weight", "bn2.weight")):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.is_floating_point() and key != "dkd.hw_grid":
            size = value[0].numel() if value.ndim > 1 else 4
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / size) ** 0.5)
    return network.eval()


def picture(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def plain(network: Any, image: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
    """Return kornia's scores (H, W), and its descriptors of keypoints (N, 2)."""
    height, width = image.shape[:2]
    features, scores = network.extract_dense_map(image.movedim(2, 0)[None].float() / 255)
    normalised = keypoints / keypoints.new_tensor([width - 1, height - 1]) * 2 - 1
    descriptors, _ = network.desc_head(features, [normalised])
    return scores[0, 0], descriptors[0]


@pytest.mark.parametrize(
    ("name", "height", "width", "pixels", "keypoints_at_once"),
    [
        ("aliked-n16", 64, 96, 1, 7),
        ("aliked-n16", 33, 50, 500, 1000),
        ("aliked-n16", 5, 5, 500, 1000),
        ("aliked-t16", 6, 70, 1, 28),
        ("aliked-n32", 34, 31, 200, 10),
    ],
)
def test_it_computes_what_kornia_does(
    name: str, height: int, width: int, pixels: int, keypoints_at_once: int
) -> None:
    network, image = random_network(name), picture(height, width)
    # Whole pixels too, and the border.
    x = torch.cat([torch.linspace(0, width - 1, 23), torch.arange(5) * (width - 1) // 4 + 0.25])
    y = torch.cat([torch.linspace(height - 1, 0, 23), torch.arange(5) * (height - 1) // 4 + 0.75])
    keypoints = torch.stack([x, y.clamp(max=height - 1)], dim=1)
    # Rounding may move whole pixels below themselves in kornia's coordinates.
    keypoints = (keypoints + 0.01).minimum(keypoints.new_tensor([width - 1.01, height - 1.01]))
    scores, descriptors = plain(network, image, keypoints)
    folded = FoldedAliked(network, pixels, keypoints_at_once)
    dense = folded.dense(image)
    assert dense.scores.shape == (height, width)
    assert dense.scores.std() > 1e-3
    torch.testing.assert_close(dense.scores, scores, atol=1e-5, rtol=0)
    found = folded.describe(dense, keypoints)
    torch.testing.assert_close(found, descriptors, atol=1e-4, rtol=0)
    assert len({tuple(row) for row in found.round(decimals=3).tolist()}) == len(found)


def test_no_keypoints_have_no_descriptors() -> None:
    folded = FoldedAliked(random_network("aliked-t16"))
    assert folded.describe(folded.dense(picture(40, 40)), torch.zeros(0, 2)).shape == (0, 64)


@pytest.mark.parametrize("name", ["aliked-t16", "aliked-n16", "aliked-n32"])
def test_a_checkpoint_says_which_variant_it_is(name: str, tmp_path: Path) -> None:
    network = random_network(name)
    state = {key: value for key, value in network.state_dict().items() if "hw_grid" not in key}
    torch.save(state, tmp_path / "net.pth")
    loaded = load_network(tmp_path / "net.pth")
    assert not loaded.training
    for key, value in state.items():
        torch.testing.assert_close(loaded.state_dict()[key], value)


def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state = dict(random_network("aliked-t16").state_dict())
    missing = {key: value for key, value in state.items() if key != "block2.conv1.weight"}
    wrong = {**state, "conv1.weight": torch.zeros(1)}
    cases: list[tuple[Any, str]] = [
        ({}, "has no desc_head.agg_weights"),
        ([1, 2], "has no desc_head.agg_weights"),
        (missing, "block2.conv1.weight"),
        (wrong, "size mismatch for conv1.weight"),
        ({**state, "more": torch.zeros(1)}, "more"),
    ]
    for content, message in cases:
        torch.save(content, path)
        with pytest.raises(WeightsError, match=f"{path}: not a checkpoint of ALIKED.*") as error:
            load_network(path)
        assert message in str(error.value)
    for junk in (b"", b"no pickle"):
        path.write_bytes(junk)
        with pytest.raises(WeightsError, match="not a checkpoint of ALIKED"):
            load_network(path)
