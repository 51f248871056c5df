from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kornia.feature import LoFTR
from safetensors.torch import save_file

from sfm_match.models.loftr import TwoPhaseLoFTR
from sfm_match.models.loftr_network import (
    has_fine_stage,
    load_network,
    network_config,
    new_network,
)
from sfm_match.weights import WeightsError
from tests.pictures import noise_picture


def small(width: int) -> LoFTR:
    torch.manual_seed(0)
    config = network_config(coarse_16=True, fine_width=width)
    config["match_coarse"].update(thr=0.0, border_rm=1)
    return new_network(config).eval()


@pytest.mark.parametrize("width", [16, 24])
def test_a_small_network_with_a_fine_stage_of_any_width(tmp_path: Path, width: int) -> None:
    torch.set_num_threads(1)
    network = small(width)
    save_file(network.state_dict(), tmp_path / "small.safetensors")
    loaded, bin_score = load_network(tmp_path / "small.safetensors", threshold=0.0, border=1)
    assert bin_score is None
    assert has_fine_stage(loaded)
    assert loaded.config["fine"]["nhead"] == width // 8
    images = [torch.from_numpy(noise_picture(96, 128, seed)) for seed in (0, 1)]
    two = TwoPhaseLoFTR(loaded, "second")
    (found,) = two.match([(two.encode(images[0]), two.encode(images[1]))])
    with torch.inference_mode():
        whole = [image[None, None].float() / 255 for image in images]
        expected = network({"image0": whole[0], "image1": whole[1]})
    assert len(found.scores) > 3
    torch.testing.assert_close(found.points0, expected["keypoints0"])
    torch.testing.assert_close(found.points1, expected["keypoints1"], atol=1e-3, rtol=0)
    assert (found.points1 % 16 != 0).any()


def test_half_precision_is_read_as_single(tmp_path: Path) -> None:
    state = small(16).state_dict()
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file(halves, tmp_path / "half.safetensors")
    network, _ = load_network(tmp_path / "half.safetensors")
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    name = "loftr_fine.layers.0.q_proj.weight"
    torch.testing.assert_close(network.state_dict()[name], state[name], atol=1e-3, rtol=0)


def test_fine_maps_that_no_fine_stage_can_have(tmp_path: Path) -> None:
    state = small(16).state_dict()
    name = "backbone.layer2_outconv2.3.weight"
    for wrong in (torch.zeros(20, 32, 3, 3), torch.zeros(0, 32, 3, 3), torch.tensor(1.0)):
        save_file({**state, name: wrong}, tmp_path / "wrong.safetensors")
        with pytest.raises(WeightsError, match=r"layer2_outconv2\.3\.weight .* should be \(16, 32"):
            load_network(tmp_path / "wrong.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(WeightsError, match=r"cut\.safetensors: not a checkpoint of LoFTR: "):
        load_network(tmp_path / "cut.safetensors")
