from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sfm_match.models.r2d2 import R2D2, Maps, load_network, normalised
from sfm_match.models.r2d2_folded import FoldedR2D2
from sfm_match.weights import WeightsError
from tests.components import checkpoint

# Published: name -> parameters, width, pooled.
VARIANTS = {
    "r2d2-wasf-n16": (484_387, 32, False),
    "r2d2-wasf-n8-big": (1_038_899, 48, False),
    "r2d2-faster-wasf-n16": (484_387, 32, True),
}


def random_network(width: int = 8, pooled: bool = False) -> R2D2:
    """Return a network with random weights and, as after training, statistics of its own."""
    torch.manual_seed(3)
    network = R2D2(width, pooled).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.05, 0.3)
    return network


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def whole(folded: FoldedR2D2, image: Tensor) -> Maps:
    """Return the maps of all blocks, joined."""
    blocks = list(folded.blocks(image))
    return Maps(
        torch.cat([block.descriptors for block in blocks], dim=2),
        torch.cat([block.reliability for block in blocks], dim=1),
        torch.cat([block.odds for block in blocks], dim=1),
    )


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(2, 90),
    width=st.integers(2, 40),
    rows=st.integers(1, 50),
    pooled=st.booleans(),
)
def test_blocks_of_rows_give_what_the_network_gives(
    height: int, width: int, rows: int, pooled: bool
) -> None:
    network, image = random_network(pooled=pooled), picture(height, width)
    with torch.inference_mode():
        expected = network(image)
    found = whole(FoldedR2D2(network, pixels_per_block=rows * width), image)
    torch.testing.assert_close(
        torch.nn.functional.normalize(found.descriptors, dim=1),
        expected.descriptors,
        atol=2e-5,
        rtol=0,
    )
    torch.testing.assert_close(found.reliability, expected.reliability, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.odds, expected.odds, atol=1e-5, rtol=1e-4)


def test_the_maps_are_those_of_the_paper() -> None:
    network, image = random_network(), picture(24, 31)
    maps = network(image)
    torch.testing.assert_close(maps.descriptors.norm(dim=1), torch.ones(1, 24, 31))
    features = network.ops(image)
    two = network.clf(features**2)
    torch.testing.assert_close(maps.reliability, two.exp()[:, 1] / two.exp().sum(dim=1))
    positive = (1 + network.sal(features**2)[:, 0].exp()).log()
    torch.testing.assert_close(maps.repeatability, positive / (1 + positive))


def test_the_layers_see_as_far_as_the_paper_says() -> None:
    convolutions = [m for m in R2D2().ops if isinstance(m, torch.nn.Conv2d)]
    assert [m.dilation[0] for m in convolutions] == [1, 1, 1, 2, 2, 4, 4, 8, 16]
    assert [m.out_channels for m in convolutions] == [32, 32, 64, 64, 128, 128, 128, 128, 128]
    pooled = [m for m in R2D2(pooled=True).ops if isinstance(m, torch.nn.Conv2d)]
    assert [m.dilation[0] for m in pooled] == [1, 1, 1, 1, 1, 2, 2, 4, 8]


def test_bfloat16_is_near_float32() -> None:
    network, image = random_network(32), picture(40, 60)
    exact = whole(FoldedR2D2(network), image)
    short = whole(FoldedR2D2(network, dtype=torch.bfloat16), image)
    assert short.descriptors.dtype == torch.bfloat16
    cosines = torch.nn.functional.cosine_similarity(
        short.descriptors.float(), exact.descriptors, dim=1
    )
    assert 0.999 < cosines.min() < 1 - 1e-7
    assert (short.reliability - exact.reliability).abs().max() < 0.02


def test_the_image_is_normalised_as_imagenet_is() -> None:
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None].expand(1, 3, 2, 2)
    torch.testing.assert_close(normalised(mean), torch.zeros(1, 3, 2, 2))
    above = mean + torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.testing.assert_close(normalised(above), torch.ones(1, 3, 2, 2))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_published_checkpoints_are_told_apart(name: str) -> None:
    network = load_network(checkpoint(name))
    parameters, width, pooled = VARIANTS[name]
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.ops[0].out_channels == width
    assert isinstance(network.ops[-1], torch.nn.Upsample) == pooled
    assert not network.training


def save(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def test_a_checkpoint_of_several_gpus_loads(tmp_path: Path) -> None:
    network = random_network()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    statistics = defaultdict(list, loss=[1.0])
    loaded = load_network(
        save({"state_dict": state, "train_history": statistics}, tmp_path / "net.pt")
    )
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    whole_file = save({"state_dict": random_network().state_dict()}, tmp_path / "whole.pt")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole_file.read_bytes()[:1000])
    text = tmp_path / "text.pt"
    text.write_text("no weights")
    (tmp_path / "empty.pt").touch()
    for path in (cut, text, tmp_path / "empty.pt"):
        with pytest.raises(WeightsError, match=f"{path.name}: not a checkpoint of R2D2"):
            load_network(path)
    tensors = save({"weights": torch.zeros(3)}, tmp_path / "tensors.pt")
    with pytest.raises(WeightsError, match="it has no state_dict"):
        load_network(tensors)
    other = save({"state_dict": {"conv.weight": torch.zeros(8, 3, 3, 3)}}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"Missing key.*ops\.0\.weight"):
        load_network(other)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_nothing_is_executed_by_loading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save({"state_dict": {}, "extra": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt: not a checkpoint of R2D2"):
        load_network(path)
    assert "executed" not in capsys.readouterr().out
